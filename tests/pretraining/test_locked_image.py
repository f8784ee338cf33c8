"""A CLIP around a frozen image tower: it learns, the tower stays as it was, and the folder loads as a CLIP does."""

import json
import re

import pandas as pd
import pytest
import torch

from helpers.captions.read import read_text
from helpers.cli import main
from helpers.data.dataset import open_data
from helpers.errors import UserError
from helpers.evaluation.clipscore import ClipJudge
from helpers.models.loading import load_encoder
from helpers.pretraining.locked_image import pretrain_locked


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of a short training around the tiny CLIP's tower, and its report."""
    out = tmp_path_factory.mktemp("locked")
    return out, pretrain_locked(data, "tiny", out, steps=60)


def test_captions_find_their_own_pictures(trained):
    _, report = trained
    assert report["last_loss"] < report["first_loss"] / 1.5
    held_out = [report[split] for split in ("val", "test") if split in report]
    for found in held_out:
        assert found["r_at_1"] > 2 * found["chance_r_at_1"]
        assert found["median_rank"] < found["chance_median_rank"] / 1.5


def test_the_image_tower_is_as_it_was(trained):
    out, _ = trained
    before, after = load_encoder("tiny"), load_encoder(out / "clip")
    assert after.fingerprint()["weights_sha256"] == before.fingerprint()["weights_sha256"]
    assert after.fingerprint()["preprocessing"] == before.fingerprint()["preprocessing"]


def test_the_folder_judges_captions_and_ranks_as_in_training(trained, data):
    out, report = trained
    judge = ClipJudge.load(out / "clip")
    names = data.image_names("val")
    pictures, unread = judge.picture_vectors(data.images, names)
    assert not unread
    rows = data.rows("val")
    texts = judge.text_vectors(list(rows.caption))
    scores = texts @ pictures.T
    own = torch.tensor([names.index(name) for name in rows.image_name])
    ranks = (scores >= scores.gather(1, own[:, None])).sum(dim=1).float()
    assert ranks.median() == pytest.approx(report["val"]["median_rank"], abs=1)  # the judge puts words in front


def test_padding_and_its_number_mean_nothing(trained):
    judge = ClipJudge.load(trained[0] / "clip")
    alone = judge.text_vectors(["a red circle"])
    beside = judge.text_vectors(["a red circle", "two green stars left of a blue square on a gray background"])
    assert torch.allclose(alone[0], beside[0], atol=1e-6)


def test_the_command_reports_and_a_second_call_keeps_the_embeddings(trained, data, tmp_path, capsys, monkeypatch):
    main(["pretrain", "--vision", "tiny", "--images", str(data.images), "--captions",
          str(data.images.with_name("results.csv")), "--seed", "1", "--out", str(tmp_path / "out")])  # fmt: skip
    said = capsys.readouterr().out
    assert "the CLIP lies in" in said
    assert re.search(
        r"^test: 6 pictures, R@1 [\d.]+ % \(chance 16\.7 %\), R@10 100\.0 % \(chance 100\.0 %\), "
        r"median rank [\d.]+ \(chance 3\.5\)$", said, re.MULTILINE,
    )  # fmt: skip
    assert "{" not in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["steps"], report["seed"]) == (600, 1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "embeddings").glob("shard*")}
    pretrain_locked(data, "tiny", tmp_path / "out", steps=1)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "embeddings").glob("shard*")}


@pytest.mark.parametrize("more", [["--text", "x.txt"], ["--recipe", "photos"]])
def test_what_does_not_go_with_it_is_named(data, tmp_path, more, capsys):
    photos = ["--images", str(data.images), "--captions", str(data.images.with_name("results.csv"))]
    with pytest.raises(SystemExit) as end:
        main(["pretrain", "--vision", "tiny", *photos, *more, "--out", str(tmp_path)])
    assert end.value.code == 2
    assert "--vision goes with --images and --captions" in capsys.readouterr().err


def test_too_few_photos_are_named(data, tmp_path):
    few = open_data(data.images, data.images.with_name("results.csv"))
    few.captions["split"] = "train"
    with pytest.raises(UserError, match="at least 2 photos to train on and 2 to hold out"):
        pretrain_locked(few, "tiny", tmp_path)


def test_no_caption_of_a_held_out_photo_is_in_the_text_that_gpt2_learns(shared_data):
    def number(name: str) -> str:  # Flickr8k's and Flickr30k's names of a photo differ behind its number
        return name.split("_")[0].split(".")[0]

    flickr8k = open_data(*(shared_data / "flickr8k" / name for name in ("Images", "captions.txt", "splits.csv")))
    sample = open_data(
        *(shared_data / "flickr30k-sample" / name for name in ("flickr30k_images", "results.csv", "splits.csv"))
    )
    held_out = {
        number(name) for data in (flickr8k, sample) for split in ("val", "test") for name in data.image_names(split)
    }
    file = shared_data / "flickr30k-captions.csv.gz"
    rows = pd.read_csv(file, keep_default_na=False)
    trained = rows[rows.split == "train"]
    assert not held_out & set(map(number, trained.iloc[:, 0]))
    text = read_text(file)
    assert len(text) == len(trained)
    column = next(name for name in ("comment", "caption") if name in rows)
    assert text == [caption.strip() for caption in trained[column]]
