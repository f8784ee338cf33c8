"""Folders of strangers: nothing in them runs, no claim takes memory, no contradiction goes unsaid, no traceback."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from helpers.data.batches import caption_tokens
from helpers.encoders.efficientnet import EfficientNetLiteConfig, EfficientNetLiteModel
from helpers.encoders.processor import CLIPImageProcessor
from helpers.errors import UserError
from helpers.language.tokenizer import vocabulary_sha256
from helpers.models.loading import load_encoder, load_gpt2
from helpers.models.writer import CaptionWriter
from helpers.runtime.model_folders import TINY

ROOT = Path(__file__).parents[2]
CUSTOM = {name: "custom.Custom" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer",
                                              "AutoImageProcessor", "AutoProcessor")}  # fmt: skip


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A captioner's folder to damage."""
    return shutil.copytree(finished.captioner, tmp_path / "captioner")


def change(file: Path, **values) -> None:
    """Change entries of a JSON file; a name such as text_config__n_layer is one within another."""
    content = json.loads(file.read_text())
    for name, value in values.items():
        *outer, last = name.split("__")
        inner = content
        for part in outer:
            inner = inner[part]
        inner[last] = value
    file.write_text(json.dumps(content))


def change_tensor(folder: Path, name: str, value) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = value(tensors[name])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def refused(load, folder) -> str:
    with pytest.raises(UserError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("model_type", ["mine", "clipxgpt-captioner"])
def test_code_in_a_folder_never_runs_though_one_says_yes(copy, model_type, tmp_path):
    """Without trust_remote_code=False transformers asks "run the custom code? [y/N]", and runs it after a y."""
    (copy / "custom.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Custom: pass\n")
    files = ("config.json", "tokenizer_config.json", "preprocessor_config.json")
    for name in files:
        change(copy / name, auto_map=CUSTOM | {"AutoTokenizer": ["custom.Custom", "custom.Custom"]})
    change(copy / "config.json", model_type=model_type)
    change(copy / "tokenizer_config.json", tokenizer_class="Custom")
    change(copy / "preprocessor_config.json", image_processor_type="Custom")
    for arguments in (
        ["predict", "-C", str(copy)],
        ["embed", "--clip", str(copy), "--captions", "c.csv", "--out", "o"],
    ):
        Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
        (tmp_path / "c.csv").write_text("image,caption\na.png,a dog\n")
        where = ["a.png"] if arguments[0] == "predict" else ["--images", str(tmp_path)]
        done = subprocess.run(
            [sys.executable, "-m", "helpers", *arguments, *where], cwd=tmp_path, input="y\ny\ny\n", text=True,
            capture_output=True, env={"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PATH": ""}, timeout=120,
        )  # fmt: skip
        assert not (tmp_path / "ran").exists()
        if done.returncode:
            assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
            assert "custom" in done.stderr.lower()
        else:
            assert model_type != "mine"


@pytest.mark.parametrize(
    ("file", "values", "says"),
    [
        ("config.json", {"text_config__n_layer": 100_000}, "n_layer 100000 in its config.json, but only"),
        ("config.json", {"vision_config__num_hidden_layers": 100_000}, "num_hidden_layers 100000"),
        ("config.json", {"mapper_layers": 100_000}, "mapper_layers 100000"),
        ("config.json", {"text_config__n_layer": -1}, "n_layer -1 in its config.json, but at least 1"),
        ("config.json", {"vision_config__num_hidden_layers": 0}, "num_hidden_layers 0 in its config.json, but at"),
        ("config.json", {"familiarity": 10**9}, "familiarity 1000000000 in its config.json, but only"),
        ("config.json", {"text_config__vocab_size": 10**9}, "describes 128,"),
        ("config.json", {"text_config__n_positions": 10**9}, "describes 128,"),
        ("config.json", {"prefix_length": 10**7}, "describes "),
        ("config.json", {"vision_config__hidden_size": 10**6}, "numbers in its config.json, but its weights are"),
        ("config.json", {"vision_config__image_size": 100_000}, "its tower takes 100000 pixels both ways"),
        (
            "preprocessor_config.json",
            {"crop_size": {"height": 100_000, "width": 100_000}},
            "pictures of {'height': 100000",
        ),
        ("preprocessor_config.json", {"size": {"shortest_edge": 100_000}}, "at most 2048 are allowed"),
    ],
)
def test_a_claim_is_checked_before_memory_is_taken(copy, file, values, says):
    change(copy / file, **values)
    before, begun = psutil.Process().memory_info().rss, time.process_time()
    assert says in refused(CaptionWriter.load, copy)
    assert time.process_time() - begun < 2  # seconds
    assert psutil.Process().memory_info().rss - before < 10**9  # bytes


def test_a_crop_that_both_files_claim_is_refused(copy):
    change(copy / "config.json", vision_config__image_size=100_000)
    change(
        copy / "preprocessor_config.json",
        size={"shortest_edge": 100_000},
        crop_size={"height": 100_000, "width": 100_000},
    )
    assert "takes pictures of 100000 pixels, but at most 2048" in refused(CaptionWriter.load, copy)


def test_an_efficientnet_of_endless_depth(tmp_path):
    EfficientNetLiteModel(EfficientNetLiteConfig(image_size=32)).save_pretrained(tmp_path)
    CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(tmp_path)
    change(tmp_path / "config.json", depth=1e6)
    assert "depth is 1000000.0, but both must be above 0 and at most 4" in refused(load_encoder, tmp_path)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"vision_config__num_hidden_layers": 1}, "has more layers than its config.json says, such as"),
        ({"text_config__n_layer": 2}, "has more layers than its config.json says, such as"),
        ({"pooling": "mean"}, "pooling is 'mean', but must be one of"),
        ({"pooling": None}, "pooling is None, but must be one of"),
    ],
)
def test_a_config_that_contradicts_its_weights(copy, values, says):
    change(copy / "config.json", **values)
    assert says in refused_anywhere(copy)


def refused_anywhere(folder) -> str:
    with pytest.raises(UserError) as error:
        CaptionWriter.load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_towers_with_fewer_layers_than_their_checkpoints(tiny_clip, tiny_gpt2, tmp_path):
    for name, folder, load in (("clip", tiny_clip, load_encoder), ("gpt2", tiny_gpt2, load_gpt2)):
        other = shutil.copytree(folder, tmp_path / name)
        layers = {"vision_config__num_hidden_layers": 1} if name == "clip" else {"n_layer": 1}
        change(other / "config.json", **layers)
        assert "has more layers than its config.json says" in refused(load, other)


@pytest.mark.parametrize(
    "values",
    [
        {"image_std": [0, 1, 1]}, {"image_std": [float("inf")] * 3}, {"image_std": [float("nan")] * 3},
        {"image_mean": [float("nan")] * 3}, {"rescale_factor": 0.0}, {"rescale_factor": float("inf")},
        {"image_std": "a"}, {"image_std": [1.0]}, {"image_mean": {"a": 1}}, {"size": 64.5}, {"size": "64"},
        {"size": []},
        {"crop_size": None}, {"crop_size": {"height": "a", "width": "a"}}, {"crop_size": {"height": -64, "width": -64}},
        {"resample": 99},
        {"image_processor_type": 7}, {"image_processor_type": "NoSuchProcessor"},
    ],
    ids=str,
)  # fmt: skip
def test_a_processor_that_makes_no_pictures_for_its_tower(copy, values):
    change(copy / "preprocessor_config.json", **values)
    refused(CaptionWriter.load, copy)
    if "image_processor_type" not in values:
        refused(load_encoder, copy)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["mapper.output.weight", "gpt2.transformer.ln_f.bias", "embedding_std"])
def test_numbers_that_are_not_finite_are_refused(copy, name, number):
    change_tensor(copy, name, lambda tensor: tensor.index_fill(0, torch.tensor([0]), number))
    assert f"has numbers in {name} that are not finite" in refused(CaptionWriter.load, copy)


def test_a_spread_of_zero_is_refused(copy):
    change_tensor(copy, "embedding_std", torch.zeros_like)
    assert "embedding_std" in refused(CaptionWriter.load, copy)


class TestEndOfText:
    """The tokenizer's end-of-text is what training puts at the end, so writing stops there."""

    @pytest.fixture
    def extended(self, tiny_gpt2, tmp_path) -> Path:
        """A GPT-2 whose tokenizer has a new end-of-text, while its config kept the old one."""
        tokenizer, gpt2 = AutoTokenizer.from_pretrained(tiny_gpt2), GPT2LMHeadModel.from_pretrained(tiny_gpt2)
        tokenizer.add_special_tokens({"eos_token": "<|EOS|>"})
        gpt2.resize_token_embeddings(len(tokenizer))
        for part in (gpt2, tokenizer):
            part.save_pretrained(tmp_path / "gpt2")
        return tmp_path / "gpt2"

    def test_a_new_one_is_taken_from_the_tokenizer(self, extended, config):
        gpt2, tokenizer = load_gpt2(extended)
        assert tokenizer.eos_token_id == gpt2.config.eos_token_id == 257
        writer = CaptionWriter.assemble(config.with_values(gpt2=str(extended)), load_encoder("tiny"))
        generation = writer.captioner.generation_config
        assert writer.captioner.endings == [generation.eos_token_id] == [generation.pad_token_id] == [257]
        assert caption_tokens(tokenizer, ["a"], 9)[0][0][-1] == 257

    def test_a_captioner_that_was_saved_with_another_one_stops_there_too(self, copy):
        change(copy / "config.json", text_config__eos_token_id=7)
        change(copy / "generation_config.json", eos_token_id=7, pad_token_id=7, num_beams="four")
        writer = CaptionWriter.load(copy)
        assert writer.captioner.endings == [writer.tokenizer.eos_token_id] == [0]
        assert writer.captioner.generation_config.eos_token_id == 0
        assert len(writer.write(torch.zeros(1, 128))) == 1

    def test_a_separator_ends_a_text_if_there_is_no_end_of_text(self, tmp_path):
        from transformers import BertTokenizerFast

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "一", "只", "狗"]
        (tmp_path / "vocab.txt").write_text("\n".join(words), "utf-8")
        BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(vocab_size=12, n_embd=32, n_layer=1, n_head=2)).save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 50256  # as such models have it
        gpt2, tokenizer = load_gpt2(tmp_path)
        assert gpt2.config.eos_token_id == tokenizer.eos_token_id == 3
        assert caption_tokens(tokenizer, ["一只狗"], 9)[0][0].tolist() == [7, 8, 9, 3]

    def test_a_tokenizer_with_more_tokens_than_the_captioner_is_refused(self, copy):
        tokenizer = AutoTokenizer.from_pretrained(copy)
        tokenizer.add_tokens(["one", "more"])
        tokenizer.save_pretrained(copy)
        assert "has a tokenizer of 403 tokens that does not fit its language model of 401" in refused(
            CaptionWriter.load, copy
        )


class TestTokenizer:
    """A captioner writes sense only with the tokenizer that it was trained with, which its config knows by a hash."""

    @pytest.fixture
    def swapped(self, copy) -> Path:
        """A captioner's folder whose tokenizer has as many tokens as its own, two of them in each other's place."""
        file = copy / "tokenizer.json"
        content = json.loads(file.read_text())
        vocabulary = content["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        file.write_text(json.dumps(content))
        return copy

    @pytest.mark.parametrize("load", [CaptionWriter.load, load_gpt2])
    def test_another_one_of_the_same_size_is_refused(self, swapped, load):
        assert f"{swapped} has another tokenizer than the one that it was saved with" in refused(load, swapped)

    def test_other_merges_are_another_one(self, copy):
        content = json.loads((copy / "tokenizer.json").read_text())
        content["model"]["merges"].pop()
        (copy / "tokenizer.json").write_text(json.dumps(content))
        assert "has another tokenizer" in refused(CaptionWriter.load, copy)

    def test_a_captioner_of_before_gets_its_hash_when_it_is_saved(self, copy, tmp_path):
        known = json.loads((copy / "config.json").read_text())["tokenizer_sha256"]
        assert len(known) == 64
        change(copy / "config.json", tokenizer_sha256=None)
        CaptionWriter.load(copy).save(tmp_path / "again")
        assert json.loads((tmp_path / "again" / "config.json").read_text())["tokenizer_sha256"] == known

    @pytest.mark.parametrize(("padded", "far"), [(448, False), (512, False), (802, True), (6000, True)])
    def test_of_a_captioner_of_before_one_that_is_far_too_small_is_refused(self, copy, padded, far):
        """Embeddings are often padded to a multiple of 64 or 128, so a few more of them than tokens are usual."""
        change(copy / "config.json", tokenizer_sha256=None, text_config__vocab_size=padded)
        tensors = load_file(copy / "model.safetensors")
        name = "gpt2.transformer.wte.weight"
        tensors[name] = torch.cat([tensors[name], torch.zeros(padded - 401, tensors[name].shape[1])])
        save_file(tensors, copy / "model.safetensors", {"format": "pt"})
        if far:
            said = refused(CaptionWriter.load, copy)
            assert f"has a tokenizer of 401 tokens, at most half of its language model's {padded}" in said
        else:
            assert len(CaptionWriter.load(copy).tokenizer) == 401

    def test_a_tokenizer_has_one_hash_in_every_form(self, tmp_path):
        """GPT-2's own files, as the hub has them, and what is saved of them."""
        vocabulary = json.loads((TINY / "gpt2" / "tokenizer.json").read_text())["model"]
        (tmp_path / "vocab.json").write_text(json.dumps(vocabulary["vocab"]))
        merges = [" ".join(pair) for pair in vocabulary["merges"]]
        (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
        (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
        first = AutoTokenizer.from_pretrained(tmp_path)
        first.add_tokens(["beside the model"])
        first.save_pretrained(tmp_path / "saved")
        forms = [first, AutoTokenizer.from_pretrained(tmp_path / "saved"), AutoTokenizer.from_pretrained(TINY / "gpt2")]
        assert len({vocabulary_sha256(each) for each in forms}) == 1


class TestFormatsOfWeights:
    """The same GPT-2 in every format that it comes in."""

    @pytest.fixture
    def expected(self, tiny_gpt2) -> torch.Tensor:
        return load_gpt2(tiny_gpt2)[0](torch.arange(9).unsqueeze(0)).logits

    @pytest.fixture
    def other(self, tiny_gpt2, tmp_path) -> Path:
        return shutil.copytree(tiny_gpt2, tmp_path / "gpt2")

    def logits(self, folder) -> torch.Tensor:
        gpt2 = load_gpt2(folder)[0]
        assert gpt2.dtype == torch.float32
        return gpt2(torch.arange(9).unsqueeze(0)).logits

    @pytest.mark.parametrize("zipped", [True, False])
    def test_pytorch_model_bin(self, other, expected, zipped):
        tensors = load_file(other / "model.safetensors")
        (other / "model.safetensors").unlink()
        torch.save(tensors, other / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        assert torch.equal(self.logits(other), expected)

    def test_names_as_in_the_hubs_gpt2_and_distilgpt2(self, other, expected):
        """Their names lack "transformer.", and masks are among their tensors."""
        tensors = {name.removeprefix("transformer."): tensor
                   for name, tensor in load_file(other / "model.safetensors").items()}  # fmt: skip
        for block in (0, 1):
            tensors[f"h.{block}.attn.bias"] = torch.ones(1, 1, 96, 96).tril()
            tensors[f"h.{block}.attn.masked_bias"] = torch.tensor(-1e4)
        save_file(tensors, other / "model.safetensors", {"format": "pt"})
        assert torch.equal(self.logits(other), expected)

    @pytest.mark.parametrize("suffix", ["safetensors", "bin"])
    def test_shards(self, other, expected, suffix):
        tensors = load_file(other / "model.safetensors")
        (other / "model.safetensors").unlink()
        stem, where = ("model" if suffix == "safetensors" else "pytorch_model"), {}
        for number, names in enumerate((list(tensors)[::2], list(tensors)[1::2]), 1):
            shard = f"{stem}-{number:05}-of-00002.{suffix}"
            part = {name: tensors[name] for name in names}
            if suffix == "bin":
                torch.save(part, other / shard)
            else:
                save_file(part, other / shard, {"format": "pt"})
            where |= dict.fromkeys(names, shard)
        index = other / f"{stem}.{suffix}.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
        assert torch.equal(self.logits(other), expected)
        index.write_text(json.dumps({"weight_map": where | {next(iter(tensors)): f"../{shard}"}}))
        assert "which is no file beside it" in refused(load_gpt2, other)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves(self, other, expected, dtype):
        tensors = {name: tensor.to(dtype) for name, tensor in load_file(other / "model.safetensors").items()}
        save_file(tensors, other / "model.safetensors", {"format": "pt"})
        torch.testing.assert_close(self.logits(other), expected, atol=0.03, rtol=0.03)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_captioner_in_pytorchs_format_and_in_shards(self, copy, writer, cache, dtype):
        embeddings = cache.rows(cache.image_names[:2])
        tensors = {name: tensor.to(dtype) for name, tensor in load_file(copy / "model.safetensors").items()}
        (copy / "model.safetensors").unlink()
        torch.save(tensors, copy / "pytorch_model.bin")
        whole = CaptionWriter.load(copy).write(embeddings)
        assert dtype != torch.float32 or whole == writer.write(embeddings)
        (copy / "pytorch_model.bin").unlink()
        shards = {f"pytorch_model-{number}-of-2.bin": list(tensors)[number - 1 :: 2] for number in (1, 2)}
        for shard, names in shards.items():
            torch.save({name: tensors[name] for name in names}, copy / shard)
        where = {name: shard for shard, names in shards.items() for name in names}
        (copy / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
        assert CaptionWriter.load(copy).write(embeddings) == whole

    def test_a_pickle_of_more_than_tensors_does_not_run(self, other, tmp_path):
        class Harmful:
            def __reduce__(self):
                return open, (str(tmp_path / "made"), "w")

        (other / "model.safetensors").unlink()
        torch.save({"a": Harmful()}, other / "pytorch_model.bin")
        said = refused(load_gpt2, other)
        assert "holds more than tensors" in said
        assert "save its state dict alone" in said
        assert not (tmp_path / "made").exists()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=4,
)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "generation_config.json", "tokenizer_config.json"]
)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(choice=st.integers(0, 10**6), value=VALUES, whole=st.integers(0, 9))
def test_any_value_anywhere_in_a_folder_loads_or_is_one_line(finished, tmp_path_factory, name, choice, value, whole):
    folder = tmp_path_factory.mktemp("fuzz") / "captioner"
    shutil.copytree(finished.captioner, folder)
    content = json.loads((folder / name).read_text())
    places = [(content, key) for key in content]
    places += [(inner, key) for inner in content.values() if isinstance(inner, dict) for key in inner]
    where, key = places[choice % len(places)]
    where[key] = value
    (folder / name).write_text(json.dumps(value if whole == 0 else content))
    try:
        writer = CaptionWriter.load(folder)
        writer.write(writer.embed([Image.new("RGB", (40, 30), "red")]))
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 (many values are no mistake)
    shutil.rmtree(folder)
