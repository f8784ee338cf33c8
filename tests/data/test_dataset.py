"""Names in a captions file find their pictures however they are written; if none does, the first reason is said."""

import os
import unicodedata

import pytest

from helpers.data.dataset import open_data
from helpers.data.images import picture_path
from helpers.errors import UserError


@pytest.fixture
def photos(tmp_path):
    """A folder with a.jpg, sub/b.jpg and an accent spelt as macOS spells it."""
    folder = tmp_path / "home" / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg", "cafe\u0301.jpg", "notes.txt", ".hidden.jpg"):
        (folder / name).touch()
    return folder


@pytest.fixture
def opened(photos, tmp_path):
    """Open the folder with captions of these names."""

    def open_names(*names, images=photos, **choices):
        rows = "".join(f'"{name}",a dog\n' for name in names)
        (tmp_path / "captions.csv").write_text(f"image,caption\n{rows}", encoding="utf-8")
        return open_data(images, tmp_path / "captions.csv", **choices)

    return open_names


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("sub//b.jpg", "sub/b.jpg"),
        ("sub\\b.jpg", "sub/b.jpg"),
        (".\\sub\\b.jpg", "sub/b.jpg"),
        ("photos/a.jpg", "a.jpg"),
        ("home/photos/sub/b.jpg", "sub/b.jpg"),
        ("{}/a.jpg", "a.jpg"),
        ("~/photos/a.jpg", "a.jpg"),
        ("caf\u00e9.jpg", "caf\u00e9.jpg"),
        ("cafe\u0301.jpg", "cafe\u0301.jpg"),
    ],
)
def test_a_name_finds_its_picture(opened, photos, name, found, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.parent))
    data = opened(name.format(photos))
    assert data.image_names() == [found]
    assert picture_path(data.images, found).exists()
    file = unicodedata.normalize("NFD", found)
    assert data.uncaptioned == sorted({"a.jpg", "cafe\u0301.jpg", *(["sub/b.jpg"] if "b" in name else [])} - {file})


def test_two_spellings_are_one_picture(opened):
    data = opened("a.jpg", "./a.jpg", "photos/a.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg", "gone.jpg")
    assert data.captions.image_name.tolist() == ["a.jpg"] * 3 + ["caf\u00e9.jpg"] * 2 + ["gone.jpg"]


def test_the_folder_below_home(opened, photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.parent))
    assert opened("a.jpg", images="~/photos").images == photos


def test_links_are_followed_only_if_asked_for(opened, photos, tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    (links / "a.jpg").symlink_to(photos / "a.jpg")
    (links / "sub").symlink_to(photos / "sub")
    names = ("a.jpg", "sub/b.jpg")
    with pytest.raises(
        UserError, match=r"none of the 2 pictures in .*links can be used: image name 'a.jpg' is a link out"
    ):
        opened(*names, images=links)
    data = opened(*names, images=links, follow_links=True)
    assert [picture_path(data.images, name).exists() for name in names] == [True, True]
    (photos / "inside.jpg").symlink_to("a.jpg")
    assert opened("inside.jpg").image_names() == ["inside.jpg"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.jpg", None),
        ("A.JPG", r"A.JPG is missing, but a.jpg is there: write the names in the captions file as the files' names"),
        ("a", r"a is missing, but a.jpg is there"),
        ("b.jpg", r"b.jpg is missing, but .*sub holds b.jpg: give that folder"),
        ("dangling.jpg", r"is a link to nowhere.jpg, which is not there: fetch that file"),
        ("../a.jpg", r"image name '../a.jpg' leads out of its folder"),
        ("/etc/a.jpg", r"image name '/etc/a.jpg' leads out of its folder"),
    ],
)
def test_the_first_real_reason(opened, photos, name, reason):
    (photos / "dangling.jpg").symlink_to("nowhere.jpg")
    if reason is None:  # the embedding cache says so, or has them already
        assert opened(name).image_names() == [name]
        return
    with pytest.raises(UserError, match=reason):
        opened(name, "other.jpg")
    assert opened(name, "caf\u00e9.jpg").image_names() == [name, "caf\u00e9.jpg"]


def test_a_file_name_that_is_not_utf8(opened, photos):
    (photos / os.fsdecode(b"caf\xe9.jpg")).touch()
    assert opened("a.jpg").uncaptioned[-1] == "caf\udce9.jpg"
