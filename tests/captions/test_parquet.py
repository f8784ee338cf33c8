"""Parquet files as the hub has them, pictures inside included, and a word where pyarrow is missing."""

import io
import sys

import pytest
from PIL import Image

from helpers.captions.read import read_captions
from helpers.data.dataset import open_data
from helpers.data.images import open_picture
from helpers.errors import UserError


def jpeg(color: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), color).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def write(tmp_path):
    """Write a Parquet file of these columns."""
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install pyarrow")
    from pyarrow import parquet

    def write_columns(name: str, columns: dict):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table(columns), tmp_path / name)
        return tmp_path / name

    return write_columns


def test_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"c.parquet is Parquet, which needs pyarrow: pip install pyarrow"):
        read_captions(tmp_path / "c.parquet")


def test_flickr8k_of_the_hub(write, tmp_path):
    for split in ("train", "validation", "test"):
        image = [{"bytes": jpeg("red"), "path": f"{split}{number}.jpg"} for number in range(2)]
        captions = {f"caption_{number}": [f"A dog {number} .", "A cat ."] for number in range(5)}
        write(f"data/{split}-00000-of-00001.parquet", {"image": image, **captions})
    data = open_data(tmp_path / "pictures", tmp_path / "data")
    assert data.captions.groupby("split").size().to_dict() == {"test": 10, "train": 10, "val": 10}
    assert data.captions.iloc[0].tolist() == ["test0.jpg", "A dog 0 .", "test"]
    assert open_picture(data.images / "train1.jpg").getpixel((4, 4))[0] > 250
    assert data.uncaptioned == []
    before = (data.images / "train1.jpg").stat().st_mtime_ns
    assert open_data(tmp_path / "pictures", tmp_path / "data").captions.equals(data.captions)
    assert (data.images / "train1.jpg").stat().st_mtime_ns == before


def test_flickr30k_of_the_hub(write, tmp_path):
    columns = {
        "image": [{"bytes": jpeg(color), "path": None} for color in ("red", "blue")],
        "caption": [["A dog .", "A puppy ."], ["A cat ."]], "sentids": [["0", "1"], ["2"]],
        "split": ["train", "val"], "img_id": ["0", "1"], "filename": ["1000092795.jpg", "10002456.jpg"],
    }  # fmt: skip
    data = open_data(tmp_path / "pictures", write("test-00000-of-00009.parquet", columns))
    assert data.captions[["image_name", "split", "caption"]].to_numpy().tolist() == [
        ["1000092795.jpg", "train", "A dog ."],
        ["1000092795.jpg", "train", "A puppy ."],
        ["10002456.jpg", "val", "A cat ."],
    ]
    columns["filename"] = ["../evil.jpg", "b.jpg"]
    with pytest.raises(UserError, match=r"holds a picture named '../evil.jpg', which leads out of its folder"):
        open_data(tmp_path / "other", write("evil.parquet", columns))
    columns["filename"] = ["10002456.jpg", "b.jpg"]
    columns["image"][0]["bytes"] += b"more"
    file = write("more.parquet", columns)
    with pytest.raises(UserError, match=r"10002456.jpg is another picture than the one inside"):
        open_data(tmp_path / "pictures", file)


def test_pictures_without_a_name_and_a_file_without_pictures(write, tmp_path):
    data = open_data(tmp_path / "one", write("plain.parquet", {"img": [jpeg("red")] * 2, "text": ["x", "y"]}))
    assert data.image_names() == ["plain-000000", "plain-000001"]
    file = write("names.parquet", {"image": ["plain-000001"], "text": ["z"]})
    assert open_data(tmp_path / "one", file).captions.caption.tolist() == ["z"]
    with pytest.raises(UserError, match="is no folder: give the folder that holds the pictures"):
        open_data(tmp_path / "new", file)


def test_broken_files(write, tmp_path):
    whole = write("whole.parquet", {"image": ["a.jpg"] * 99, "text": ["x"] * 99}).read_bytes()
    for place, content in enumerate([whole[:-20], b"", b"PAR1", whole[:50] + bytes(60) + whole[110:]]):
        file = tmp_path / f"{place}.parquet"
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"cannot be read as Parquet \(.*\); download it again"):
            read_captions(file)
    with pytest.raises(UserError, match="has the columns a, but needs a column named image_name"):
        read_captions(write("other.parquet", {"a": ["b"]}))


def test_splits_that_folders_say(write, tmp_path):
    """The hub converts every data set to such a layout."""
    for split in ("train", "partial-validation", "test"):
        write(f"all/default/{split}/0000.parquet", {"image": [f"{split}.jpg"], "text": ["x"]})
    captions, _ = read_captions(tmp_path / "all")
    found = dict(zip(captions.image_name, captions.split, strict=True))
    assert found == {"train.jpg": "train", "partial-validation.jpg": "validation", "test.jpg": "test"}


def test_pictures_of_one_name_are_told_apart_by_their_contents(write, tmp_path):
    red, blue = jpeg("red"), jpeg("blue")
    image = [{"bytes": each.ljust(max(map(len, (red, blue))), b"\0"), "path": "image.jpg"} for each in (red, blue)]
    file = write("c.parquet", {"image": image, "text": ["x", "y"], "id": ["a.jpg", "b.jpg"]})
    with pytest.raises(UserError, match=r"holds two pictures named image.jpg: say by --image-column NAME which column"):
        open_data(tmp_path / "one", file)
    data = open_data(tmp_path / "two", file, image_column="id")
    assert data.image_names() == ["a.jpg", "b.jpg"]
    assert open_picture(data.images / "b.jpg").getpixel((4, 4))[2] > 250
    other = write("other.parquet", {"image": image[:1], "text": ["x"], "id": ["b.jpg"]})
    with pytest.raises(UserError, match=r"b.jpg is another picture than the one inside"):
        open_data(tmp_path / "two", other, image_column="id")


def test_two_columns_of_pictures_are_refused(write, tmp_path):
    columns = {
        "image": [{"bytes": jpeg("red"), "path": "a.jpg"}], "depth": [{"bytes": jpeg("blue"), "path": "a.jpg"}],
        "text": ["x"],
    }  # fmt: skip
    file = write("c.parquet", columns)
    with pytest.raises(UserError, match="more than one column of pictures: image and depth; say which by --image-col"):
        open_data(tmp_path / "one", file)
    data = open_data(tmp_path / "two", file, image_column="depth")
    assert open_picture(data.images / "a.jpg").getpixel((4, 4))[2] > 250
    assert data.captions.image_name.tolist() == ["a.jpg"]
