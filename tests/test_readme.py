"""README and docs as a reader uses them: what they show runs, links lead somewhere, and the README is short."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.main import get_command

from helpers.cli import app, main
from helpers.data.images import open_picture
from helpers.models.decoding import Decoding

ROOT = Path(__file__).parents[1]
README, KAGGLE = ROOT / "README.md", ROOT / "kaggle" / "README.md"
OWN, SCORES, EXPLORER = (ROOT / "docs" / f"{name}.md" for name in ("own_photos", "scores", "explorer"))
PAGES = [README, KAGGLE, ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALLER = {
    "--preset small": "--preset tiny",
    "--epochs 10": "--epochs 1 --mapper-layers 1",
    "train_images=100,300,1000": "train_images=5,10 --seeds 1 --jobs 1",
    "openai/clip-vit-large-patch14": "tiny",
    "-C runs/0 -C runs/1 -C runs/2": "-C runs/mine -C runs/another",
    'preset("small").with_values(epochs=10)': 'preset("tiny").with_values(epochs=1, mapper_layers=1)',
}


def blocks(page: Path, language: str = "") -> list[str]:
    """The code blocks of a page in one language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [code for name, code in found if name == language]


def commands(page: Path) -> list[str]:
    """Every `clipxgpt` command of a page, each on one line and without its comment."""
    lines = "".join(blocks(page)).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.startswith("clipxgpt ")]


def smaller(text: str) -> str:
    for there, replacement in SMALLER.items():
        text = text.replace(there, replacement)
    return text


def own_captions(data):
    """A practitioner's file: two columns, one caption of them pasted in by mistake and 1,000 words long."""
    table = data.captions[data.captions.image_name.isin(data.image_names()[:30])].copy()
    table.loc[table[table.split == "train"].index[0], "caption"] = "a red circle in the middle " * 167
    return table.rename(columns={"image_name": "image"})[["image", "caption"]]


def another_training(run: Path, folder: Path) -> None:
    """Copy a run as that of another seed would be: of the same recipe, with other weights."""
    shutil.copytree(run, folder)
    file = folder / "captioner" / "model.safetensors"
    weights = load_file(file)
    save_file(weights | {"mapper.output.bias": weights["mapper.output.bias"] + 0.5}, file, {"format": "pt"})


def run(line: str, capsys) -> str:
    """Return what a command says; it must succeed."""
    try:
        main(shlex.split(smaller(line))[1:])
    except SystemExit as end:
        if end.code:
            pytest.fail(f"{line}: {capsys.readouterr().err}")
    done = capsys.readouterr()
    return done.out + done.err


@pytest.fixture
def folder(data, tmp_path, monkeypatch) -> Path:
    """A folder with the files that the pages name, in which the reader works."""
    own_captions(data).to_csv(tmp_path / "my_captions.csv", index=False)
    (tmp_path / "my_photos").symlink_to(data.images.resolve())
    (tmp_path / "my.jpg").write_bytes((data.images / data.image_names()[-1]).read_bytes())
    (tmp_path / "photos").mkdir()
    for name in data.image_names()[:2]:
        (tmp_path / "photos" / name).write_bytes((data.images / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_is_short():
    assert len(README.read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    text = page.read_text("utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    for target in (markdown or html for markdown, html in links):
        if target.startswith("http"):
            continue
        path, _, heading = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles], target


def test_the_readme_leads_to_every_page():
    links = {(ROOT / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)\)", README.read_text("utf-8"))}
    assert links >= {page for page in PAGES if page != README}


def test_own_photos_by_commands(folder, capsys, monkeypatch):
    """All commands of the three pages, one after the other in one folder."""
    monkeypatch.setenv("PATH", str(folder))  # without Java, whose METEOR takes half a minute for each score
    assert set(commands(OWN)) > {line for line in commands(README) if "runs/mine" in line}
    lines = dict.fromkeys([*commands(OWN), *commands(SCORES), *commands(EXPLORER)])
    said = {}
    for line in lines:
        if "-C runs/2" in line:
            another_training(folder / "runs/mine", folder / "runs/another")
        said[line] = run(line, capsys)
    trained, more = [text for line, text in said.items() if line.startswith("clipxgpt train")]
    assert "the run lies in runs/more" in more
    assert "1 captions are cut at 64 tokens, such as 'a red circle in the middle" in trained
    assert said["clipxgpt predict my.jpg -C runs/mine"].strip()
    assert len((folder / "captions.csv").read_text().splitlines()) == 3  # a header and two photos
    assert (folder / "runs/mine/report.html").exists()
    assert "CLIPScore" in next(text for line, text in said.items() if " --clip " in line)
    assert "minus copied/captions.csv" in next(text for line, text in said.items() if " --against " in line)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_command_has_the_options_that_are_shown(page):
    root = get_command(app)
    for line in commands(page):
        name, *arguments = shlex.split(line)[1:]
        if name != "--help":
            root.commands[name].make_context(name, arguments)


def test_own_photos_in_python(folder, capsys):
    own_photos, in_transformers = map(smaller, blocks(OWN, "python"))
    names = {}
    exec(own_photos, names)
    writer, picture = names["writer"], open_picture("my.jpg")
    expected = f"{writer.write(writer.embed([picture]))}\n"
    assert capsys.readouterr().out == expected

    names["pixel_values"] = writer.clip().pixel_values([picture])
    exec(in_transformers, names)
    captions = writer.tokenizer.batch_decode(names["token_ids"], skip_special_tokens=True)
    assert [caption.strip() for caption in captions] == writer.write(writer.embed([picture]), Decoding(beams=5))

    (shortest,) = blocks(README, "python")
    exec(shortest, {})
    assert capsys.readouterr().out == expected


def test_weights_for_a_kaggle_without_the_internet(folder):
    (code,) = blocks(KAGGLE, "python")
    exec(code.replace("openai/clip-vit-base-patch32", "tiny").replace('load_gpt2("gpt2")', 'load_gpt2("tiny")'), {})
    assert (folder / "pretrained/weights/clip-vit-base-patch32/model.safetensors").exists()
    assert (folder / "pretrained/weights/gpt2/model.safetensors").exists()


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    shown = {name for page in PAGES for code in [*blocks(page), *re.findall(r"`([^`\n]+)`", page.read_text("utf-8"))]
             for name in re.findall(r"(?:^|&& |[A-Z_]=\S+ )make ([a-z-]+)", code, flags=re.MULTILINE)}  # fmt: skip
    assert "run" in shown <= targets
