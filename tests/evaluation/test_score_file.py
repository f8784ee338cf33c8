"""The command `score`: a captions file against references, another file beside it, and everything that may be wrong."""

import json
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers.cli import main
from helpers.evaluation.ptb_tokenizer import why_no_java
from helpers.evaluation.published_scores import YARDSTICKS, beside, is_flickr30k
from helpers.evaluation.scores import COCO

pytest.importorskip("pycocoevalcap")

FILES = ["--captions", "captions.csv", "--references", "results.csv", "--out", "metrics.json"]
TEST = [f"t{number}.jpg" for number in range(6)]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """References of six test and two training pictures in Kaggle's layout, their split, captions of the test ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # without Java, which takes its time; a test of its own has it
    rows = [
        f"{name}| {n}| A dog number {place} runs {'fast' * n}." for place, name in enumerate(TEST) for n in range(2)
    ]
    rows += ["a.jpg| 0| A man sits.", "b.jpg| 0| Two cats sleep on a red bed."]
    (tmp_path / "results.csv").write_text("image_name| comment_number| comment\n" + "\n".join(rows))
    splits = [f"{name},{'test' if name in TEST else 'train'}" for name in [*TEST, "a.jpg", "b.jpg"]]
    (tmp_path / "splits.csv").write_text("image_name,split\n" + "\n".join(splits))
    write("captions.csv", {name: f"a dog number {place} runs" for place, name in enumerate(TEST)})


def write(file: str, captions: dict[str, str]) -> None:
    pd.DataFrame({"image_name": captions.keys(), "caption": captions.values()}).to_csv(file, index=False)


def score(*arguments) -> dict:
    main(["score", *FILES, *arguments])
    return json.loads(Path("metrics.json").read_text())


@pytest.fixture
def refused(capsys):
    def run(*arguments) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["score", *map(str, arguments)])
        out, error = capsys.readouterr()
        assert (ended.value.code, out, error.count("\n")) == (2, "", 1), error
        return error.removeprefix("clipxgpt: ")

    return run


def test_scores_files_and_what_is_printed(capsys):
    metrics = score("--splits", "splits.csv")
    said = capsys.readouterr().out
    assert (metrics["images"], metrics["references"]) == (6, 12)
    assert metrics["captions_without_references"] == metrics["references_without_caption"] == []
    for name in set(COCO) - {"meteor"}:
        low, high = metrics[f"{name}_95_interval"]
        assert low <= metrics[name] <= high
        assert f"{name:<28}{metrics[name]:.4f} [{low:.4f}, {high:.4f}]\n" in said
    assert "meteor                      not measured: Java is not installed" in said
    assert metrics["copied"] == 0
    each = pd.read_csv("metrics_by_image.csv")
    assert list(each.image_name) == TEST
    assert each.cider.mean() == pytest.approx(metrics["cider"])


@pytest.mark.skipif(why_no_java() is not None, reason="needs Java")
def test_with_java(monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)
    metrics = score("--splits", "splits.csv")
    assert 0 < metrics["meteor"] <= 1
    assert metrics["not_measured"] == {}
    assert metrics["tokenizer"].startswith("Penn Treebank")


def test_what_stands_in_one_file_only_is_counted_and_named(capsys):
    write("captions.csv", {"new.jpg": "a bird", **{name: "a dog" for name in TEST[:4]}})
    metrics = score("--splits", "splits.csv")
    assert metrics["images"] == 4
    assert metrics["captions_without_references"] == ["new.jpg"]
    assert metrics["references_without_caption"] == TEST[4:]
    said = capsys.readouterr().out
    assert "captions_without_references 1, first new.jpg\n" in said
    assert "references_without_caption  2, first t4.jpg\n" in said


def test_copied_captions_are_found_whatever_their_case():
    write("captions.csv", {name: "two cats sleep on a red bed" for name in TEST})
    metrics = score("--splits", "splits.csv")
    assert (metrics["copied"], metrics["distinct_captions"]) == (1.0, 1)


def test_training_pictures_are_refused(refused, tmp_path):
    write("captions.csv", {"a.jpg": "a man", **{name: "a dog" for name in TEST}})
    wanted = "captions.csv captions 1 training pictures of splits.csv, such as a.jpg: score held-out ones only "
    assert refused("--captions", "captions.csv", *FILES[2:], "--splits", "splits.csv").startswith(wanted)
    assert not (tmp_path / "metrics.json").exists()
    metrics = score("--held-out")  # said on purpose: these references are of held-out pictures only
    assert metrics["images"] == 7
    assert metrics["not_measured"]["copied"] == "no training captions among the references"


def test_against_another_file(capsys):
    write("other.csv", {name: "a bird in the sky" for name in TEST[:5]})
    found = score("--splits", "splits.csv", "--against", "other.csv")
    assert found["images"] == 5
    assert found["against"]["in_one_file_only"] == TEST[5:]
    assert found["against"]["cider"]["verdict"] == "higher"
    low, high = found["against"]["cider"]["95_interval"]
    assert 0 < low <= found["against"]["cider"]["difference"] <= high
    assert " higher\n" in capsys.readouterr().out
    same = score("--splits", "splits.csv", "--against", "captions.csv")
    assert {same["against"][name]["verdict"] for name in ("cider", "bleu_4", "words")} == {"tie"}


def test_clipscore_and_the_captioners_own_clip(data, cache, tmp_path, capsys):
    held_out = data.captions[data.captions.split == "test"].drop_duplicates("image_name")
    Path("mine/embeddings").mkdir(parents=True)
    write("mine/captions.csv", dict(zip(held_out.image_name, held_out.caption, strict=True)))
    for folder in ("", "mine/"):
        main(["score", "--captions", "mine/captions.csv", "--references", str(data.images.parent / "results.csv"),
              "--out", f"{folder}m.json", "--clip", "tiny", "--images", str(data.images)])  # fmt: skip
        metrics = json.loads(Path(folder, "m.json").read_text())
        assert metrics["clipscore"] > 0
        assert metrics["clip_is_the_captioners"] is (True if folder else None)
        assert ("the captioner's own CLIP" in capsys.readouterr().err) is bool(folder)
        (tmp_path / "mine/embeddings/fingerprint.json").write_text(json.dumps(cache.fingerprint))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image_name,caption\nt0.jpg,a\nt0.jpg,b\n", "captions.csv row 1 is a second caption of t0.jpg; give one for"),
        ("image_name,caption\nt0.jpg\n", "captions.csv row 0 is no picture and caption ('t0.jpg'); give one of each"),
        ("image_name,caption\n,a dog\n", "captions.csv row 0 is no picture and caption (',a dog'); give one of each"),
        ("image_name,caption\nt0.jpg,a dog\n", "1 pictures of captions.csv have references in results.csv, but 2 are"),
        ("name\nt0.jpg\n", "captions.csv begins with 'name', where a header with a column named image_name"),
        (None, "captions.csv does not exist; give the path of a CSV file"),
    ],
)
def test_a_captions_file_that_is_none(refused, tmp_path, text, says):
    (tmp_path / "captions.csv").unlink()
    if text:
        (tmp_path / "captions.csv").write_text(text)
    assert refused(*FILES, "--splits", "splits.csv").startswith(says)


def test_wrong_flags_and_a_missing_library(refused, monkeypatch):
    assert refused(*FILES, "--clip", "tiny").startswith("--clip and --images belong together")
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    said = refused(*FILES, "--splits", "splits.csv")
    assert said == "pycocoevalcap is not installed: pip install pycocoevalcap\n"


def test_empty_and_odd_captions_are_scored():
    texts = ["", '"', "a, b", "two\nlines", "犬", "a ||| b"]
    write("captions.csv", dict(zip(TEST, texts, strict=True)))
    metrics = score("--splits", "splits.csv")
    assert metrics["images"] == 6
    assert pd.read_csv("metrics_by_image.csv", keep_default_na=False).caption[0] == ""


def test_yardsticks_stand_beside_flickr30k_only(capsys):
    assert is_flickr30k(["1000092795.jpg", "36979.jpg"])
    for other in ("000000391895.jpg", "1000268201_693b08cb0e.jpg", "scene-00000.png", "holiday.jpg"):
        assert not is_flickr30k(["1000092795.jpg", other])
    lines = beside(0.5, 72)
    assert len(lines) == 2 + len(YARDSTICKS)
    assert all(
        name in line and setting in line for line, (name, _, setting) in zip(lines[1:], YARDSTICKS, strict=False)
    )
    assert "Karpathy's 1000 test images" in lines[-1]
    assert len(beside(0.5, 1000)) == 1 + len(YARDSTICKS)

    score("--splits", "splits.csv")
    assert "Flamingo" not in capsys.readouterr().out
    names = {name: f"{place + 1}0000000.jpg" for place, name in enumerate(TEST)}
    for file in ("results.csv", "splits.csv", "captions.csv"):
        text = Path(file).read_text()
        for name, number in names.items():
            text = text.replace(name, number)
        Path(file).write_text(text)
    score("--splits", "splits.csv")
    assert "Flamingo-80B" in capsys.readouterr().out


def test_karpathys_split(refused, tmp_path):
    images = [{"filename": name, "split": "test", "sentids": [1]} for name in TEST]
    images += [{"filename": "a.jpg", "split": "restval"}, {"filename": "b.jpg", "split": "train"}]
    file = tmp_path / "dataset_flickr30k.json"
    file.write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    assert score("--splits", str(file)) == score("--splits", "splits.csv")
    for text, says in (
        (json.dumps({"images": [*images, {"filename": "t0.jpg", "split": "train"}]}),
         f"{file} puts t0.jpg into test and train; an image may stand in one split only"),
        (json.dumps({"images": [{"filename": "t0.jpg", "split": "dev"}]}), f"{file} puts t0.jpg into split 'dev'; a"),
        (json.dumps({"images": []}), f"{file} has no rows"),
        (json.dumps({"pictures": images}), f"{file} is not in the form of Karpathy's dataset_flickr30k.json (KeyError"),
        (json.dumps({"images": [{"file": "t0.jpg"}]}), f"{file} is not in the form of Karpathy's"),
        ("[1, 2]", f"{file} is not in the form of Karpathy's dataset_flickr30k.json (TypeError"),
        ('{"images": [', f"{file} is not in the form of Karpathy's dataset_flickr30k.json (JSONDecodeError"),
        ("\x00", f"{file} is not in the form of Karpathy's"),
    ):  # fmt: skip
        file.write_text(text)
        assert refused(*FILES, "--splits", file).startswith(says)
    assert refused(*FILES, "--splits", "gone.json").startswith("gone.json does not exist; give the path of Karpathy's")
