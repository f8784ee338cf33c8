"""Language models of other families do what GPT-2 does; one that would need a second path is refused."""

import copy
import json

import pytest
import torch
from small_models import (
    END,
    FAMILIES,
    language_config,
    learn,
    random_batch,
    random_captioner,
    save_language_model,
)
from torch.nn import functional as F
from transformers import AutoConfig, GPT2LMHeadModel, PhiConfig, PhiForCausalLM

from helpers.config import Config
from helpers.encoders.vision import build_tower
from helpers.errors import UserError
from helpers.language.freezing import freeze, freezing_table
from helpers.language.language_model import check_reading, find_parts, language_model_class, longest_text
from helpers.models.captioner import Captioner
from helpers.models.captioner_config import CaptionerConfig
from helpers.models.loading import load_gpt2
from helpers.training.loss import CaptionLoss
from helpers.training.packing import pack

MODULES = {  # of three blocks each: the embeddings, the blocks' list, what stands behind it
    "SmolLM2": (["embed_tokens"], "layers", ["norm"]),
    "Qwen2": (["embed_tokens"], "layers", ["norm"]),
    "Qwen3": (["embed_tokens"], "layers", ["norm"]),
    "OPT": (["embed_tokens", "embed_positions"], "layers", ["final_layer_norm"]),
    "OPT-350m": (["embed_tokens", "embed_positions"], "layers", ["project_out", "project_in"]),
    "GPT-Neo": (["wte", "wpe"], "h", ["ln_f"]),
    "Pythia": (["embed_in"], "layers", ["final_layer_norm"]),
    "Mistral": (["embed_tokens"], "layers", ["norm"]),
    "Gemma": (["embed_tokens"], "layers", ["norm"]),
}
UNTIED = ("Qwen3", "Pythia", "Mistral")  # the output layer is not the token embeddings


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def captioner(family) -> Captioner:
    """A captioner that writes different captions for different pictures."""
    captioner = random_captioner(family=family)
    captioner.mapper.output.weight.data.mul_(20)
    return captioner


def images(rows: int) -> torch.Tensor:
    return torch.randn(rows, 32, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("policy", ["full", "first-and-last", "last-n", "frozen"])
def test_each_policy_trains_what_its_name_says(family, policy):
    gpt2 = random_captioner(family=family).gpt2
    embeddings, name, norms = MODULES[family]
    blocks, output = [f"{name}.{number}" for number in range(3)], list(find_parts(gpt2).output)
    assert len(output) == (family in UNTIED)
    trained = {"full": blocks, "first-and-last": [blocks[0], blocks[2]], "last-n": blocks[1:]}
    freeze(gpt2, Config(freezing=policy, last_n=2))
    table = freezing_table(gpt2).iloc[:-1]
    assert list(table.module) == [*embeddings, *blocks, *norms, *output]
    assert table.parameters.sum() == sum(weight.numel() for weight in gpt2.parameters())  # nothing is left out
    assert set(table.trains) <= {"yes", "no"}
    beside = {*embeddings, *norms, *output}
    assert {*table.module[table.trains == "yes"]} == (beside | {*trained[policy]} if policy in trained else set())
    assert len(table) == len(set(table.module))


def test_the_output_layer_goes_with_the_embeddings(family):
    gpt2 = random_captioner(family=family).gpt2
    freeze(gpt2, Config(train_embeddings=False))
    assert not gpt2.get_input_embeddings().weight.requires_grad
    assert not gpt2.get_output_embeddings().weight.requires_grad


@pytest.mark.parametrize("freezing", ["full", "last-n", "lora"])
def test_packed_equals_padded_in_loss_and_gradients(family, freezing):
    """Positions are counted from each caption's own prefix on, also where attention turns vectors by them."""
    captioner = random_captioner(family=family)
    freeze(captioner.gpt2, Config(freezing=freezing, last_n=1))
    batch = random_batch([3, 1, 9, 20, 14, 5, 11, 2])
    padded = captioner(batch.input_ids, embeddings=batch.embeddings, labels=batch.labels).loss
    wanted = gradients(captioner, padded)
    packed = CaptionLoss(captioner)(pack(batch, captioner.config.prefix_length))
    assert packed.item() == pytest.approx(padded.item(), rel=1e-5)
    found = gradients(captioner, packed)
    assert found.keys() == wanted.keys()
    largest = max(gradient.abs().max().item() for gradient in wanted.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * largest)


def gradients(captioner, loss) -> dict[str, torch.Tensor]:
    captioner.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in captioner.named_parameters() if p.grad is not None}


def test_a_caption_does_not_see_its_neighbours_nor_what_comes_after(captioner):
    check_reading(captioner.gpt2)
    ids = torch.randint(0, END, (3, 9), generator=torch.Generator().manual_seed(1))
    changed = ids.clone()
    changed[:, 4:] = 7
    one, other = (captioner(each, embeddings=images(3)).logits[:, :5] for each in (ids, changed))
    torch.testing.assert_close(one, other)


def test_what_is_written_follows_teacher_forcing(captioner):
    ids = captioner.generate(images(5), max_new_tokens=10)
    assert len({*map(tuple, ids.tolist())}) > 1
    assert torch.equal(captioner(ids, embeddings=images(5)).logits.argmax(dim=-1), ids)


def test_beams_that_share_a_prefix_find_what_each_finds_alone(captioner):
    choices = {"num_beams": 3, "max_new_tokens": 9}
    prefix, plain = captioner.prefix(images(5)), copy.deepcopy(captioner.generation_config)
    plain.update(**choices)
    mask = torch.ones(prefix.shape[:2], dtype=torch.long)
    wanted = captioner.gpt2.generate(inputs_embeds=prefix, attention_mask=mask, generation_config=plain)
    assert captioner.generate(images(5), **choices).equal(wanted)
    for row in range(5):
        alone = captioner.generate(images(5)[row : row + 1], **choices)[0]
        assert F.pad(alone, (0, wanted.shape[1] - len(alone)), value=END).equal(wanted[row])


@pytest.mark.parametrize("beams", [1, 3])
def test_guidance_follows_the_formula(captioner, beams):
    choices = {"num_beams": beams, "max_new_tokens": 8, "return_dict_in_generate": True, "output_scores": True}
    found = captioner.generate(images(4), guidance_scale=2.5, **choices)
    ids = found.sequences
    assert not ids.equal(captioner.generate(images(4), **choices).sequences)
    mean = captioner.mean_embedding.expand(4, -1)
    true, without = (captioner(ids, embeddings=each).logits.log_softmax(dim=-1) for each in (images(4), mean))
    guided = (without + 2.5 * (true - without)).log_softmax(dim=-1)
    counted = (ids == END).cumsum(dim=1) - (ids == END).int() == 0  # up to the end of the caption
    if beams == 1:
        assert torch.equal(guided.argmax(dim=-1)[counted], ids[counted])
    else:  # a beam's score is the mean of its tokens' guided log-probabilities
        nats = guided.gather(2, ids.unsqueeze(2)).squeeze(2) * counted
        means = nats.sum(dim=1) / counted.sum(dim=1)
        torch.testing.assert_close(found.sequences_scores, means, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("freezing", ["full", "lora"])
def test_saved_and_loaded_it_is_the_same_without_a_pickle(captioner, family, freezing, tmp_path):
    freeze(captioner.gpt2, Config(freezing=freezing, train_embeddings=False))
    learn(captioner, torch.optim.AdamW([p for p in captioner.parameters() if p.requires_grad], lr=0.01), 2, seed=1)
    captioner.eval().save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors",
    ]  # fmt: skip
    again = Captioner.from_pretrained(tmp_path)
    assert type(again.gpt2) is type(captioner.gpt2)
    assert again.gpt2.state_dict().keys() == random_captioner(family=family).gpt2.state_dict().keys()
    ids = torch.randint(0, END, (3, 9), generator=torch.Generator().manual_seed(1))
    one, other = (each(ids, embeddings=images(3)).logits for each in (captioner, again))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    tied = again.gpt2.get_output_embeddings().weight is again.gpt2.get_input_embeddings().weight
    assert tied == (family not in UNTIED)
    batch = random_batch([3, 9, 5])
    torch.testing.assert_close(*(CaptionLoss(each)(pack(batch, 4)) for each in (captioner, again)))


def test_adapters_stand_beside_attention_and_what_the_mlp_writes_back(family):
    gpt2 = random_captioner(family=family).gpt2
    freeze(gpt2, Config(freezing="lora", lora_rank=4, train_embeddings=False))
    names = {name.partition(".lora_A")[0] for name, weight in gpt2.named_parameters() if weight.requires_grad}
    names = {name.partition(".lora_B")[0].rpartition(".")[2] for name in names}
    attention = {"Pythia": {"query_key_value", "dense"}, "GPT-Neo": {"q_proj", "k_proj", "v_proj", "out_proj"}}
    attention |= dict.fromkeys(("OPT", "OPT-350m"), attention["GPT-Neo"])
    written = {"Pythia": "dense_4h_to_h", "GPT-Neo": "c_proj", "OPT": "fc2", "OPT-350m": "fc2"}
    assert names == attention.get(family, {"q_proj", "k_proj", "v_proj", "o_proj"}) | {written.get(family, "down_proj")}


def test_a_training_begins_behind_the_beginning_of_a_text(family):
    """Some models scale their token embeddings: what stands for a token is what they read, not what they store."""
    captioner = random_captioner(family=family)
    captioner.prepare_for(images(50))
    read, prefix = captioner.gpt2.get_input_embeddings()(torch.tensor(END)), captioner.prefix(images(50))
    assert (prefix.mean(dim=(0, 1)) - read).abs().mean() < 0.5 * read.abs().mean()


def test_captions_are_as_long_as_positions_and_window_allow():
    lengths = {family: longest_text(language_config(family)) for family in FAMILIES}
    assert {family: length for family, length in lengths.items() if length != 256} == {"Mistral": 48, "Gemma": 48}
    assert random_captioner(family="Mistral").longest_caption == 44


@pytest.fixture
def folder(tiny_gpt2, tmp_path):
    """A function that makes the folder of a language model of these settings, with a tokenizer."""

    def make(**settings):
        config = AutoConfig.for_model(**{"vocab_size": 257, "max_position_embeddings": 96, **settings})
        return save_language_model(config, tiny_gpt2, tmp_path)

    return make


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_in_the_hubs_layout(folder, dtype):
    path = folder(model_type="llama", dtype=dtype, eos_token_id=7, bos_token_id=5, **SMALL)
    gpt2, tokenizer = load_gpt2(path)
    assert (gpt2.dtype, gpt2.training, gpt2.config.eos_token_id) == (torch.float32, False, tokenizer.eos_token_id)
    assert gpt2.config.bos_token_id == 256


def test_without_a_beginning_of_text_the_end_of_one_text_begins_the_next(folder):
    path = folder(model_type="qwen2", num_key_value_heads=2, max_window_layers=2, **SMALL)
    change(path / "tokenizer_config.json", bos_token=None)
    gpt2, tokenizer = load_gpt2(path)
    assert tokenizer.bos_token_id is None
    assert (gpt2.config.bos_token_id, gpt2.config.eos_token_id) == (256, 256)


def test_how_a_model_chats_does_not_change_how_captions_are_written(folder, tiny_clip):
    """A generation_config.json of the hub may have a penalty for repetitions, or let every model sample."""
    path = folder(model_type="llama", **SMALL)
    captions = []
    for settings in ({}, {"repetition_penalty": 5.0, "do_sample": True, "no_repeat_ngram_size": 1}):
        change(path / "generation_config.json", **settings)
        gpt2, _ = load_gpt2(path)
        torch.manual_seed(0)
        vision = random_captioner().config.vision_config
        captioner = Captioner(CaptionerConfig(vision, gpt2.config, mapper="mlp"), build_tower(vision, "pooled"), gpt2)
        captions.append(captioner.eval().generate(images(4)))
    assert captions[0].equal(captions[1])


def change(file, **values) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **values}))


@pytest.mark.parametrize(
    ("settings", "because"),
    [
        ({"model_type": "t5"}, "it has an encoder"),
        ({"model_type": "bart"}, "it has an encoder"),
        ({"model_type": "bert"}, "it has an encoder"),
        ({"model_type": "clip"}, "it is several models in one"),
        ({"model_type": "gemma3"}, "it is several models in one"),
        ({"model_type": "vit"}, "transformers has no text decoder of that type"),
        ({"model_type": "mamba"}, "its forward pass does not take each of inputs_embeds, position_ids"),
        ({"model_type": "bloom"}, "its forward pass does not take each of"),
        ({"model_type": "falcon_h1"}, "not all of its layers are attention"),
        ({"model_type": "lfm2", "layer_types": ["conv"] * 32}, "not all of its layers are attention"),
        ({"model_type": "mixtral"}, "it chooses experts for each token"),
        ({"model_type": "qwen3_moe"}, "it chooses experts for each token"),
        ({"model_type": "gemma2"}, "its final_logit_softcapping changes the scores"),
        ({"model_type": "cohere"}, "its logit_scale changes the scores"),
        ({"model_type": "granite", "logits_scaling": 8.0}, "its logits_scaling changes the scores"),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_what_needs_a_second_path_is_refused_by_its_config_alone(tmp_path, settings, because):
    """Nothing but the config is in the folder: there are no weights to fetch, and none are looked for."""
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError) as error:
        load_gpt2(tmp_path)
    said = str(error.value)
    assert "\n" not in said
    assert said.startswith(f"the language model {tmp_path} is of type {settings['model_type']}, which no captioner can")
    assert because in said
    assert said.endswith("; name another decoder-only one, such as gpt2 or HuggingFaceTB/SmolLM2-135M")


def test_a_captioners_folder_that_claims_such_a_model(captioner, tmp_path):
    captioner.save_pretrained(tmp_path)
    change(tmp_path / "config.json", text_config={"model_type": "mamba"})
    with pytest.raises(UserError, match="the language model of this captioner is of type mamba, which no captioner"):
        Captioner.from_pretrained(tmp_path)


def test_what_its_config_does_not_tell_is_found_by_reading(folder):
    """Phi's output layer has a bias, which the loss in chunks does not have; BertGeneration sees what comes after."""
    path = folder(model_type="phi", pad_token_id=0, **SMALL)
    phi = PhiForCausalLM.from_pretrained(path)
    check_reading(phi)
    torch.nn.init.normal_(phi.lm_head.bias)
    phi.save_pretrained(path)
    with pytest.raises(UserError, match="is of type phi, whose scores for texts in one row are others than"):
        load_gpt2(path)
    with pytest.raises(UserError, match="is of type bert-generation, whose scores"):
        load_gpt2(folder(model_type="bert-generation", is_decoder=False, **SMALL))


def test_the_class_is_transformers_own():
    assert language_model_class(AutoConfig.for_model("gpt2")) is GPT2LMHeadModel
    assert language_model_class(PhiConfig()) is PhiForCausalLM
