"""A captioner for others: its model card, the hub, and transformers' Auto classes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch

from helpers import model_card, push_to_hub
from helpers.errors import UserError
from helpers.models.writer import CaptionWriter

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A run with an evaluation in it."""
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    metrics = {"images": 12, "decoding": "greedy", "cider": 0.512, "cider_95_interval": [0.41, 0.62], "bleu_4": None,
               "distinct_captions": 9, "correct": 0.25, "people_invented": 0.02,
               "people_invented_95_interval": [0, 0.05],
               "gender_named": {"woman": {"pictures": 3, "man": [0.3, 0.2, 0.4]}}}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "beams").mkdir()
    (folder / "beams" / "metrics.json").write_text(json.dumps(metrics | {"decoding": "3 beams", "cider": 0.6}))
    return folder


def test_a_card_says_what_it_is_how_good_and_how_to_use_it(run, data):
    card = model_card(run, "someone/drawn")
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "\n# drawn\n" in card
    assert "| on 12 held-out pictures, greedy | |" in card
    assert "| CIDEr | 0.512 [0.410, 0.620] |" in card
    assert "| on 12 held-out pictures, 3 beams, beams | |" in card
    assert "| distinct captions | 9 |" in card
    assert "| a person invented | 0.020 [0.000, 0.050] |" in card
    assert "Do not use it" in card
    assert "BLEU-4" not in card
    assert "Intervals are 95 % intervals" in card
    trained = data.captions[data.captions.split == "train"]
    assert f"{len(trained)} captions of {trained.image_name.nunique()} pictures" in card
    assert "2 epochs in batches of 32. It began with `tiny` and `tiny`" in card
    assert 'AutoModel.from_pretrained("someone/drawn")' in card
    assert "clip_vision_model" in card


def test_a_captioner_without_its_run_or_scores_says_so(finished):
    card = model_card(finished.captioner)
    assert "Not measured: `clipxgpt evaluate` does that." in card
    assert "It is not known here" in card


def test_a_broken_file_of_scores_is_one_line(run):
    (run / "metrics.json").write_text("[")
    with pytest.raises(UserError, match=r"metrics\.json is broken"):
        model_card(run)


def test_what_goes_to_the_hub_is_a_whole_captioner_with_its_card(run, writer, cache, tmp_path, monkeypatch):
    asked = []

    class Hub:
        def create_repo(self, repo_id, **named):
            asked.append((repo_id, named["private"]))

        def upload_folder(self, *, repo_id, folder_path):
            shutil.copytree(folder_path, tmp_path / "hub")
            return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert push_to_hub(run, "someone/drawn", private=True) == "https://huggingface.co/someone/drawn"
    assert asked == [("someone/drawn", True)]
    assert "0.512 [0.410, 0.620]" in (tmp_path / "hub" / "README.md").read_text("utf-8")
    rows = cache.rows(cache.image_names[:3])
    assert CaptionWriter.load(tmp_path / "hub").write(rows) == writer.write(rows)


def test_a_hub_that_refuses_is_one_line(run, monkeypatch):
    def refuse(*_given, **_named):
        raise ValueError("401 Client Error.\nYou must be authenticated")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match="401 Client Error") as error:
        push_to_hub(run, "someone/drawn")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "imports",
    [
        "import helpers; from transformers import AutoConfig, AutoModel",
        "from transformers import AutoConfig, AutoModel; import helpers",
        "from transformers import AutoConfig; import helpers; from transformers import AutoModel",
        "import helpers; from helpers import CaptionWriter; from transformers import AutoConfig, AutoModel",
    ],
)
def test_the_auto_classes_know_a_captioner_after_import_helpers(finished, cache, imports):
    code = f"""
import sys
{imports}
print(type(AutoConfig.from_pretrained(sys.argv[1])).__name__, type(AutoModel.from_pretrained(sys.argv[1])).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(finished.captioner)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.split() == ["CaptionerConfig", "Captioner"], done.stderr


def test_the_auto_class_loads_the_same_captioner(finished, writer, cache):
    from transformers import AutoModel

    rows = cache.rows(cache.image_names[:2])
    loaded = AutoModel.from_pretrained(finished.captioner, dtype=torch.float32)
    assert torch.equal(loaded.generate(rows), writer.captioner.generate(rows))
