"""Notebook hygiene: the notebooks and their solutions are stored as run, in order, small and with working links."""

import ast
import itertools
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))


def name_of(path):
    return path.relative_to(FOLDER).with_suffix("").as_posix()


@pytest.fixture(params=NOTEBOOKS + SOLUTIONS, ids=name_of)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


@pytest.fixture(params=NOTEBOOKS, ids=name_of)
def chapter(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def python_of(cell):
    return "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))


def test_the_series_is_complete():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(len(NOTEBOOKS))]
    assert len(NOTEBOOKS) >= 5


def test_the_bootstrap_cell_is_the_same_everywhere():
    paths = NOTEBOOKS + SOLUTIONS
    assert len({code_cells(nbformat.read(path, as_version=4))[0].source for path in paths}) == 1


def test_executed_in_order_without_an_error(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def test_no_progress_and_no_machine_is_stored(notebook):
    for cell in code_cells(notebook):
        assert not [output for output in cell.outputs if output.get("name") == "stderr"]
        assert not re.search(r"/(home|root|work|tmp|Users)/", str(cell.outputs))


def test_one_parameters_cell_right_after_the_bootstrap(chapter):
    tagged = [place for place, cell in enumerate(code_cells(chapter)) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [1]


def test_cells_are_short_and_logic_lives_in_helpers(notebook):
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 25
        assert max(map(len, cell.source.splitlines())) <= 120
        for function in re.findall(r"^def .*\n(?:(?: .*)?\n)*", cell.source + "\n", re.MULTILINE):
            assert len(function.strip().splitlines()) <= 18, function


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS, FOLDER / "app.ipynb"], ids=name_of)
def test_at_most_four_lines_import_from_helpers(path):
    source = "\n".join(cell.source for cell in code_cells(nbformat.read(path, as_version=4)))
    lines = re.findall(r"^\s*(?:from helpers|import helpers).*", source, re.MULTILINE)
    assert len(lines) <= 4, lines
    assert lines or path in SOLUTIONS, "one that runs its chapter has the chapter's names"


def test_names_come_from_the_top_of_helpers_and_each_once(notebook):
    found = [node for cell in code_cells(notebook) for node in ast.walk(ast.parse(python_of(cell)))
             if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "helpers"]  # fmt: skip
    names = [alias.name for node in found for alias in node.names]
    assert sorted(names) == sorted(set(names))
    rooms = {(node.module, alias.name) for node in found for alias in node.names if node.module != "helpers"}
    assert rooms <= {("helpers.evaluation", "controls"), ("helpers.evaluation", "published_scores")}


def test_a_word_stands_before_the_code(notebook):
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == kinds[-1] == "markdown"
    runs = [len(list(group)) for kind, group in itertools.groupby(kinds) if kind == "code"]
    assert max(runs) <= 4  # code cells in a row without text between them


def test_small_enough_to_read_online():
    paths = NOTEBOOKS + SOLUTIONS
    assert {name_of(path): path.stat().st_size for path in paths if path.stat().st_size > 500_000} == {}


def links_of(path):
    """Return where the links of a notebook's text lead, but for the web: the files."""
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return [(path.parent / target).resolve() for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)]


@pytest.mark.parametrize("path", NOTEBOOKS + SOLUTIONS, ids=name_of)
def test_links_lead_somewhere(path):
    assert [target for target in links_of(path) if not target.exists()] == []


def test_the_next_chapter_is_named(chapter):
    if chapter.cells[-1].source.count("Next:"):
        assert re.search(r"Next: \[\d\d", chapter.cells[-1].source)


@pytest.mark.parametrize("solution", SOLUTIONS, ids=name_of)
def test_a_chapter_and_its_solutions_link_to_each_other(solution):
    path = FOLDER / solution.name
    assert path in NOTEBOOKS
    assert solution.resolve() in links_of(path)
    assert path.resolve() in links_of(solution)
    first = nbformat.read(solution, as_version=4).cells[0].source
    assert f"](../{path.name}" in first, "the first cell links to the chapter"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_minutes_of_make_run_stand_only_in_the_readme(path):
    lines = nbformat.read(path, as_version=4).cells[0].source.splitlines()
    _needs, _makes, takes = lines[lines.index("|---|---|---|") + 1].strip("| ").split(" | ")
    assert takes.startswith("[minutes](../README.md#the-notebooks)")
    assert "CPU" not in takes


def test_ignores_nothing(notebook):
    assert not [cell for cell in code_cells(notebook) if "NBVAL" in cell.source]
