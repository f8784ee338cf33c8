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
TABLES = sorted(set(FOLDER.rglob("*.csv")) - {FOLDER / "steps_at_9e-6.csv"})  # its record is of another form
RESULTS = ROOT / "docs" / "results.md"
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - {RESULTS, ROOT / "docs" / "real_photos.md"})]
MEASURE = re.compile(r"CIDEr|BLEU|METEOR|ROUGE|\bright\b|\bnats\b|\bloss\b|times as fast")
FIGURE = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)")


@pytest.fixture(params=TABLES, ids=lambda path: str(path.relative_to(FOLDER).with_suffix("")))
def table(request) -> Path:
    return request.param


def test_each_table_has_its_record(table):
    record, rows = read_record(table), pd.read_csv(table)
    assert record["seeds"] == sorted(rows.seed.unique())
    assert len(record["seeds"]) >= 5
    assert rows.groupby(record["varied"]).seed.nunique().eq(len(record["seeds"])).all()
    assert len(record["trainings"]) == len(rows[[*record["varied"], "seed"]].drop_duplicates())
    assert record["data_sha256"]
    for call in record["calls"]:
        assert {"command", "python", "torch", "transformers", "cpu", "cores", "threads"} <= call.keys()


def test_each_table_is_made_by_a_command_of_the_makefile_with_the_values_it_holds(table):
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    if table.stem == "quality":
        assert "benchmarks.quality" in makefile
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
    other = {name for name in settings if settings[name] != today[name]}
    allowed = (
        {"clip", "gpt2", "text", "epochs", "batch_size", "pooling", "mapper", "mapper_layers"} if photo else {"epochs"}
    )
    assert other <= allowed | ({"freezing"} if table.stem in ("frozen_lr", "lora_lr") else set())


def test_notebook_07_runs_the_experiments_of_the_tables():
    cells = json.loads((ROOT / "notebooks" / "07_ablation.ipynb").read_text("utf-8"))["cells"]
    (source,) = [text for cell in cells if (text := "".join(cell["source"])).startswith("EXPERIMENTS = ")]
    names: dict[str, Any] = {}
    exec(source, names)
    drawn = [table for table in TABLES if table.parent == FOLDER and table.stem != "quality"]
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
    """Return the numbers in docs/results.md and in the JSON and CSV files that the page links to."""
    found = [float(text) for text in re.findall(r"\d+(?:\.\d+)?", RESULTS.read_text("utf-8"))]
    for link in re.findall(r"\]\(([^)#\s]+\.(?:json|csv))\)", page.read_text("utf-8")):
        file = page.parent / link
        text = file.read_text("utf-8")
        found += numbers(json.loads(text) if file.suffix == ".json" else list(csv.DictReader(text.splitlines())))
    return found


def quoted(page: Path) -> Iterator[str]:
    """Yield the decimal numbers of each paragraph and table that names a measure, outside of code."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`|\]\([^)]*\)", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for block in text.split("\n\n"):
        if MEASURE.search(block):
            yield from FIGURE.findall(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_quotes_only_what_is_committed(page):
    there = committed(page)
    for figure in quoted(page):
        half = 0.5 * 10.0 ** -len(figure.split(".")[1])
        assert any(abs(abs(number) - float(figure)) <= half * 1.0001 for number in there), (
            f"{figure} is neither in docs/results.md nor in a JSON or CSV that {page.name} links to"
        )


def test_a_figure_that_nothing_holds_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("CIDEr 0.5432101 on Python 3.11.\n\nA step takes 7.77 s.\n\n`nats 1.5`\n")
    assert list(quoted(page)) == ["0.5432101", "3.11"]
    assert not [number for number in committed(page) if abs(number - 0.5432101) < 1e-7]
