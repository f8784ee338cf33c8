"""The captioner of photos that ships with the project: it answers without a flag and is what its card says."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.cli import main
from helpers.data.dataset import open_data
from helpers.data.images import open_picture
from helpers.evaluation.scores import measure
from helpers.models.loading import load_encoder, load_gpt2
from helpers.models.writer import CaptionWriter
from helpers.runtime.model_folders import PHOTO
from helpers.words.people import neutral, people_named

ROOT = Path(__file__).parents[1]
PHOTOS = sorted((ROOT / "notebooks" / "photos").glob("*.jpg"))
CARD = (PHOTO / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def writer() -> CaptionWriter:
    return CaptionWriter.load("photo")


@pytest.fixture(scope="module")
def strange(data) -> list[Image.Image]:
    """Pictures that no camera took: drawn scenes and noise."""
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)) for _ in range(5)]
    return noise + [open_picture(data.images / name) for name in data.image_names()[:20]]


def test_it_is_small():
    files = [path for path in PHOTO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}


def test_predict_needs_no_flag(capsys):
    main(["predict", *map(str, PHOTOS)])
    lines = capsys.readouterr().out.splitlines()
    captions = [line.split(": ", 1)[1] for line in lines]
    assert [line.split(": ", 1)[0] for line in lines] == list(map(str, PHOTOS))
    assert all(3 <= len(caption.split()) <= 30 for caption in captions)
    assert len(set(captions)) >= 6


def test_a_picture_of_another_kind_is_called_so(writer, strange):
    assert np.mean(writer.unlike_training(writer.embed(strange))) >= 0.8
    pictures = {path.stem: open_picture(path) for path in PHOTOS}
    unlike = dict(zip(pictures, writer.unlike_training(writer.embed(list(pictures.values()))), strict=True))
    assert not unlike["astronaut"]  # a person, as in most of Flickr8k's photos
    assert unlike["coffee"]  # it was never shown a cup from above


ODD = {
    "one pixel": Image.new("RGB", (1, 1), "red"),
    "gray": Image.new("L", (300, 200), 90),
    "cmyk": Image.new("CMYK", (300, 200), (10, 200, 30, 0)),
    "16 bits": Image.fromarray(np.full((200, 300), 30_000, dtype=np.uint16)),
    "transparent": Image.new("RGBA", (300, 200), (255, 0, 0, 0)),
    "palette": Image.new("P", (300, 200)),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_pictures_get_a_caption(kind, tmp_path, capsys):
    path = tmp_path / ("it.jpg" if kind == "cmyk" else "it.png")
    ODD[kind].save(path)
    main(["predict", str(path)])
    assert len(capsys.readouterr().out.split()) >= 3


def test_a_picture_too_large_costs_only_its_own_caption(tmp_path, capsys):
    Image.new("L", (20_000, 20_000)).save(tmp_path / "large.png")
    with pytest.raises(SystemExit) as end:
        main(["predict", str(tmp_path / "large.png"), str(PHOTOS[0])])
    assert end.value.code == 2
    told = capsys.readouterr()
    assert "large.png has too many pixels; at most 89,478,485 are read, so make it smaller" in told.err
    assert told.out.count(str(PHOTOS[0])) == 1


def test_its_parts_load_by_the_same_name(writer):
    encoder, (gpt2, tokenizer) = load_encoder("photo", pooling="stages"), load_gpt2("photo")
    pictures = [open_picture(path) for path in PHOTOS[:2]]
    assert encoder.embed(pictures).equal(writer.embed(pictures))
    assert gpt2.transformer.wte.weight.equal(writer.captioner.gpt2.transformer.wte.weight)
    assert len(tokenizer) == gpt2.config.vocab_size


def test_a_training_goes_on_from_it(data, tmp_path, capsys):
    photos = ["--images", str(data.images), "--captions", str(data.images.with_name("results.csv"))]
    main(["train", "--preset", "photo", "--start-from", "photo", *photos, "--batch-size", "32", "--max-steps", "2",
          "--out", str(tmp_path / "run")])  # fmt: skip
    assert "stopped after 2 of" in capsys.readouterr().err
    again = CaptionWriter.load(tmp_path / "run")
    assert again.captioner.config.mapper == "mlp"
    assert len(again.tokenizer) == len(load_gpt2("photo")[1])


def test_the_card_has_the_scores_that_were_measured_and_the_command_that_rebuilds_it():
    results = json.loads((ROOT / "benchmarks" / "results" / "photo-test.json").read_text())
    shipped = next(iter(results["arms"].values()))
    for name, score in (("CIDEr", "cider"), ("BLEU-4", "bleu_4")):
        low, high = shipped[f"{score}_95_interval"]
        assert re.search(rf"\| {name} \| {shipped[score]:.3f} \[{low:.3f}, {high:.3f}\] \|", CARD), name
    assert "make photo FLICKR8K=" in CARD
    assert re.search(r"^photo: ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_card_has_the_shares_that_were_measured_of_people_and_invented_things():
    trainings = json.loads((ROOT / "notebooks" / "results" / "people.json").read_text())["trainings"]
    rows = re.findall(r"^\| [^|]* \| (\d+) % \[(\d+), (\d+)\] \|$", CARD, re.MULTILINE)
    shares = [
        tuple(f"{100 * value:.0f}" for value in (found["of_each"][0], *found["first_over_pictures"]))
        for name, found in trainings.items() if name != "object_mentions_invented"
    ]  # fmt: skip
    assert rows == shares
    assert "## Do not use it" in CARD


def test_neutral_captions_are_the_same_in_other_words(capsys):
    said = []
    for flags in ([], ["--neutral"], ["--neutral", "--beams", "2"]):
        main(["predict", str(ROOT / "notebooks" / "photos" / "flower.jpg"), *flags])
        said.append(capsys.readouterr().out.strip())
    assert people_named(said[0]) & {"woman", "man"}
    assert said[1] == neutral(said[0])
    assert not people_named(said[2]) & {"woman", "man"}


def test_it_knows_which_photos_it_was_trained_on(writer, shared_data):
    data = open_data(*(shared_data / "flickr8k" / name for name in ("Images", "captions.txt", "splits.csv")))

    def hashes(split) -> list[str]:
        names = data.image_names(split)[:300]
        return [hashlib.sha256((data.images / name).read_bytes()).hexdigest()[:16] for name in names]

    assert len(writer.trained_on) == len(data.image_names("train")) == 5705
    assert writer.trained_on.issuperset(hashes("train"))
    assert len(writer.trained_on.intersection(hashes("val") + hashes("test"))) <= 1  # a photo that is there twice


def test_it_describes_photos_that_it_has_not_seen(writer, shared_data):
    data = open_data(*(shared_data / "flickr8k" / name for name in ("Images", "captions.txt", "splits.csv")))
    names = data.image_names("val")[:100]
    embeddings = writer.embed([open_picture(data.images / name) for name in names])
    written = writer.write(embeddings)
    references = data.captions.groupby("image_name").caption.apply(list)
    scores = measure(written, [references[name] for name in names], meteor=False)
    assert scores.measured["cider"].value > 0.35
    assert len(set(written)) >= 60
    assert np.mean(writer.unlike_training(embeddings)) <= 0.08
