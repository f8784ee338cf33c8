"""The commands as a user runs them, and what each says to a mistake: one line, exit status 2, no traceback."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from helpers.cli import main
from helpers.models.loading import TINY
from helpers.training.run import Run

CONFIG = ["--preset", "tiny", "--mapper-layers", "1", "--epochs", "2", "--batch-size", "32", "--eval-every", "4",
          "--log-every", "3", "--dropout", "0.1"]  # fmt: skip


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


def test_embed_train_resume_and_evaluate(run, photos, world, tmp_path, finished):
    status, said, _ = run("embed", *photos, "--clip", "tiny", "--out", "cache")
    assert (status, said) == (0, "60 embeddings lie in cache\n")
    train = ("train", *CONFIG, *photos, "--cache", "cache", "--out", "run")
    status, _, progress = run(*train, "--max-steps", 5)
    assert status == 0
    assert "plan: 16 steps of " in progress
    assert "stopped after step 5 of 16, because the 5 steps of this session are done; 11 steps remain, " in progress
    assert run(*train, "--resume")[0] == 0
    assert list(Run(tmp_path / "run").history().loss) == list(finished.history().loss)
    status, _, progress = run(*train, "--resume")
    assert "run is finished: all 16 steps are done" in progress

    evaluate = ("evaluate", "--captioner", "run/captioner", *photos)
    status, said, _ = run(*evaluate, "--split", "val", "--out", "scores")
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert status == 0
    assert all(name in said for name in metrics if not name.endswith("_95_interval") and name != "not_measured")
    assert {"correct", "correct_shuffled", "gain"} <= metrics.keys()
    names = pd.read_csv(world / "results.csv", sep="|").image_name.unique()
    pd.DataFrame({"image_name": names, "split": ["test"] * 30 + ["train"] * 30}).to_csv("splits.csv", index=False)
    control = ("--shuffle-embeddings", "--beams", 2, "--guidance", 1.5, "--out", "control")
    status, _, _ = run(*evaluate, "--splits", "splits.csv", *control)
    metrics = json.loads((tmp_path / "control" / "metrics.json").read_text())
    assert (status, metrics["images"], metrics["embeddings"]) == (0, 30, "shuffled")
    assert metrics["decoding"] == "2 beams, guidance 1.5"
    assert list(pd.read_csv("control/captions.csv").image_name) == list(names[:30])


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


def test_images_without_a_split_are_counted_in_one_plain_line(run, photos, world, finished, tmp_path):
    (tmp_path / "splits.csv").write_text("image_name,split\nscene-00000.png,test\nscene-00001.png,test\n")
    status, _, said = run(
        "evaluate", "--captioner", finished.captioner, *photos, "--splits", "splits.csv", "--out", "o"
    )
    assert status == 0
    assert "clipxgpt: 58 images have no split in splits.csv and are left out, such as scene-00002.png\n" in said
    assert "Warning" not in said


def test_a_report_lies_where_it_says_and_only_of_a_run(run, refused, finished, tmp_path):
    status, said, _ = run("report", finished.folder, "--out", "made/report.html")
    assert (status, said) == (0, "the report lies in made/report.html\n")
    assert (tmp_path / "made" / "report.html").read_text().startswith("<!doctype html>")
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
        ([], "the following arguments are required: COMMAND; see clipxgpt --help"),
        (["fly"], "argument COMMAND: invalid choice: 'fly' (choose from "),
        (["draw"], "the following arguments are required: --out; see clipxgpt draw --help"),
        (["draw", "--out", "w", "--images", "0"], "images is 0, but a world needs at least 1 picture"),
        (["draw", "--out", "w", "--images", "many"], "argument --images: invalid int value: 'many'; see clipxgpt draw"),
        (["train", "--out", "r", "--preset", "huge"], "argument --preset: invalid choice: 'huge' (choose from "),
        (
            ["train", "--out", "r", "--preset", "tiny", "--mapper", "cnn"],
            "mapper is 'cnn', but must be one of mlp, enc",
        ),
        (["train", "--out", "r", "--preset", "tiny", "--epochs", "0"], "epochs is 0, but must be at least 1"),
        (["train", "--out", "r", "--preset", "tiny", "--seed", "-1"], "seed is -1, but must be between 0 and"),
        (["train", "--out", "r", "--preset", "tiny", "--images", "d"], "--images and --captions belong together"),
        (["train", "--out", "r", "--preset", "small"], "preset small trains on photos of your own: give --images DIR"),
        (
            ["train", "--out", "r", "--preset", "tiny", "--lr", "1"],
            "unrecognized arguments: --lr 1; see clipxgpt --help",
        ),
        (
            ["predict", "-I", "a", "-T", "-1"],
            "temperature is -1.0 and top_p is 1.0, but temperature must be 0 (greedy)",
        ),
        (["predict", "-I", "a", "--beams", "0"], "beams is 0"),
        (["predict", "-I", "a", "--guidance", "0"], "guidance is 0.0, but must be above 0 and finite; 1 is off"),
        (["predict", "-I", "a", "-C", "nowhere"], "nowhere holds no captioner: give the `captioner` folder of a run"),
        (
            ["predict", "-I", "a"],
            "runs/tiny/captioner holds no captioner: give the `captioner` folder of a run, or train",
        ),
        (["ablate", "--vary", "colour=1", "--out", "a.csv"], "--vary colour=1: colour is no field of the config"),
    ],
)
def test_a_wrong_flag(refused, arguments, says, tmp_path):
    assert refused(*arguments).startswith(says)
    assert not list(tmp_path.iterdir())


COMMANDS = {
    "embed": ["embed", "--clip", "tiny", "--out", "out"],
    "train": ["train", *CONFIG, "--out", "out"],
    "pretrain": ["pretrain", "--out", "out"],
    "evaluate": ["evaluate", "--out", "out", "--captioner"],
}


@pytest.mark.parametrize("name", COMMANDS)
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
    assert refused(*COMMANDS[name], *more, "--images", images, "--captions", captions).startswith(says)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_of_pictures(refused, world, finished, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("embed", "train", "evaluate"):
        more = [finished.captioner, "--split", "val"] if name == "evaluate" else []
        photos = ["--images", "empty", "--captions", world / "results.csv"]
        assert refused(*COMMANDS[name], *more, *photos).startswith("empty has none of the ")


def test_a_captioner_a_clip_or_a_cache_of_another_kind(refused, run, photos, finished, tiny_clip, cache, tmp_path):
    assert "is a model of type gpt2, but a captioner" in refused("predict", "-I", "a.png", "-C", TINY / "gpt2")
    assert refused("predict", "-I", "a.png", "-C", finished.folder).startswith(f"{finished.folder} holds no captioner")
    assert "is a model of type gpt2, but a CLIP" in refused("embed", *photos, "--clip", TINY / "gpt2", "--out", "o")
    assert refused("embed", *photos, "--clip", "./no", "--out", "o").startswith("./no is no folder; give the folder of")
    shutil.copytree(cache.folder, tmp_path / "cache")
    said = refused("train", *CONFIG, *photos, "--clip", tiny_clip, "--cache", "cache", "--out", "o")
    assert said.startswith("cache holds embeddings of tiny")
    assert "give the cache another folder, or use the CLIP that made it" in said
    assert "is no embeddings" not in said
    cut = shutil.copytree(finished.captioner, tmp_path / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:100_000])
    assert refused("predict", "-I", "a.png", "-C", "cut").startswith("no captioner can be loaded from cut (")


def test_a_taken_run_folder_is_refused_before_anything_is_embedded(refused, photos, finished, tmp_path):
    assert "already holds a run: go on with it by --resume" in refused(
        "train", *CONFIG, *photos, "--out", finished.folder
    )
    assert not (finished.folder / "embeddings").exists()
    copy = shutil.copytree(finished.folder, tmp_path / "run")
    said = refused("train", *CONFIG, *photos, "--out", copy, "--resume", "--prefix-length", 5)
    assert "holds a run with prefix_length 4, here it is 5" in said


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


def test_a_split_that_is_empty_or_unknown(refused, photos, data, finished, tmp_path):
    evaluate = ["evaluate", "--captioner", finished.captioner, *photos, "--out", "out"]
    wanted = "no image is in split 'dev': give one or more of test,train,val, the splits of"
    assert refused(*evaluate, "--split", "dev").startswith(wanted)
    assert refused(*evaluate, "--split", "test,dev").startswith(wanted)
    rows = [f"{name},train" for name in data.image_names()]
    (tmp_path / "splits.csv").write_text("\n".join(["image_name,split", *rows]))
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


def test_facts_of_another_world(refused, photos, world, tmp_path):
    shutil.copy(world / "results.csv", tmp_path)
    facts = json.loads((world / "facts.json").read_text())
    del facts["scene-00007.png"]
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    said = refused("embed", *photos[:2], "--captions", "results.csv", "--clip", "tiny", "--out", "o")
    assert said.startswith("facts.json lacks the facts of 1 images, such as scene-00007.png: give captions of its own")


def test_a_reader_who_has_enough_is_no_mistake(run, monkeypatch):
    def closed(*_arguments):
        raise BrokenPipeError

    monkeypatch.setattr("helpers.data.scenes.draw_world", closed)
    assert run("draw", "--out", "w") == (0, "", "")


def test_ctrl_c_ends_in_one_line(run, monkeypatch):
    def interrupted(*_arguments):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("helpers.data.scenes.draw_world", interrupted)
    assert run("draw", "--out", "w") == (130, "", "clipxgpt: interrupted; run the same command again to go on\n")


def test_help_names_every_command_and_every_field_of_the_config(run):
    status, said, _ = run("--help")
    assert status == 0
    for name in ("draw", "pretrain", "embed", "train", "predict", "evaluate", "score", "ablate", "report", "notebooks"):
        assert re.search(rf"^    {name}\s", said, re.MULTILINE)
        assert run(name, "--help")[0] == 0
    assert "--prefix-length INT" in run("train", "--help")[1]
