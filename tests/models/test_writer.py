"""Captions from pictures: every decoding setting, and a captioner's folder."""

import json
import shutil

import pytest
import torch
from PIL import Image

from helpers.data.images import open_picture
from helpers.errors import UserError
from helpers.models.decoding import Decoding
from helpers.models.loading import load_encoder
from helpers.models.writer import CaptionWriter
from helpers.presets import preset
from helpers.runtime.model_folders import TINY


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beams": 0}, "beams is 0 and max_tokens is None, but both must be at least 1"),
        ({"max_tokens": 0}, "max_tokens is 0, but both must be at least 1"),
        ({"temperature": -0.1}, "temperature is -0.1 and top_p"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"guidance": 0.0}, "guidance is 0.0, but must be above 0 and finite; 1 is off"),
        ({"guidance": -2.0}, "guidance is -2.0"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"seed": -1}, "seed is -1, but must be between 0 and"),
        ({"seed": 2**70}, "but must be between 0 and"),
    ],
)
def test_a_choice_that_cannot_be_is_named(values, message):
    with pytest.raises(UserError, match=message):
        Decoding(**values)


@pytest.fixture(scope="module")
def embeddings(data, cache):
    return cache.rows(data.image_names()[:12])


@pytest.fixture(scope="module")
def lively(config):
    """An untrained captioner that depends strongly on the embedding, so its captions differ."""
    lively = CaptionWriter.assemble(config, load_encoder("tiny"))
    lively.captioner.eval()
    with torch.no_grad():
        lively.captioner.mapper.output.weight.mul_(5)
    return lively


def test_every_knob_has_an_effect(lively, embeddings):
    def captions(**values):
        return lively.write(embeddings, Decoding(**values))

    greedy, hot = captions(), captions(temperature=1.5)
    assert captions(temperature=1e-4) == greedy
    assert captions(temperature=1.5, top_p=1e-6) == greedy
    assert captions(beams=1) == greedy == captions(max_tokens=40)
    others = [hot, captions(temperature=1.5, seed=1), captions(temperature=1.0), captions(temperature=1.5, top_p=0.7)]
    others += [captions(beams=6), captions(temperature=1.5, beams=2), captions(max_tokens=3)]
    assert len({tuple(each) for each in [greedy, *others]}) == 1 + len(others)


def test_one_caption_for_each_embedding_in_order(lively, embeddings):
    together = lively.write(embeddings)
    assert len(set(together)) > 6
    assert [lively.write(row)[0] for row in embeddings.split(1)] == together
    assert lively.write(embeddings, batch_size=5) == together
    assert lively.write(embeddings.flip(0)) == together[::-1]
    assert lively.write(embeddings[:0]) == []
    beams = Decoding(beams=4)
    assert [lively.write(row, beams)[0] for row in embeddings.split(1)] == lively.write(embeddings, beams)


def test_sampling_depends_on_its_seed_alone(writer, embeddings):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = writer.write(embeddings, Decoding(temperature=1.5, seed=7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert writer.write(embeddings, Decoding(temperature=1.5, seed=7)) == first


def test_a_caption_cannot_be_longer_than_gpt2s_context(writer, embeddings):
    longest = writer.captioner.longest_caption
    assert len(writer.write(embeddings[:2], Decoding(max_tokens=longest, temperature=100.0))) == 2
    with pytest.raises(UserError, match=f"max_tokens is {longest + 1}, but only {longest} fit behind the prefix"):
        writer.write(embeddings, Decoding(max_tokens=longest + 1))


def test_a_long_prefix_leaves_room_for_less_and_too_long_a_one_is_refused():
    long_prefix = preset("tiny").with_values(prefix_length=80, mapper_layers=1)
    writer = CaptionWriter.assemble(long_prefix, load_encoder("tiny"))
    assert writer.captioner.longest_caption == 16
    writer.captioner.eval()
    assert len(writer.write(torch.randn(2, 128))) == 2  # no complaint about 40 tokens that nobody asked for
    with pytest.raises(UserError, match=r"prefix_length is 95, but the context of .* has 96 positions"):
        CaptionWriter.assemble(long_prefix.with_values(prefix_length=95), load_encoder("tiny"))


def test_pictures_of_any_size_are_seen_as_the_cache_saw_them(writer, data, cache):
    names = data.image_names()[:4]
    seen = writer.embed([open_picture(data.images / name) for name in names])
    torch.testing.assert_close(seen, cache.rows(names), atol=2e-2, rtol=1e-2)
    assert len(writer.write(writer.embed([Image.new("RGB", size) for size in ((300, 3), (3, 90), (1, 1))]))) == 3


def test_saved_and_loaded_it_writes_the_same_and_quietly(writer, embeddings, tmp_path, capfd):
    writer.save(tmp_path / "captioner")
    again = CaptionWriter.load(tmp_path / "captioner")
    assert capfd.readouterr() == ("", "")
    assert again.write(embeddings) == writer.write(embeddings)
    assert [path.name for path in tmp_path.iterdir()] == ["captioner"]


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished.captioner, tmp_path / "captioner")


def refused(folder) -> str:
    with pytest.raises(UserError) as error:
        CaptionWriter.load(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kept", [0, 7, 1000, 2_000_000])
def test_truncated_weights(copy, kept):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    assert "no captioner can be loaded from" in refused(copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_broken_or_missing_part(copy, name, content):
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_text(content)
    assert "no captioner can be loaded from" in refused(copy)


def test_a_captioner_need_not_know_what_it_was_trained_on(copy, tmp_path):
    (copy / "trained_on.json").unlink()
    CaptionWriter.load(copy).save(tmp_path / "again")
    assert not (tmp_path / "again" / "trained_on.json").exists()


@pytest.mark.parametrize("content", ["", "{}", "[1, null]"])
def test_a_broken_memory_of_what_it_was_trained_on(copy, content):
    (copy / "trained_on.json").write_text(content)
    assert "trained_on.json is broken: remove it, or give another captioner" in refused(copy)


def test_weights_of_another_shape(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "prefix_length": 9}))
    assert "no captioner can be loaded from" in refused(copy)


def test_a_run_folder_stands_for_its_captioner(finished, writer, cache):
    embeddings = cache.rows(cache.image_names[:3])
    assert CaptionWriter.load(finished.folder).write(embeddings) == writer.write(embeddings)


def test_folders_of_other_things(tmp_path, finished):
    assert "holds no captioner: give the folder of a run or of a captioner" in refused(tmp_path)
    assert "holds no captioner" in refused(tmp_path / "nowhere")
    assert "holds no captioner" in refused(finished.checkpoints)
    assert "is a model of type gpt2, but a captioner is needed" in refused(TINY / "gpt2")
    assert "is a model of type clip, but a captioner is needed" in refused(TINY / "clip")


def test_a_decoding_in_words():
    assert str(Decoding()) == "greedy"
    assert str(Decoding(beams=5, guidance=1.5)) == "5 beams, guidance 1.5"
    assert str(Decoding(neutral=True)) == "greedy, neutral words"
    assert str(Decoding(temperature=1, top_p=0.9, seed=3, max_tokens=10)) == (
        "T 1.0, top p 0.90, seed 3, at most 10 tokens"
    )
