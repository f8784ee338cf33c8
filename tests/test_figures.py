"""Figures that stand: each committed table has its record, and the pages quote only what is committed."""

import csv
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from helpers.experiments.questions import QUESTIONS, answer, answered
from helpers.experiments.record import read_record
from helpers.presets import preset

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks" / "results"
STEPS = FOLDER / "steps_at_9e-6.csv"  # a curve, which compares no arms
TABLES = sorted(FOLDER.rglob("*.csv"))
BY_BENCHMARKS = {"quality": "benchmarks.quality", STEPS.stem: "benchmarks.small_rate"}  # not by ablate
RESULTS = ROOT / "docs" / "results.md"
PAGES = [
    ROOT / "README.md",
    *sorted(set((ROOT / "docs").glob("*.md")) - {RESULTS}),
    *sorted((ROOT / "helpers").glob("*/README.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "kaggle" / "README.md",
]
REAL_PHOTOS, CARD, TINY, BENCHMARKS = (
    ROOT / name
    for name in ("docs/real_photos.md", "helpers/photo/README.md", "helpers/tiny/README.md", "benchmarks/README.md")
)
SOURCES = {TINY: [ROOT / "helpers" / "tiny" / "report.json"]}  # files that a page names without a link
TRIALS = {REAL_PHOTOS: ["What was tried"]}  # sections of trials during development, which no command repeats
WITHOUT_A_TABLE = {  # figures that no committed file holds, by page
    REAL_PHOTOS: [
        *("21.3", "22.3"),  # BLEU-4 as others published it, and 0.223 in their unit
        "3.63",  # nats per token of the GPT-2 of captions
        *("3.4", "6.4", "9.6", "12.8", "16.1", "19.4"),  # minutes of the training that ships, by epochs,
        *("2.947", "2.802", "2.740", "2.712", "2.701", "2.696"),  # and the validation loss of the three
        "18.9%",  # search with a CLIP from scratch on Flickr30k
    ],
    CARD: ["21.3"],  # BLEU-4 as others published it
    TINY: ["0.270", "0.864", "0.309"],  # short trainings of the small CLIP, one seed each
    BENCHMARKS: ["27.6", "34.3", "3.4", "9.4"],  # other runs and another machine
}
MEASURE = re.compile(
    r"CIDEr|BLEU|METEOR|ROUGE|AUROC|\bright\b|\bnats\b|\bloss\b|\bshares? of\b|times as fast|calibration error"
    r"|unlike the training"
)
FIGURE = re.compile(
    r"(?<![\w.,])\d+(?:\.\d+)?\s?%(?!\s+(?:bootstrap\s+)?(?:interval|confidence))"  # a share, and no 95 % interval
    r"|(?<![\w.])\d+\.\d+(?!\s?%)(?![\w.]*\d)"
)
NO_FIGURES = re.compile(
    r"^```.*?^```$|`[^`\n]*`|\]\([^)]*\)|\b(?:Python|PyTorch|transformers) (?:before )?\d[\d.]*\d",
    flags=re.MULTILINE | re.DOTALL,
)


@pytest.fixture(params=TABLES, ids=lambda path: str(path.relative_to(FOLDER).with_suffix("")))
def table(request) -> Path:
    return request.param


def test_each_table_has_its_record(table):
    record, rows = read_record(table), pd.read_csv(table)
    assert record["seeds"] == sorted(rows.seed.unique())
    assert len(record["seeds"]) >= (2 if table == STEPS else 5)
    assert rows.groupby(record["varied"]).seed.nunique().eq(len(record["seeds"])).all()
    assert len(record["trainings"]) == len(rows[[*record["varied"], "seed"]].drop_duplicates())
    assert record["data_sha256"]
    for call in record["calls"]:
        assert {"command", "python", "torch", "transformers", "cpu", "cores", "threads"} <= call.keys()


def test_each_table_is_made_by_a_command_of_the_makefile_with_the_values_it_holds(table):
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    if table.stem in BY_BENCHMARKS:
        assert BY_BENCHMARKS[table.stem] in makefile
        return
    name = str(table.relative_to(FOLDER))
    (line,) = re.findall(rf"^\t.*--out \$\(TABLES\)/{name}$", makefile, flags=re.MULTILINE)
    varied = dict(word.split("=") for word in shlex.split(line) if re.fullmatch(r"\w+=\S+", word))
    rows = pd.read_csv(table)
    assert list(varied) == read_record(table)["varied"]
    for column, values in varied.items():
        assert sorted(values.split(",")) == sorted(str(each).replace("True", "true").replace("False", "false")
                                                   for each in rows[column].unique())  # fmt: skip


def test_each_table_is_at_the_settings_of_today(table):
    settings = read_record(table).get("settings", {})
    if table.stem == "quality":
        pytest.skip("its recipes are settings of their own")
    photo = table.parent.name == "photo"
    today = preset("photo" if photo else "tiny").to_dict()
    other = {name for name in settings if settings[name] != today.get(name)}
    allowed = (
        {"clip", "gpt2", "text", "epochs", "batch_size", "pooling", "mapper", "mapper_layers"} if photo else {"epochs"}
    )
    allowed |= {"frozen_lr": {"freezing"}, "lora_lr": {"freezing"}, STEPS.stem: {"schedule"}}.get(table.stem, set())
    assert other <= allowed


def test_notebook_07_runs_the_experiments_of_the_tables():
    cells = json.loads((ROOT / "notebooks" / "07_ablation.ipynb").read_text("utf-8"))["cells"]
    (source,) = [text for cell in cells if (text := "".join(cell["source"])).startswith("EXPERIMENTS = ")]
    names: dict[str, Any] = {}
    exec(source, names)
    drawn = [table for table in TABLES if table.parent == FOLDER and table.stem not in BY_BENCHMARKS]
    assert set(names["EXPERIMENTS"]) == {table.stem for table in drawn}
    for table in drawn:
        rows, (varied, _) = pd.read_csv(table), names["EXPERIMENTS"][table.stem]
        assert {name: set(values) for name, values in varied.items()} == {name: set(rows[name]) for name in varied}


def test_every_question_has_an_answer_against_its_base():
    assert answered(FOLDER)
    for name in answered(FOLDER):
        effects, question = answer(name, FOLDER), QUESTIONS[name]
        assert effects.verdict[0] == "base"
        assert str(effects[question.by][0]).startswith(str(question.base))
        assert effects.verdict[1:].isin(["higher", "lower", "no difference shown"]).all()


def test_an_arm_that_was_tuned_takes_the_place_of_the_other(tmp_path):
    rows = [(arm, seed, 0.5 + seed / 100) for arm in ("first-and-last", "frozen", "lora") for seed in range(3)]
    pd.DataFrame(rows, columns=["freezing", "seed", "correct"]).to_csv(tmp_path / "freezing.csv", index=False)
    tried = [(rate, seed, rate * 100 + seed / 90) for rate in (0.003, 0.01) for seed in range(3)]
    pd.DataFrame(tried, columns=["gpt2_lr", "seed", "correct"]).to_csv(tmp_path / "lora_lr.csv", index=False)
    assert answered(tmp_path) == ["freezing"]
    effects = answer("freezing", tmp_path)
    assert list(effects.freezing) == ["first-and-last", "frozen", "lora, gpt2_lr 0.01"]


def numbers(value: Any) -> Iterator[float]:
    """Yield every number in what a JSON or CSV holds."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)
    elif not isinstance(value, bool) and re.fullmatch(r"[-+]?\d+(\.\d+)?(e-?\d+)?", str(value)):
        yield float(value)


def committed(page: Path) -> list[float]:
    """Return the numbers in docs/results.md and in the JSON and CSV files that the page links to, or names."""
    found = [float(text) for text in re.findall(r"\d+(?:\.\d+)?", RESULTS.read_text("utf-8"))]
    links = re.findall(r"\]\(([^)#\s]+\.(?:json|csv))\)", page.read_text("utf-8"))
    for file in [*(page.parent / link for link in links), *SOURCES.get(page, [])]:
        text = file.read_text("utf-8")
        found += numbers(json.loads(text) if file.suffix == ".json" else list(csv.DictReader(text.splitlines())))
    return found


def quoted(page: Path) -> Iterator[str]:
    """Yield the decimal numbers and percentages ("97%") of each paragraph and table that names a measure.

    Code, versions and sections of trials are passed over.
    """
    title = ""
    for block in NO_FIGURES.sub("", page.read_text("utf-8")).split("\n\n"):
        title = [title, *re.findall(r"^#+ (.*)$", block, flags=re.MULTILINE)][-1]
        if MEASURE.search(block) and title not in TRIALS.get(page, []):
            yield from (re.sub(r"\s", "", figure) for figure in FIGURE.findall(block))


def holds(there: list[float], figure: str) -> bool:
    """Tell whether a figure is one of these numbers, rounded as it is; a percentage may be there as a share, too.

    The numbers are many and whole percentages few, so most wrong ones are held by accident: the more digits a wrong
    figure has, the more likely it is found.
    """
    value, scales = figure.rstrip("%"), (1, 100) if figure.endswith("%") else (1,)
    half = 0.5 * 10.0 ** -len(value.partition(".")[2]) * 1.0001
    return any(abs(abs(number) * scale - float(value)) <= half for number in there for scale in scales)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_quotes_only_what_is_committed(page):
    there = committed(page)
    for figure in set(quoted(page)) - set(WITHOUT_A_TABLE.get(page, [])):
        assert holds(there, figure), (
            f"{figure} is neither in docs/results.md nor in a JSON or CSV that {page.relative_to(ROOT)} links to"
        )


@pytest.mark.parametrize("page", WITHOUT_A_TABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_figures_without_a_table_are_those_of_the_page(page):
    gone = set(WITHOUT_A_TABLE[page]) - set(quoted(page))
    assert not gone, f"{page.relative_to(ROOT)} does not quote these any more: take them off the list"


def test_a_figure_that_nothing_holds_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("CIDEr 0.5432101 on Python 3.11.\n\nA step takes 7.77 s.\n\n`nats 1.5`\n")
    assert list(quoted(page)) == ["0.5432101"]
    assert not holds(committed(page), "0.5432101")


def test_percentages_are_figures_and_confidence_is_none(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("97 % are right, 3.3% wrong (95 % intervals, a 95 %\nconfidence).\n\n12 % of the time\n")
    assert list(quoted(page)) == ["97%", "3.3%"]


def test_a_percentage_is_held_by_a_share_or_by_a_number():
    assert holds([0.9741], "97%")
    assert holds([97.0], "97%")
    assert not holds([0.98, 9.7, 0.0097], "97%")
    assert holds([-0.033], "3.3%")
    assert not holds([0.0336], "3.3%")
    assert not holds([0.5], "50.0")


def test_a_section_of_trials_is_passed_over(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("## Trials\n\nCIDEr 0.1\n\nCIDEr 0.2\n\n## Measured\n\nCIDEr 0.3\n")
    monkeypatch.setitem(TRIALS, page, ["Trials"])
    assert list(quoted(page)) == ["0.3"]


def test_a_file_that_a_page_links_to_or_names_holds_its_figures(tmp_path, monkeypatch):
    page, linked, named = (tmp_path / name for name in ("page.md", "linked.json", "named.csv"))
    page.write_text("[measured](linked.json)")
    linked.write_text('{"a": [0.1234567]}')
    named.write_text("b\n0.7654321\n")
    assert 0.1234567 in committed(page)
    assert 0.7654321 not in committed(page)
    monkeypatch.setitem(SOURCES, page, [named])
    assert 0.7654321 in committed(page)
