"""The page for contributors is true: its map lists every module, and its steps, followed by a program, work.

The steps are diffs: in each, the lines that begin with a space or a minus are replaced by those with a space or a plus.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

from results_scores import all_against_the_best_writer

from helpers.data.scene_captions import scene_entropy
from helpers.training.checkpoint import newest_step

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "contributing.md").read_text("utf-8")
STEP = re.compile(r"^\d\. (?:In `(?P<file>[\w/]+\.py)`|In the same file)?(?P<text>.*(?:\n .*)*)", re.MULTILINE)


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def follow(steps: str, root: Path) -> None:
    """Apply every diff of a section to the file that its step names."""
    parts = re.split(r"^```(\w*)\n(.*?)^```$", steps, flags=re.DOTALL | re.MULTILINE)
    file = None
    for before, language, code in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        file = next((found["file"] for found in reversed(list(STEP.finditer(before))) if found["file"]), file)
        if language != "diff":
            continue
        lines = code.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        source = (root / file).read_text("utf-8")
        assert source.count(old) == 1, f"{file} does not hold these lines once:\n{old}"
        (root / file).write_text(source.replace(old, new), "utf-8")


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Path:
    """A folder with the package after every step of the page."""
    root = tmp_path_factory.mktemp("contributed")
    for name in ("helpers", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for title in re.findall(r"^## (Add .*)$", PAGE, flags=re.MULTILINE):
        follow(section(title), root)
    return root


def run(root: Path, *command: str) -> str:
    environment = os.environ | {"PATH": str(root)}  # without Java, whose METEOR takes half a minute
    done = subprocess.run([sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command_of(title: str, name: str) -> list[str]:
    line = re.search(rf"^clipxgpt {name} .*$", section(title), flags=re.MULTILINE)[0]
    return ["-m", "helpers", *shlex.split(line)[1:]]


def photos(data) -> list[str]:
    return ["--images", str(data.images.resolve()), "--captions", str(data.images.resolve().with_name("results.csv"))]


def test_a_new_mapping_module_trains(changed, data):
    run(changed, *command_of("Add a mapping module", "train"), *photos(data))
    assert '"mapper": "linear"' in (changed / "runs/linear/captioner/config.json").read_text()
    assert newest_step(changed / "runs/linear/checkpoints") == 2
    assert "linear" in run(changed, "-m", "helpers", "train", "--help")


def test_a_new_captions_format_is_read(changed, tmp_path):
    file = tmp_path / "captions.arrows"
    file.write_text("a.jpg -> A dog.\nbroken\n")
    code = f"from helpers import read_captions; captions, left_out = read_captions({str(file)!r}); "
    assert run(changed, "-c", code + "print(list(captions.caption), len(left_out))") == "['A dog.'] 1\n"


def test_a_new_metric_is_printed(changed, tmp_path):
    for name, caption in (("written", "A dog."), ("references", "A small dog.")):
        rows = "".join(f"{image}.jpg,{caption}\n" for image in "abc")
        (tmp_path / f"{name}.csv").write_text(f"image_name,caption\n{rows}")
    files = [
        f"--captions={tmp_path}/written.csv",
        f"--references={tmp_path}/references.csv",
        f"--out={tmp_path}/s.json",
    ]
    said = run(changed, "-m", "helpers", "score", *files, "--held-out")
    assert re.search(r"letters per caption +\d\.\d+ \[", said)


def test_a_new_option_is_varied(changed, data):
    ablate = [*command_of("Add an ablation", "ablate")]
    arguments = " ".join(ablate).replace("prefix_length=1,4,10", "beta2=0.95,0.999").replace("--seeds 5", "--seeds 1")
    assert "beta2=0.95,0.999" in section("Add an ablation")
    out = run(changed, *shlex.split(arguments), "--mapper-layers", "1", *photos(data))
    assert "beta2" in out


def test_every_name_in_the_steps_is_in_its_file(changed):
    """`name` in a step that begins with a file is a name in that file, after the step."""
    checked = 0
    for step in STEP.finditer(PAGE):
        if step["file"]:
            source = (changed / step["file"]).read_text("utf-8")
            for name in re.findall(r"`(\w+)`", step["text"]):
                assert re.search(rf"\b{name}\b", source), f"{step['file']} has no {name}"
                checked += 1
    assert checked > 15


def test_the_map_lists_every_module_once():
    rooms = re.findall(r"^### `(helpers/[\w/]*)`\n\n((?:- .*\n)+)", PAGE, flags=re.MULTILINE)
    listed = [
        folder + name for folder, lines in rooms for name in re.findall(r"^- `(\w+\.py)`: \w", lines, re.MULTILINE)
    ]
    modules = [path for path in (ROOT / "helpers").rglob("*.py") if path.name != "__init__.py"]
    assert sorted(listed) == sorted(str(path.relative_to(ROOT)) for path in modules)


def test_the_results_are_those_of_the_tables(tmp_path):
    page = tmp_path / "results.md"
    command = [sys.executable, str(ROOT / "docs" / "results.py"), "--run", str(tmp_path), "--out", str(page)]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert page.read_text("utf-8") == (ROOT / "docs" / "results.md").read_text("utf-8"), "run make docs"


def draw(out: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "docs" / "draw.py"), "--out", str(out), *arguments]
    return subprocess.run(command, cwd=out, capture_output=True, text=True)


def test_one_command_draws_the_pictures(tmp_path, finished, data):
    done = draw(tmp_path, "--captioner", str(finished.folder), "--world", str(data.images.parent))
    assert done.returncode == 0, done.stderr
    need_a_browser = {"browser.png", "explorer.png"}
    shown = {path.name for path in (ROOT / "docs").glob("*.png")} - need_a_browser
    assert {path.name for path in tmp_path.iterdir()} == shown
    for path in tmp_path.iterdir():
        picture = Image.open(path).convert("RGB")
        assert picture.width >= 1400, f"{path.name} is blurred where a page is 900 pixels wide"
        assert len(picture.getcolors(maxcolors=picture.width * picture.height)) > 50, f"{path.name} is empty"


def test_without_a_captioner_the_command_says_how_to_get_one(tmp_path):
    done = draw(tmp_path, "--captioner", str(tmp_path / "none"), "--world", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "make run" in done.stderr
    assert (tmp_path / "architecture.png").exists()


def test_what_the_picture_tells_is_quoted_from_the_table_and_no_more_than_there_is_to_tell():
    table = json.loads((ROOT / "notebooks" / "results" / "trainings.json").read_text(encoding="utf-8"))["scores"]
    text = " ".join((ROOT / "docs" / "scores.md").read_text(encoding="utf-8").split())
    tells, costs = table["picture_tells_per_caption"], table["wrong_picture_costs_per_caption"]
    assert len(tells["of_each"]) >= 3
    assert max(tells["of_each"]) < scene_entropy()
    assert f"an entropy of {scene_entropy():.2f} nats" in text
    for found, digits in ((tells, 2), (costs, 1)):
        low, high = found["over_trainings"]
        assert f"{found['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" in text
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    least = fmean(all_against_the_best_writer(table))
    assert (
        f"holds {scene_entropy():.2f} nats of information, and at least {least:.2f} of them get into the words"
        in readme
    )


def test_what_a_photo_tells_is_quoted_from_the_table():
    table = json.loads((ROOT / "notebooks" / "results" / "trainings-photo.json").read_text(encoding="utf-8"))["scores"]
    text = " ".join((ROOT / "docs" / "real_photos.md").read_text(encoding="utf-8").split())
    for name, digits in (("picture_tells_per_caption", 2), ("picture_tells_per_token", 2),
                         ("wrong_picture_costs_per_caption", 1), ("cider", 3)):  # fmt: skip
        low, high = table[name]["over_trainings"]
        assert f"{table[name]['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" in text, name


def test_scenes_that_nothing_showed_before_are_quoted_from_the_table():
    scenes = json.loads((ROOT / "notebooks" / "results" / "new-scenes.json").read_text(encoding="utf-8"))["scenes"]
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    everything, before, new = (scenes[kind] for kind in ("all", "in the pretraining", "in neither"))
    assert f"Of all {everything['pictures']} test pictures, {mean_share(everything)} get a caption" in text
    assert f"had shown {before['pictures']} of these {everything['pictures']} scenes" in text
    assert re.search(
        rf"\[the {new['pictures']}\]\([\w/.-]+\) that neither .* had shown, {mean_share(new)} are right", text
    )


def mean_share(scenes: dict) -> str:
    """Return the mean share of right captions over the trainings: "97 %"."""
    return f"{100 * sum(scenes['right']) / len(scenes['right']) / scenes['pictures']:.0f} %"
