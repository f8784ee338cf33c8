"""The baselines compute the same as this project, because a ratio between different work means nothing."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import random_batch, random_captioner
from torch.nn import functional as F

from benchmarks import arms, baselines, gpu, gpu_sections, limit, linear_cross_entropy, models, quality, small_rate
from benchmarks.arms import in_a_process
from benchmarks.run import RESULTS, as_markdown
from helpers.config import Config
from helpers.language.freezing import freeze
from helpers.training.loss import CaptionLoss
from helpers.training.packing import pack
from helpers.training.run import Run


def test_the_padded_step_has_our_loss_and_trains_the_same():
    captioner = random_captioner().eval()
    freeze(captioner.gpt2, Config(freezing="first-and-last"))
    batch, before = random_batch([5, 9, 3, 14]), copy.deepcopy(captioner.state_dict())
    ours = CaptionLoss(captioner)(pack(batch, captioner.config.prefix_length)).item()
    assert baselines.padded_step(captioner)(batch) == pytest.approx(ours, rel=1e-5)
    trained = {name for name, parameter in captioner.named_parameters() if parameter.requires_grad}
    changed = {name for name, value in captioner.state_dict().items() if not value.equal(before[name])}
    assert changed - {"gpt2.lm_head.weight"} <= trained  # the same tensor as the token embeddings
    assert "gpt2.transformer.wte.weight" in changed


def test_the_loops_write_our_captions():
    captioner, embedding = random_captioner().eval(), torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    lengths = {"max_new_tokens": 8, "min_new_tokens": 8}
    greedy = captioner.generate(embedding, **lengths, do_sample=False)[0].tolist()
    eos = captioner.config.text_config.eos_token_id
    loop = baselines.greedy_loop(captioner, embedding, 8)
    assert loop == greedy or eos in loop  # ours may not end before its eighth token
    beams = captioner.generate(embedding, **lengths, num_beams=5, do_sample=False)[0].tolist()
    loop = baselines.beam_loop(captioner, embedding, 8).tolist()
    assert loop == beams or eos in loop


def test_the_batches_have_flickr30ks_lengths():
    stream = models.batches(captions=512)
    lengths = torch.cat([(next(stream).labels >= 0).sum(dim=1) for _ in range(10)]).float()
    assert lengths.mean().item() == pytest.approx(15.07, abs=0.4)
    packed, padded = pack(next(models.batches()), 4), next(models.batches())
    assert padded.input_ids.numel() > 1.8 * len(packed.targets)


def test_the_limit_counts_the_arithmetic_of_a_step():
    """Count six operations per weight and position if the weight trains, four if it is frozen."""
    operations = sum(2 * a * b * c * times for (a, b, c), times in limit.training_step("small").items())
    stream = models.batches()
    _, *packed = (pack(next(stream), 4) for _ in range(3))  # the first batch is warm-up
    places = sum(batch.tokens.numel() for batch in packed) // 2
    targets = sum(len(batch.targets) for batch in packed) // 2
    block, head = 12 * 768**2, 50_257 * 768
    wanted = places * block * (12 * 4 + 2 * 2) + targets * head * 6
    wanted += 64 * 6 * block * 6 + 64 * 768 * 4 * 768 * 6  # the mapper sees one vector per picture
    assert operations == wanted


def test_the_table_in_the_readme_is_that_of_the_results():
    works = json.loads((RESULTS / "table.json").read_text())["works"]
    assert as_markdown(works) in (RESULTS.parent / "README.md").read_text()


def test_the_originals_mapper_mixes_the_images_of_a_batch_in_training_alone():
    torch.manual_seed(0)
    config = Config(prefix_length=4, mapper_layers=2, mapper_heads=4)
    mapper, embeddings = baselines.MixingMapper(config, 32, 48), torch.randn(3, 32)
    for layer in mapper.encoder.layers:
        layer.self_attn.dropout = 0.0
        layer.dropout1.p = layer.dropout2.p = layer.dropout.p = 0.0
    mixed, alone = mapper.train()(embeddings), mapper.eval()(embeddings)
    assert mixed.shape == alone.shape == (3, 4, 48)
    assert not mixed.allclose(alone, atol=1e-3)
    assert mapper(embeddings[:1]).allclose(alone[:1], atol=1e-5)
    assert mapper.train()(embeddings[:1]).allclose(alone[:1], atol=1e-5)  # alone, an image can attend only to itself


ABSENT = ("IPython", "ipywidgets", "pycocoevalcap", "tyro", "typer", "voila", "nbformat", "papermill", "tensorboard")
HIDE_THEM = f"""
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in {ABSENT} else find(name, *rest)
"""


def test_the_gpu_benchmark_runs_at_a_tiny_size_without_notebook_libraries(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE_THEM)
    words = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--out", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    root = Path(gpu.__file__).parents[1]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    record = json.loads((tmp_path / "gpu-cpu-tiny.json").read_text())
    assert list(record["sections"]) == [name for name in gpu.SECTIONS if name.endswith("small")]
    found = {name: section["rows"] for name, section in record["sections"].items()}
    assert all(found.values())
    steps = found["training step, small"]
    assert {row["precision"] for row in steps} >= {"fp32"}
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in steps if row["measure"] == "captions/s")
    assert [row["ours"] for row in found["cut and resumed, small"]] == [gpu_sections.EQUAL]
    table = (tmp_path / "gpu-cpu-tiny.md").read_text()
    assert table in done.stdout
    assert all(f"| {name} | " in table for name in found)


def test_an_error_in_one_section_is_in_the_table_and_the_others_go_on(tmp_path, monkeypatch):
    def breaks(_name, _scale, _work):
        yield {"measure": "before", "ours": 1.0}
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(gpu_sections, "breaks", breaks, raising=False)
    monkeypatch.setattr(gpu, "SECTIONS", {"broken, small": ("breaks", "small"), "unknown, small": ("missing", "small")})
    sections = {}
    for name in gpu.SECTIONS:
        assert gpu.measure_section(name, tmp_path, tiny=True) == 1
        sections[name] = json.loads((tmp_path / "result.json").read_text())
    table = gpu.as_markdown(sections)
    assert "| broken, small | before |  | 1 |" in table
    assert "| broken, small | **error**: RuntimeError: no kernel image |" in table
    assert "| unknown, small | **error**: AttributeError" in table


def test_a_section_that_dies_or_takes_too_long_is_an_error_too(tmp_path):
    assert "stopped after 0 s" in gpu.run_section("captions, small", tmp_path, tiny=True, seconds=0.1)["error"]
    assert "status 2" in gpu.run_section("no such section", tmp_path, tiny=True, seconds=60)["error"]


def test_sections_are_skipped_when_the_time_is_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "LAST_START", -60)
    results = gpu.run_all(tmp_path, tiny=False)
    assert list(results) == list(gpu.SECTIONS)
    assert all(result["skipped"].startswith("skipped") for result in results.values())
    assert capsys.readouterr().out.count("skipped") == len(gpu.SECTIONS)


def test_two_captioners_are_compared_tensor_by_tensor(finished, tmp_path):
    assert gpu_sections.difference(finished, finished) == gpu_sections.EQUAL
    other = tmp_path / "captioner"
    other.mkdir()
    tensors = load_file(finished.captioner / "model.safetensors")
    tensors["mapper.output.bias"][0] += 0.5
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    assert "1 of" in gpu_sections.difference(finished, Run(tmp_path))
    assert "0.5 (mapper.output.bias)" in gpu_sections.difference(finished, Run(tmp_path))


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="PyTorch before 2.13")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_every_arm_of_the_loss_benchmark_has_the_exact_loss_and_gradients(precision, tolerance):
    work = linear_cross_entropy.Work.random(200, 32, 501)
    loss, *gradients = linear_cross_entropy.exact(work)
    assert loss == pytest.approx(F.cross_entropy(work.hidden @ work.weight.T, work.targets).item(), rel=1e-5)
    for arm in linear_cross_entropy.ARMS:
        found = linear_cross_entropy.errors(arm, work, precision, loss=loss, gradients=gradients)
        assert max(found.values()) < tolerance, arm


def test_the_work_beside_busy_loops_runs_on_one_thread():
    seen = in_a_process("threads", "--work", "the project's choice", "--steps", 2)
    assert seen["threads"] == 1
    assert seen["seconds"] > 0


def test_auroc_is_the_chance_that_a_strange_picture_is_stranger():
    from benchmarks.familiarity import auroc

    assert auroc(torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.4, 0.5])) == 1
    assert auroc(torch.tensor([0.3, 0.4]), torch.tensor([0.3, 0.1])) == pytest.approx(0.125)


def test_steps_at_a_small_rate_go_on_where_they_were(data, config, cache, tmp_path, monkeypatch):
    losses = []
    for stages in ((4,), (2, 4)):
        monkeypatch.setattr(small_rate, "RUNS", tmp_path / str(len(stages)))
        for steps in stages * 2:  # a look that is there is not taken again
            small_rate.advance(config.with_values(mapper_lr=9e-5), steps, data=data, cache=cache)
        (folder,) = small_rate.RUNS.iterdir()
        looks = small_rate.read_looks(folder)
        assert looks.steps.tolist() == list(stages)
        losses.append(looks.val_loss.iloc[-1])
    assert losses[0] == losses[1] != looks.val_loss.iloc[0]


def test_the_cache_that_is_read_is_there():
    work, items = arms.our_cache(rows=600, read=50)()
    assert work().shape == (items, 768) == (50, 768)


@pytest.mark.parametrize("recipe", quality.RECIPES)
def test_each_recipe_of_the_time_to_quality_trains_and_is_looked_at(recipe, data, cache, monkeypatch):
    monkeypatch.setattr(quality, "open_drawn_world", lambda: data)
    monkeypatch.setattr(quality, "open_cache", lambda *_: cache)
    monkeypatch.setattr(quality, "MOST_MINUTES", 0.001)
    monkeypatch.setattr(quality, "MINUTES_BETWEEN_LOOKS", 0.0005)
    looks = quality.learn(recipe, 0)
    assert set(looks.recipe) == {recipe}
    assert looks.minutes.iloc[-1] >= 0.001
    assert looks.correct.between(0, 1).all()


def test_probing_and_calibration_in_the_pages_are_those_of_the_results():
    root = RESULTS.parents[1]
    probing, calibration = (
        json.loads((root / "notebooks" / "results" / f"{name}.json").read_text()) for name in ("probing", "calibration")
    )
    pages = ("benchmarks/README.md", "helpers/tiny/README.md")
    pages = [" ".join((root / page).read_text("utf-8").split()) for page in pages]
    for arm in ("raw pixels", "untrained", "photos", "captions", "captions and facts"):
        shares = [f"{share:.2f}" for share in probing["right"][arm]["all"]]
        assert f"| {', '.join(shares)} |" in pages[0], arm
        assert " and ".join(shares) in pages[1], arm
    assert f"{calibration['curves']['own words']['curve']['right'][-1]:.2f} are in a reference" in pages[0]
    errors = calibration["curves"]["next token"]["ece"]
    assert f"expected calibration error is {min(errors):.3f} to {max(errors):.3f}" in pages[0]
