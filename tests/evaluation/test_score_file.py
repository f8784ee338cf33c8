"""A captions file scored against references and compared with another one, what is refused, and the command `score`."""

import json
import os
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest

from helpers.cli import main
from helpers.errors import UserError
from helpers.evaluation.published_scores import PUBLISHED, beside, flickr_set, published_lines
from helpers.evaluation.score_file import _own_clip, read_written, score_file
from helpers.evaluation.scores import COCO, NAMES, summary_lines
from helpers.words.ptb_tokenizer import why_no_java

pytest.importorskip("pycocoevalcap")

COMMAND = ["score", "--captions", "captions.csv", "--references", "results.csv", "--out", "metrics.json"]
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
    save("captions.csv", {name: f"a dog number {place} runs" for place, name in enumerate(TEST)})


def save(file: str, written: dict[str, str]) -> None:
    pd.DataFrame({"image_name": written.keys(), "caption": written.values()}).to_csv(file, index=False)


def score(splits="splits.csv", **choices) -> dict:
    metrics = score_file("captions.csv", "results.csv", out="metrics.json", splits=splits, **choices)
    assert metrics == json.loads(Path("metrics.json").read_text())
    return metrics


def refused(splits="splits.csv", **choices) -> str:
    with pytest.raises(UserError) as error:
        score_file("captions.csv", "results.csv", out="metrics.json", splits=splits, **choices)
    assert "\n" not in str(error.value)
    assert not Path("metrics.json").exists()
    return str(error.value)


def test_scores_files_and_their_summary():
    metrics = score()
    said = summary_lines(metrics)
    assert (metrics["images"], metrics["references"]) == (6, 12)
    assert metrics["captions_without_references"] == metrics["references_without_caption"] == []
    for name in set(COCO) - {"meteor"}:
        low, high = metrics[f"{name}_95_interval"]
        assert low <= metrics[name] <= high
        assert f"  {NAMES[name]:<30}{metrics[name]:.3f} [{low:.3f}, {high:.3f}]" in said
    assert "  METEOR not measured: Java is not installed, or not on the PATH" in said
    assert not any(name in line for line in said for name in metrics if "_" in name)  # raw keys are for metrics.json
    assert metrics["copied"] == 0
    each = pd.read_csv("metrics_by_image.csv")
    assert list(each.image_name) == TEST
    assert each.cider.mean() == pytest.approx(metrics["cider"])


@pytest.mark.skipif(why_no_java() is not None, reason="needs Java")
def test_with_java(monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)
    metrics = score()
    assert 0 < metrics["meteor"] <= 1
    assert metrics["not_measured"] == {}
    assert metrics["tokenizer"].startswith("Penn Treebank")


def test_what_stands_in_one_file_only_is_counted_and_named():
    save("captions.csv", {"new.jpg": "a bird", **{name: "a dog" for name in TEST[:4]}})
    metrics = score()
    assert metrics["images"] == 4
    assert metrics["captions_without_references"] == ["new.jpg"]
    assert metrics["references_without_caption"] == TEST[4:]
    said = summary_lines(metrics)
    assert f"  {'captions with no reference':<30}1, such as new.jpg" in said
    assert f"  {'pictures with no caption':<30}2, such as t4.jpg" in said


def test_copied_captions_are_found_whatever_their_case():
    save("captions.csv", {name: "two cats sleep on a red bed" for name in TEST})
    metrics = score()
    assert (metrics["copied"], metrics["distinct_captions"]) == (1.0, 1)


def test_training_pictures_are_refused():
    save("captions.csv", {"a.jpg": "a man", **{name: "a dog" for name in TEST}})
    wanted = "captions.csv captions training pictures of splits.csv (1, such as a.jpg): score held-out ones only "
    assert refused().startswith(wanted)
    metrics = score(splits=None, held_out=True)  # said on purpose: these references are of held-out pictures only
    assert metrics["images"] == 7
    assert metrics["not_measured"]["copied"] == "no training captions among the references"


def test_against_another_file():
    save("other.csv", {name: "a bird in the sky" for name in TEST[:5]})
    found = score(against="other.csv")
    assert found["images"] == 5
    assert found["against"]["in_one_file_only"] == TEST[5:]
    assert found["against"]["cider"]["verdict"] == "higher"
    low, high = found["against"]["cider"]["95_interval"]
    assert 0 < low <= found["against"]["cider"]["difference"] <= high
    said = summary_lines(found)
    assert "captions.csv minus other.csv" in said
    assert f"  {'pictures in one file only':<30}1, such as t5.jpg" in said
    difference = found["against"]["cider"]["difference"]
    assert f"  {'CIDEr':<30}{difference:+.3f} [{low:+.3f}, {high:+.3f}] higher" in said
    assert said[-1].startswith("captions.csv against other.csv: higher in BLEU-1, ")
    same = score(against="captions.csv")
    assert "captions.csv against captions.csv: no difference shown in BLEU-1, " in summary_lines(same)[-1]
    assert {same["against"][name]["verdict"] for name in ("cider", "bleu_4", "words")} == {"no difference shown"}


def test_clipscore_and_the_captioners_own_clip(data, cache, tmp_path):
    held_out = data.captions[data.captions.split == "test"].drop_duplicates("image_name")
    Path("mine/embeddings").mkdir(parents=True)
    save("mine/captions.csv", dict(zip(held_out.image_name, held_out.caption, strict=True)))
    for known in (False, True):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            metrics = score_file(
                "mine/captions.csv", data.images.parent / "results.csv", out="m.json", clip="tiny", images=data.images
            )
        assert metrics["clipscore"] > 0
        assert metrics["clip_is_the_captioners"] is (True if known else None)
        assert any("the captioner's own CLIP" in str(each.message) for each in warned) is known
        said = "yes, with the same blind spots" if known else "not known"
        assert any(line.endswith(said) for line in summary_lines(metrics))
        (tmp_path / "mine/embeddings/fingerprint.json").write_text(json.dumps(cache.fingerprint))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image_name,caption\nt0.jpg,a\nt0.jpg,b\n", "captions.csv row 1 is a second caption of t0.jpg; give one per"),
        ("image_name,caption\nt0.jpg\n", "captions.csv row 0 is not a picture and a caption ('t0.jpg'); give one"),
        ("image_name,caption\n,a dog\n", "captions.csv row 0 is not a picture and a caption (',a dog'); give one"),
        ("image_name,caption\nt0.jpg,a dog\n", "pictures of captions.csv with references in results.csv: 1, but"),
        ("name\nt0.jpg\n", "captions.csv begins with 'name', where a header with a column named image_name"),
        (None, "captions.csv does not exist; give the path of a CSV file"),
    ],
)
def test_a_captions_file_that_is_none(tmp_path, text, says):
    (tmp_path / "captions.csv").unlink()
    if text:
        (tmp_path / "captions.csv").write_text(text)
    assert refused().startswith(says)


def test_wrong_choices_and_a_missing_library(monkeypatch):
    for choice in ({"clip": "tiny"}, {"images": "photos"}):
        assert refused(**choice).startswith("--clip and --images belong together")
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    assert refused() == "pycocoevalcap is not installed: pip install pycocoevalcap"


def test_empty_and_odd_captions_are_scored():
    texts = ["", '"', "a, b", "two\nlines", "犬", "a ||| b"]
    save("captions.csv", dict(zip(TEST, texts, strict=True)))
    metrics = score()
    assert metrics["images"] == 6
    assert pd.read_csv("metrics_by_image.csv", keep_default_na=False).caption[0] == ""


def test_published_scores_stand_beside_a_score_on_flickrs_photos():
    thirty, eight = ["1000092795.jpg", "36979.jpg"], ["1000268201_693b08cb0e.jpg"]
    assert (flickr_set(thirty), flickr_set(eight)) == ("Flickr30k", "Flickr8k")
    for other in (["000000391895.jpg"], ["scene-00000.png"], ["holiday.jpg"], thirty + eight, []):
        assert flickr_set(other) is None
        assert beside({"cider": 0.5, "bleu_4": 0.2}, other) == []
    assert beside({"words": 9.0}, thirty) == []
    heading, *published = published_lines()
    lines = beside({"cider": 0.5, "bleu_4": 0.2}, thirty)
    assert lines == [heading, lines[1], *published, lines[-1]]
    assert lines[1].split() == ["here", "0.500", "0.200", "Flickr30k;", "2", "images,", "by", "their", "names"]
    for line, each in zip(published, PUBLISHED, strict=True):
        values = [f"{value:.3f}" for value in (each.cider, each.bleu_4) if value is not None]
        assert line.split() == [*each.name.split(), *values, f"{each.data};", *each.setting.split()]
        assert line.index(values[0]) == heading.index("CIDEr" if each.cider else "BLEU-4")
    assert "Karpathy's 1,000 test images" in lines[-1]
    assert "its authors chose" in beside({"cider": 0.5, "bleu_4": 0.2}, eight)[-1]
    whole = [f"{number}.jpg" for number in range(10_000, 11_000)]
    assert beside({"cider": 0.5, "bleu_4": 0.2}, whole)[2:] == published


def test_the_command_prints_the_summary_and_published_scores_beside_flickr30k_only(capsys):
    main([*COMMAND, "--splits", "splits.csv"])
    said = capsys.readouterr().out
    assert "Flamingo" not in said
    metrics = json.loads(Path("metrics.json").read_text())
    assert "\n".join(summary_lines(metrics)) in said
    names = {name: f"{place + 1}0000000.jpg" for place, name in enumerate(TEST)}
    for file in ("results.csv", "splits.csv", "captions.csv"):
        text = Path(file).read_text()
        for name, number in names.items():
            text = text.replace(name, number)
        Path(file).write_text(text)
    main([*COMMAND, "--splits", "splits.csv"])
    assert "Flamingo-80B" in capsys.readouterr().out


def test_the_command_knows_every_choice(data, capsys):
    save("other.csv", {name: "a bird in the sky" for name in TEST})
    main([*COMMAND, "--held-out", "--against", "other.csv"])
    metrics = json.loads(Path("metrics.json").read_text())
    assert metrics["against"]["captions"] == "other.csv"
    assert metrics["not_measured"]["copied"] == "no training captions among the references"
    held_out = data.captions[data.captions.split == "test"].drop_duplicates("image_name")
    save("captions.csv", dict(zip(held_out.image_name, held_out.caption, strict=True)))
    references = ["--references", str(data.images.parent / "results.csv")]
    main([*COMMAND[:3], *references, *COMMAND[5:], "--clip", "tiny", "--images", str(data.images)])
    assert json.loads(Path("metrics.json").read_text())["clip"] == "tiny"
    assert "CLIPScore" in capsys.readouterr().out


def test_the_command_refuses_in_one_line(capsys):
    save("captions.csv", {"a.jpg": "a man", **{name: "a dog" for name in TEST}})
    with pytest.raises(SystemExit) as ended:
        main([*COMMAND, "--splits", "splits.csv"])
    out, error = capsys.readouterr()
    assert (ended.value.code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith("clipxgpt: captions.csv captions training pictures of splits.csv")


def test_karpathys_split(tmp_path):
    images = [{"filename": name, "split": "test", "sentids": [1]} for name in TEST]
    images += [{"filename": "a.jpg", "split": "restval"}, {"filename": "b.jpg", "split": "train"}]
    file = tmp_path / "dataset_flickr30k.json"
    file.write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    assert score(str(file)) == score()
    Path("metrics.json").unlink()
    for text, says in (
        (json.dumps({"images": [*images, {"filename": "t0.jpg", "split": "train"}]}),
         f"{file} puts t0.jpg into test and train; an image may stand in one split only"),
        (json.dumps({"images": [{"filename": "t0.jpg", "split": "left"}]}), f"{file} puts t0.jpg into split 'left'; a"),
        (json.dumps({"images": []}), f"{file} has no rows"),
        (json.dumps({"pictures": images}), f"{file} has the fields pictures, but needs a column named image_name"),
        (json.dumps({"images": [{"file": "t0.jpg"}]}), f"{file} is not in the form of Karpathy's"),
        ("[1, 2]", f"{file} is JSON, but holds no captions in a form that is known"),
        ('{"images": [', f"{file} is no whole JSON (Expecting value"),
        ("\x00", f"{file} is no text in UTF-8"),
    ):  # fmt: skip
        file.write_text(text)
        assert refused(file).startswith(says)
    assert refused("gone.json").startswith("gone.json does not exist; give the path of a CSV file or another")


COCO_REFERENCES = {
    "images": [{"id": place + 5, "file_name": f"COCO_val2014_{name}"} for place, name in enumerate(TEST)],
    "annotations": [{"image_id": place + 5, "caption": f"A dog number {place} runs."} for place in range(6)],
}


def test_cocos_results_are_read_and_written(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(COCO_REFERENCES))
    results = [{"image_id": place + 5, "caption": f"a dog number {place} runs"} for place in range(6)]
    (tmp_path / "captions.json").write_text(json.dumps(results))
    metrics = score_file("captions.json", "results.json", out="m.json", held_out=True, coco_results="made/written.json")
    assert metrics["images"] == 6
    assert metrics["captions_without_references"] == metrics["references_without_caption"] == []
    assert json.loads(Path("made/written.json").read_text()) == results
    Path("captions.json").write_text(json.dumps([*results, results[0]]))
    with pytest.raises(UserError, match=r"captions.json row 6 is a second caption of 5; give one per picture"):
        score_file("captions.json", "results.json", out="m.json", held_out=True)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["COCO_val2014_000000000005.jpg", "COCO_val2014_000000000007.jpg"], [5, 7]),
        (["1000092795.jpg", "000010002456.jpg"], [1000092795, 10002456]),
        (["1000268201_693b08cb0e.jpg", "7.jpg"], ["1000268201_693b08cb0e.jpg", "7.jpg"]),
        (["7.jpg", "007.jpg"], ["7.jpg", "007.jpg"]),
    ],
)
def test_image_ids_without_a_json_of_references(names, ids):
    Path("results.csv").write_text("image,caption\n" + "".join(f"{name},a dog\n" for name in names))
    Path("captions.csv").write_text("image,caption\n" + "".join(f"/photos/{name},a dog\n" for name in names))
    main([*COMMAND, "--held-out", "--coco-results", "coco.json"])
    written = json.loads(Path("coco.json").read_text())
    assert written == [{"image_id": number, "caption": "a dog"} for number in ids]
    results = Path("coco.json").rename("captions.json")
    assert score_file(results, "results.csv", out="m.json", held_out=True)["images"] == 2


def test_columns_are_named_for_references_and_captions_alike():
    rows = "".join(f"1,{name},a dog,a cat\n" for name in TEST)
    Path("results.csv").write_text(f"image,path,text,title\n{rows}")
    assert "more than one column that may hold the pictures' names" in refused(held_out=True, splits=None)
    main([*COMMAND, "--held-out", "--image-column", "path", "--caption-column", "title"])
    assert json.loads(Path("metrics.json").read_text())["images"] == 6


def test_formulas_are_defused_and_read_back():
    texts = ["=1+1", "+dogs run", "-", "@home", "'=x", "a dog = a cat"]
    save("captions.csv", dict(zip(TEST, texts, strict=True)))
    score()
    saved = pd.read_csv("metrics_by_image.csv", keep_default_na=False)
    assert saved.caption.tolist() == ["'=1+1", "'+dogs run", "'-", "'@home", "'=x", "a dog = a cat"]
    saved[["image_name", "caption"]].to_csv("again.csv", index=False)
    assert read_written("again.csv") == dict(zip(TEST, texts, strict=True)) | {TEST[4]: "=x"}


def test_captions_that_are_not_utf8():
    Path("captions.csv").write_bytes(b"image,caption\nt0.jpg,a dog\nt1.jpg,caf\xe9\n")
    assert refused().startswith("captions.csv row 1 is not UTF-8, but perhaps Windows' cp1252: save the file as UTF-8")


def test_names_and_captions_cannot_act_on_the_terminal(capsys):
    save("captions.csv", {"new\x1b[2J.jpg": "a\x1b]0;title\x07 dog", **{name: "a dog" for name in TEST}})
    main([*COMMAND, "--held-out"])
    out = capsys.readouterr().out
    assert "such as new\\x1b[2J.jpg" in out
    assert "\x1b" not in out
    (Path("captions.csv")).write_text("image,caption\na\x1b[2J.jpg,x\na\x1b[2J.jpg,x\n")
    with pytest.raises(SystemExit):
        main([*COMMAND, "--held-out"])
    assert "a second caption of a\\x1b[2J.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["一只狗在草地上奔跑", "สุนัขตัวหนึ่งวิ่งอยู่บนสนามหญ้า", "犬が芝生の上を走っている"])
def test_text_without_spaces_is_said(text):
    save("captions.csv", dict.fromkeys(TEST, text))
    metrics = score()
    assert metrics["unspaced"].startswith("6 of 18 texts: each counts as a word or a few, so the scores of words mean")
    assert any(line.split()[:2] == ["without", "spaces"] for line in summary_lines(metrics))


@pytest.mark.parametrize("text", ["一只 狗 在 草地 上 奔跑", "สุนัข ตัว หนึ่ง วิ่ง", "a dog", "犬"])
def test_text_with_spaces_is_not(text):
    save("captions.csv", dict.fromkeys(TEST, text))
    assert "unspaced" not in score()


@pytest.mark.parametrize("content", ["{", "[]", '{"weights_sha256": []}', "3", "[" * 100_000])
def test_a_broken_fingerprint_beside_the_captions_is_none(content, tmp_path):
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "fingerprint.json").write_text(content)
    assert _own_clip(tmp_path / "captions.csv") in (None, "[]")
