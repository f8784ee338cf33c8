"""Your own photos and captions: the README's lines turn a folder and a CSV of two columns into a captioner."""

import shutil

import pandas as pd
import pytest

from helpers.data.build_cache import open_cache
from helpers.data.dataset import open_data
from helpers.data.images import open_picture
from helpers.errors import UserError
from helpers.presets import preset
from helpers.training.loop import train_or_load


@pytest.fixture
def own(tmp_path, data):
    """A user's photos and CSV, with a picture without a caption, a caption without a picture, and a text file."""
    photos = tmp_path / "my_photos"
    shutil.copytree(data.images, photos)
    table = data.captions[["image_name", "caption"]].rename(columns={"image_name": "image"})
    table.loc[len(table)] = ["gone.jpg", "A dog that was never photographed."]
    table.loc[len(table)] = ["notes.jpg", "A note."]
    table.loc[len(table)] = [table.image[0], " "]
    table.to_csv(tmp_path / "my_captions.csv", index=False)
    (photos / "notes.jpg").write_text("not a picture")
    (photos / "new.png").write_bytes((photos / table.image[0]).read_bytes())
    (photos / ".DS_Store").write_text("")
    return photos, tmp_path / "my_captions.csv"


def test_the_ten_lines_of_the_readme(own, tmp_path):
    data = open_data(*own)
    assert data.uncaptioned == ["new.png"]
    assert list(data.left_out.reason) == ["empty caption"]
    assert data.facts is None

    config = preset("tiny").with_values(epochs=1, mapper_layers=1)
    cache = open_cache(data, config, tmp_path / "embeddings")
    assert sorted(cache.left_out.image_name) == ["gone.jpg", "notes.jpg"]
    run, writer = train_or_load(config, data, cache, out=tmp_path / "run")
    (caption,) = writer.write(writer.embed([open_picture(own[0] / "new.png")]))
    assert caption
    history = run.history()

    again, its_writer = train_or_load(config, data, cache, out=tmp_path / "run")  # reused, not trained again
    pd.testing.assert_frame_equal(again.history(), history)
    assert its_writer.write(cache.rows(cache.image_names[:3])) == writer.write(cache.rows(cache.image_names[:3]))


def test_a_folder_that_is_none(own, tmp_path):
    with pytest.raises(UserError, match="nowhere is no folder: give the folder that holds the pictures"):
        open_data(tmp_path / "nowhere", own[1])
