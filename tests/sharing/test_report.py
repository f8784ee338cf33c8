"""The report shows what the run holds, lists what is missing, and escapes every text."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from helpers.errors import UserError
from helpers.evaluation.evaluate import evaluate
from helpers.sharing.report import write_report
from helpers.training.run import Run

HOSTILE = '<script>alert(1)</script> "><img src=x onerror=alert(1)> {{ 7 * 7 }} {% raw %}'


class Reader(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def images(self) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


@pytest.fixture
def run(finished, tmp_path) -> Run:
    """A copy of the finished run, to be changed."""
    return Run(shutil.copytree(finished.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints")))


def evaluated(run: Run, names, captions, folder="") -> None:
    place = run.folder / folder
    place.mkdir(exist_ok=True)
    metrics = {"images": len(names), "cider": 0.51234567, "cider_95_interval": [0.4, 0.6],
               "wrong_picture_costs_per_token": 2.5, "not_measured": {"meteor": "no Java"}}  # fmt: skip
    (place / "metrics.json").write_text(json.dumps(metrics))
    pd.DataFrame({"image_name": names, "caption": captions}).to_csv(place / "captions.csv", index=False)


def test_a_whole_run_is_one_page_without_anything_from_outside(run, data):
    names = data.image_names()[:30]
    evaluated(run, names, [f"Caption {number}." for number in range(30)])
    file = write_report(run.folder, images=data.images)
    assert file == run.folder / "report.html"
    assert file.stat().st_size < 3_000_000
    page = Reader(file.read_text(encoding="utf-8"))
    assert len(page.images()) == 1 + 24
    for image in page.images():
        assert image["alt"]
        assert image["src"].startswith("data:image/")
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\(|@import", file.read_text(encoding="utf-8"))
    history = run.history()
    for text in ("On 30 pictures: CIDEr 0.51 (95 % interval 0.40 to 0.60)", "CIDEr 0.5123 [0.4, 0.6]", "METEOR no Java",
                 "another costs, per token 2.5", "the first 24 of 30", "Caption 23.",
                 f"{history.step.iloc[-1]} steps", "prefix length 4", "transformers"):  # fmt: skip
        assert text in page.text, text
    assert "What is missing" not in page.text
    assert "Caption 24." not in page.text


def test_an_evaluation_in_a_folder_of_the_run_is_found(run):
    evaluated(run, ["a.png"], ["A dog."], "test")
    page = Reader(write_report(run.folder).read_text())
    assert "What it says: test" in page.text
    assert "A dog." in page.text
    assert "the pictures of captions.csv: give their folder with --images" in page.text


def test_captions_stand_beside_their_references_and_the_pictures_are_found(run, data, writer, cache):
    names = data.image_names()[:3]
    captions = data.captions[data.captions.image_name.isin(names)]
    evaluate(writer, captions, cache, out=run.folder / "test", images=data.images)
    text = write_report(run.folder).read_text(encoding="utf-8")
    page = Reader(text)
    assert len(page.images()) == 3 + 1
    assert "pictures of captions.csv" not in page.text
    for name in names:
        assert captions[captions.image_name == name].caption.iloc[0] in page.text
    assert page.text.index("What it says: test") < page.text.index("Training") < page.text.index("All scores: test")
    assert text.index("figcaption><b>") < text.index("Training and validation loss")


@pytest.mark.parametrize("record", ["[]", "{}", '{"images": "nowhere", "references": {"a.png": 3}}', '{"images": 4}'])
def test_a_broken_record_of_pictures_leaves_captions_without_them(run, record):
    evaluated(run, ["a.png"], ["A dog."])
    (run.folder / "pictures.json").write_text(record)
    page = Reader(write_report(run.folder).read_text(encoding="utf-8"))
    assert "A dog." in page.text
    assert "the pictures of captions.csv: give their folder with --images" in page.text


def test_metrics_of_any_names_and_kinds_are_shown(run):
    metrics = {"images": "many", "cider": "high", "bleu_4": 0.25, "new_name": 1234567, "correct": None,
               "cider_95_interval": 3, "more": [1, 2]}  # fmt: skip
    (run.folder / "metrics.json").write_text(json.dumps(metrics))
    page = Reader(write_report(run.folder).read_text(encoding="utf-8"))
    for text in ("Scores: BLEU-4 0.25", "new name 1,234,567", "CIDEr high", "more [1, 2]"):
        assert text in page.text, text


def test_texts_are_text_whatever_they_contain(run, data):
    evaluated(run, [HOSTILE, data.image_names()[0]], [HOSTILE, HOSTILE], "a<b>&c")
    run.append_samples(99, {HOSTILE: HOSTILE})
    config = json.loads(run.config_file.read_text())
    config["config"]["clip"] = config["data"][HOSTILE] = HOSTILE
    run.config_file.write_text(json.dumps(config))
    page = Reader(write_report(run.folder, images=data.images).read_text(encoding="utf-8"))
    assert page.text.count(HOSTILE) >= 6
    assert not [tag for tag, attributes in page.tags if tag == "script" or "onerror" in attributes]
    assert "1 pictures of captions.csv, the first because: " in page.text


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run: run.history_file.unlink(), "holds no history.csv"),
        (lambda run: run.history_file.write_text(""), "history.csv: it has no rows yet"),
        (lambda run: run.history_file.write_text("step,loss\n1,2\n"), "history.csv: "),
        (lambda run: run.history_file.write_text(run.history_file.read_text().splitlines()[0]), "it has no rows yet"),
        (lambda run: run.samples_file.unlink(), "clipxgpt evaluate"),
        (lambda run: shutil.rmtree(run.captioner), "captioner/: training has not ended yet"),
        (lambda run: (run.folder / "metrics.json").write_text("{"), "metrics.json is no JSON"),
        (lambda run: (run.folder / "metrics.json").write_text("[]"), "metrics.json is no JSON object"),
        (lambda run: (run.folder / "captions.csv").write_text("name\n1\n"), "captions.csv: "),
    ],
)
def test_what_is_missing_or_broken_is_said(run, spoil, says):
    spoil(run)
    page = Reader(write_report(run.folder).read_text(encoding="utf-8"))
    assert says in page.text.partition("What is missing")[2]


def test_names_and_captions_like_formulas_are_as_they_were(run):
    evaluated(run, ["'-p08.jpg", "b.png"], ["'=a dog", "a cat"])
    references = {"images": None, "references": {"-p08.jpg": ["A dog runs."], "b.png": ["A cat."]}}
    (run.folder / "pictures.json").write_text(json.dumps(references))
    text = Reader(write_report(run.folder).read_text()).text
    assert "A dog runs." in text
    assert "=a dog" in text
    assert "'=a dog" not in text
    assert "'-p08.jpg" not in text


def test_a_caption_that_reads_like_no_value_stays(run):
    evaluated(run, ["a.png", "b.png"], ["nan", "NA"])
    text = Reader(write_report(run.folder).read_text()).text
    assert "nan a.png" in text
    assert "NA b.png" in text


def test_what_is_no_run_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no config\.json: give the folder of a run"):
        write_report(tmp_path / "empty")
    with pytest.raises(UserError, match="nowhere is no folder"):
        write_report(run.folder, images=tmp_path / "nowhere")
    run.config_file.write_text("{")
    with pytest.raises(UserError, match=r"config\.json is no run's config\.json"):
        write_report(run.folder)
    with pytest.raises(UserError, match=r"config\.json is no run's config\.json"):
        write_report(run.captioner)
    assert not (run.folder / "report.html").exists()


def test_the_report_needs_neither_ipython_nor_ipywidgets(run):
    code = """
import sys
sys.modules["IPython"] = sys.modules["ipywidgets"] = None  # imports of them now fail
from helpers.sharing.report import write_report
write_report(sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", code, run.folder], check=True, cwd=Path(__file__).parents[2])
    assert (run.folder / "report.html").exists()
