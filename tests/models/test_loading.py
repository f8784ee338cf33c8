"""Loading the pair: every tensor comes from the checkpoint, CLIP does not train, and a wrong name gets one line."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, GPT2LMHeadModel

from helpers.errors import UserError
from helpers.models.loading import load_encoder, load_gpt2
from helpers.runtime.model_folders import TINY


@pytest.fixture
def copy(tmp_path):
    def make(folder, name="copy"):
        return shutil.copytree(folder, tmp_path / name)

    return make


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_clip_is_the_checkpoints_vision_tower_frozen(tiny_clip, capfd):
    clip = load_encoder(tiny_clip)
    assert capfd.readouterr() == ("", "")  # neither a report on the text tower's tensors nor a progress bar
    assert clip.width == 32
    assert not clip.vision.training
    assert not any(parameter.requires_grad for parameter in clip.vision.parameters())
    pictures = [Image.new("RGB", (50, 40), "red"), Image.new("RGB", (33, 90), "blue")]
    embeddings = clip.embed(pictures)
    assert (embeddings.shape, embeddings.dtype, embeddings.device.type) == ((2, 32), torch.float32, "cpu")
    whole = CLIPModel.from_pretrained(tiny_clip).eval()
    with torch.no_grad():
        expected = whole.vision_model(pixel_values=clip.pixel_values(pictures)).pooler_output
    torch.testing.assert_close(embeddings, expected)


def test_patches_are_a_sequence_that_begins_with_the_pooled_one(tiny_clip):
    pooled, patches = load_encoder(tiny_clip), load_encoder(tiny_clip, pooling="patches")
    pictures = [Image.new("RGB", (50, 40), "red"), Image.linear_gradient("L").convert("RGB")]
    tokens = patches.embed(pictures)
    assert tokens.shape == (2, *patches.shape) == (2, 17, 32)  # 4 x 4 patches of 8 pixels
    assert pooled.shape == (32,)
    torch.testing.assert_close(tokens[:, 0], pooled.embed(pictures))
    assert (tokens[1, 1:].std(dim=0) > 0).all()
    torch.testing.assert_close(tokens.mean(dim=2), torch.zeros(2, 17), atol=1e-5, rtol=0)  # each after the final norm
    one, other = pooled.fingerprint(), patches.fingerprint()
    assert {key for key in one if one[key] != other[key]} == {"pooling"}
    assert other.keys() - one.keys() == {"tokens"}


def test_the_fingerprint_of_a_pooled_cache_is_what_it_always_was(tiny_clip):
    """Keep caches valid that were built before patches existed."""
    found = load_encoder(tiny_clip).fingerprint()
    assert list(found) == ["name", "weights_sha256", "preprocessing", "pooling", "dtype", "width"]
    assert found["pooling"] == "pooler_output of the vision tower, before projection"


def test_a_vision_tower_alone_is_a_clip_too(tiny_clip, tmp_path):
    clip = load_encoder(tiny_clip)
    clip.vision.save_pretrained(tmp_path)
    clip.processor.save_pretrained(tmp_path)
    assert load_encoder(tmp_path).fingerprint() == {**clip.fingerprint(), "name": str(tmp_path)}


def test_another_dtype_computes_but_returns_float32(tiny_clip):
    clip = load_encoder(tiny_clip, dtype=torch.bfloat16)
    assert clip.vision.dtype == torch.bfloat16
    assert clip.embed([Image.new("RGB", (32, 32))]).dtype == torch.float32
    assert clip.fingerprint()["dtype"] == "bfloat16"


def test_the_fingerprint_is_of_weights_and_preprocessing_not_of_the_folder(tiny_clip, copy):
    known = load_encoder(tiny_clip).fingerprint()
    assert json.loads(json.dumps(known)) == known
    moved = copy(tiny_clip)
    assert load_encoder(moved).fingerprint() == {**known, "name": str(moved)}

    settings = json.loads((moved / "preprocessor_config.json").read_text())
    (moved / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.5, 0.5, 0.5]}))
    assert load_encoder(moved).fingerprint()["preprocessing"] != known["preprocessing"]

    tensors = load_file(moved / "model.safetensors")
    tensors["text_projection.weight"] += 1
    save_file(tensors, moved / "model.safetensors", {"format": "pt"})
    assert load_encoder(moved).fingerprint()["weights_sha256"] == known["weights_sha256"]
    tensors["vision_model.post_layernorm.bias"][0] += 1
    save_file(tensors, moved / "model.safetensors", {"format": "pt"})
    assert load_encoder(moved).fingerprint()["weights_sha256"] != known["weights_sha256"]


def test_gpt2_and_its_tokenizer(tiny_gpt2, capfd):
    gpt2, tokenizer = load_gpt2(tiny_gpt2)
    assert capfd.readouterr() == ("", "")
    assert isinstance(gpt2, GPT2LMHeadModel)
    assert (gpt2.dtype, gpt2.training) == (torch.float32, False)
    assert gpt2.lm_head.weight is gpt2.transformer.wte.weight
    assert tokenizer.decode(tokenizer("A dog, né?")["input_ids"]) == "A dog, né?"
    assert tokenizer.eos_token_id == gpt2.config.eos_token_id == 256


@pytest.mark.parametrize(("load", "part"), [(load_encoder, "clip"), (load_gpt2, "gpt2")])
def test_a_checkpoint_that_is_not_whole(load, part, copy, request):
    folder = copy(request.getfixturevalue(f"tiny_{part}"))
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    lost = next(key for key in sorted(tensors) if "vision_model" in key or "h.1." in key)
    del tensors[lost]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 tensors") as caught:
        load(folder)
    assert str(folder) in one_line(caught)

    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="can be loaded") as caught:
        load(folder)
    one_line(caught)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors") as caught:
        load(folder)
    one_line(caught)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"no .* can be loaded") as caught:
        load(folder)
    one_line(caught)


def test_the_other_half_of_the_pair(tiny_clip, tiny_gpt2):
    with pytest.raises(UserError, match="type gpt2, but a vision tower") as caught:
        load_encoder(tiny_gpt2)
    one_line(caught)
    with pytest.raises(UserError, match="type clip, which no captioner can take, because it is several models in one"):
        load_gpt2(tiny_clip)


def test_parts_that_do_not_fit_each_other(tiny_clip, tiny_gpt2, copy):
    clip, gpt2 = copy(tiny_clip, "clip"), copy(tiny_gpt2, "gpt2")
    settings = json.loads((clip / "preprocessor_config.json").read_text())
    (clip / "preprocessor_config.json").write_text(json.dumps({**settings, "crop_size": {"height": 24, "width": 24}}))
    with pytest.raises(UserError, match="tower takes 32 pixels"):
        load_encoder(clip)
    tokenizer = json.loads((gpt2 / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["more"] = 257
    (gpt2 / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="258 tokens that does not fit its language model of 257"):
        load_gpt2(gpt2)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/clip", "runs/pair/clip", "~/nowhere", "missing.txt"])
def test_a_path_that_is_no_folder_is_not_looked_for_on_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "missing.txt").touch()
    with pytest.raises(UserError, match="is no folder"):
        load_encoder(name)
    with pytest.raises(UserError, match="is no folder"):
        load_gpt2(tmp_path / "gpt2")


@pytest.mark.parametrize("name", ["nobody/nothing", "gpt-nothing", "two words!"])
def test_a_hub_name_that_cannot_be_had_offline(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set") as caught:
        load_gpt2(name)
    assert name in one_line(caught)


def test_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match="whole model in the hub's layout") as caught:
        load_encoder(tmp_path)
    one_line(caught)


def test_weights_that_are_attached_stand_for_a_name_on_the_hub(tiny_clip, tiny_gpt2, tmp_path, monkeypatch):
    """Find weights on Kaggle without internet. The tiny pair, attached with the helpers, is not mistaken for GPT-2."""
    monkeypatch.setattr("helpers.runtime.kaggle.INPUTS", tmp_path)
    shutil.copytree(TINY, tmp_path / "clipxgpt-helpers" / "helpers" / "tiny")
    shutil.copytree(tiny_gpt2, tmp_path / "datasets" / "someone" / "any" / "weights" / "gpt2")
    shutil.copytree(tiny_clip, tmp_path / "models/someone/any/pytorch/default/1/weights/clip-vit-base-patch32")
    assert load_gpt2("gpt2")[0].config.n_embd == 32
    assert load_encoder("openai/clip-vit-base-patch32").width == 32


def test_gpt2s_activation_is_its_own_function_in_one_operation(tiny_gpt2):
    reference = GPT2LMHeadModel.from_pretrained(tiny_gpt2)
    ours = load_gpt2(tiny_gpt2)[0]
    assert (reference.config.activation_function, ours.config.activation_function) == ("gelu_new", "gelu_pytorch_tanh")
    ids = torch.arange(20).unsqueeze(0)
    torch.testing.assert_close(ours(ids).logits, reference.eval()(ids).logits, rtol=1e-5, atol=1e-5)
