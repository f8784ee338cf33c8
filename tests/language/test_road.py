"""Other language models on the whole road: trained, stopped, resumed, loaded, written with, evaluated."""

import json

import pytest
import torch
from safetensors.torch import load_file
from small_models import FAMILIES, language_config, save_language_model

from helpers.analysis.introspection import attention_by_head, prefix_words, word_confidence
from helpers.evaluation.evaluate import evaluate
from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter
from helpers.presets import preset
from helpers.runtime.model_folders import TINY
from helpers.sharing.card import model_card
from helpers.training.checkpoint import checkpoints
from helpers.training.loop import train

POLICIES = {"SmolLM2": "lora", "OPT": "last-n", "GPT-Neo": "full", "Pythia": "first-and-last"}


@pytest.mark.parametrize(("family", "freezing"), POLICIES.items())
def test_the_whole_road(family, freezing, config, data, cache, tmp_path):
    folder = save_language_model(language_config(family, vocabulary=401), TINY / "gpt2", tmp_path / "language")
    config = config.with_values(
        gpt2=str(folder), freezing=freezing, lora_rank=4, train_embeddings=freezing != "lora", mapper="mlp"
    )
    captions = data.captions.groupby("image_name").head(1)  # four steps
    for steps in (3, None):  # stopped, then resumed
        run = train(config, captions, cache.folder, out=tmp_path / "run", resume=True, max_steps=steps)
    if freezing == "lora":
        whole = train(config, captions, cache.folder, out=tmp_path / "whole")
        one, other = (load_file(checkpoints(each.checkpoints)[-1] / "model.safetensors") for each in (run, whole))
        assert all(torch.equal(one[name], other[name]) for name in {*one, *other})

    writer, names = CaptionWriter.load(run.captioner), data.image_names("val")
    assert writer.captioner.gpt2.config.model_type == FAMILIES[family]["model_type"]
    embeddings = cache.rows(names)
    written = writer.write(embeddings)
    assert run.samples().iloc[-1].to_dict() == dict(zip(names[:4], written, strict=False))
    assert writer.candidates(embeddings[:1], Decoding(beams=3, max_tokens=6))[0].log_probability < 0
    found = evaluate(writer, captions[captions.split == "val"], cache, out=tmp_path / "scores", config=config,
                     decoding=Decoding(max_tokens=6))  # fmt: skip
    assert found["nats_per_token_language_model"] > 0
    assert json.loads((tmp_path / "scores" / "metrics.json").read_text())["nats_per_token_true"] > 0

    words, attention, _ = attention_by_head(writer, embeddings[:1], "A red ball.")
    assert attention.shape == (3, 4, len(words), config.prefix_length + 1)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(attention.shape[:-1]))
    assert len(prefix_words(writer, embeddings[:1])[0]) == config.prefix_length
    assert len(word_confidence(writer, embeddings[:1], ["A red ball."])[0]) == len(words)
    assert f"language model ({FAMILIES[family]['model_type']}) | 3 blocks" in model_card(run.folder)


def test_the_preset_modern_is_of_one_piece():
    config = preset("modern")
    assert (config.freezing, config.precision, config.pooling) == ("lora", "bf16", "pooled")
    assert config.gpt2_lr < config.mapper_lr
