"""Captions files as found in practice, and splits that keep all captions of an image together."""

import csv
import gzip
import io
import os
import re

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.captions.read import read_captions, read_text
from helpers.captions.splits import read_splits, split_by_image
from helpers.errors import UserError

KAGGLE = """image_name| comment_number| comment
1000092795.jpg| 0| Two young guys with shaggy hair look at their hands .
1000092795.jpg| 1| Two men &amp; a dog .
2199200615.jpg| 3| A dog | a cat .
2199200615.jpg| 4   A dog runs across the grass .
2199200615.jpg| 5|
2199200615.jpg| 6| The "white out" and the ""green"" sign .
"""
in_a_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
names = st.lists(st.text("abcdé0-9_. /", min_size=1, max_size=12), min_size=1, max_size=60, unique=True)


@pytest.fixture
def file(tmp_path):
    def write(content: str | bytes, name: str = "captions.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def table(image_names, **columns):
    return pd.DataFrame({"image_name": list(image_names), "caption": "a dog", **columns})


def test_kaggles_layout_with_its_broken_row(file):
    captions, left_out = read_captions(file(KAGGLE))
    assert list(captions.columns) == ["image_name", "caption"]
    assert captions.caption.tolist() == [
        "Two young guys with shaggy hair look at their hands .",
        "Two men & a dog .",
        "A dog | a cat .",
        'The "white out" and the "green" sign .',
    ]
    assert left_out.row.tolist() == [3, 4]  # data rows, as pandas counts them: the broken row in Kaggle's file is 19999
    assert left_out.reason.tolist() == ["not as many fields as the header", "empty caption"]
    assert left_out.text[0] == "2199200615.jpg| 4   A dog runs across the grass ."


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content.replace(b"\n", b"\n\n"),
        lambda content: content.rstrip(b"\n"),
        gzip.compress,
    ],
    ids=["BOM", "CRLF", "CR", "blank lines", "no last line end", "gzip"],
)
def test_the_bytes_around_the_rows_change_nothing(file, change):
    plain, changed = read_captions(file(KAGGLE)), read_captions(file(change(KAGGLE.encode()), "changed"))
    assert [part.to_dict() for part in plain] == [part.to_dict() for part in changed]


@pytest.mark.parametrize("header", ["image,caption", '"filename","text"', "Image_Name , Comment", "file_name;text"])
def test_ones_own_two_columns(file, header):
    delimiter = ";" if ";" in header else ","
    captions, left_out = read_captions(file(f'{header}\nfoto ü.jpg{delimiter} "A dog, {delimiter} ""Rex""."\n'))
    assert captions.to_dict("records") == [{"image_name": "foto ü.jpg", "caption": f'A dog, {delimiter} "Rex".'}]
    assert left_out.empty


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"b.jpg", "not as many fields as the header"),
        (b",a dog", "no image name"),
        (b"b.jpg,&nbsp; .", "empty caption"),
        (b"b.jpg,caf\xe9", "not UTF-8, but perhaps Windows' cp1252: save the file as UTF-8"),
        (b"b.jpg,caf\x81", "not UTF-8"),
        (b'b.jpg,"a dog', "an unclosed quote runs into the next row"),
        (b'"b,c.jpg",a "dog", fast', "more fields than the header: put quotes around a text that holds the separator"),
        (b"b,c.jpg,a dog", "more fields than the header: put quotes around a text that holds the separator"),
        (b'b.jpg,"' + b"a dog " * 50_000 + b'"', "a field of more than 131,072 characters"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_left_out(file, row, reason):
    captions, left_out = read_captions(file(b"image,caption\na.jpg,a dog\n" + row + b"\n"))
    assert captions.image_name.tolist() == ["a.jpg"]
    assert left_out[["row", "reason"]].values.tolist() == [[1, reason]]
    left_out.to_csv(io.BytesIO())  # the text of any row can be saved


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\n\2", "no text in UTF-8"),
        (b"PK\3\4\n", "is packed .zip archive"),
        ("image,caption\na.jpg,a dog".encode("utf-16"), "is UTF-16 and no text in UTF-8: save it as UTF-8"),
        ("image,caption\na.jpg,a dog".encode("utf-16-le"), "is UTF-16 and no text in UTF-8: save it as UTF-8"),
        (b'{"images": []}', "it has no rows"),
        (b'{"pictures": 1}', "has the fields pictures, but needs a column named image_name"),
        (b"[1, 2]", "is JSON, but holds no captions in a form that is known"),
        (b'{"images": [', "is no whole JSON"),
        (b"[" * 200_000, "is JSON nested too deep to be read"),
        (b'{"images": [{"file_name": "a.jpg"}], "annotations": []}', "is not in COCO's form"),
        (b'{"images": [{"filename": "a.jpg"}]}', "its image 0 needs a filename and sentences"),
        (b"c," * 1_000_000 + b"\n", "begins with a line of 100,000 characters or more"),
        (b"<!DOCTYPE html>\n<html>", "begins with '<!DOCTYPE"),
        (b"a.jpg,a dog\n", "begins with 'a.jpg,a dog'"),
        (b"image,caption\n", "no rows"),
        (b"image,caption\na.jpg,\n", "row 0: empty caption"),
        (gzip.compress(b"image,caption\na.jpg,a dog\n", mtime=0)[:-9], "cannot be read"),
        (b'image,caption\na.jpg,"' + b"a dog " * 50_000, "row 0: a field of more than 131,072 characters"),
    ],
)
def test_a_file_of_another_kind_gets_one_clear_line(file, content, message):
    path = file(content)
    with pytest.raises(UserError, match=message) as caught:
        read_captions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_captions(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read_captions(tmp_path / "results.csv")


def test_a_pipe_in_place_of_a_file(tmp_path):
    os.mkfifo(tmp_path / "captions.csv")
    for read in (read_captions, read_splits, read_text):
        with pytest.raises(
            UserError, match=r"cannot be read as a table of captions: it is a pipe or device; give a CSV"
        ):
            read(tmp_path / "captions.csv")


@in_a_folder
@given(st.binary(max_size=300))
def test_wild_bytes_give_captions_or_a_user_error(file, content):
    for before in (b"", b"image_name| comment_number| comment\n", b"image,caption\n"):
        try:
            captions, _ = read_captions(file(before + content))
        except UserError:
            continue
        assert captions.caption.str.strip().all()


@in_a_folder
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=40), min_size=1, max_size=9))
def test_what_a_csv_writer_wrote_is_read_back(file, texts):
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("image", "caption"), *((f"{i}.jpg", f"x{text}") for i, text in enumerate(texts))])
    captions, left_out = read_captions(file(stream.getvalue()))
    assert left_out.empty
    assert len(captions) == len(texts)
    for text, caption in zip(texts, captions.caption, strict=True):
        if "&" not in text and '""' not in text:
            assert caption == " ".join(f"x{text}".split())


def test_the_real_captions(shared_data):
    captions, left_out = read_captions(shared_data / "flickr30k-captions.csv.gz")
    assert (len(captions), len(left_out)) == (142_805, 0)
    assert not captions.caption.str.contains("&amp;").any()
    assert set(split_by_image(captions).split) == {"train", "val", "test"}


@given(names, st.integers(0, 9))
def test_no_image_stands_in_two_splits(image_names, seed):
    split = split_by_image(table(image_names * 3), seed=seed)
    assert (split.groupby("image_name").split.nunique() == 1).all()
    assert len(split) == 3 * len(image_names)


@given(names, names)
def test_added_images_move_none(before, added):
    everything = table(dict.fromkeys([*added, *before]))
    old, new = (split_by_image(part).set_index("image_name").split for part in (table(before), everything))
    assert (new[old.index] == old).all()


def test_shares_and_seeds():
    captions = table(f"{i}.jpg" for i in range(5000))
    shares = split_by_image(captions, val=0.2, test=0.1).split.value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.7, "val": 0.2, "test": 0.1}, abs=0.02)
    assert (split_by_image(captions, seed=1).split != split_by_image(captions).split).any()
    assert set(split_by_image(captions, val=0, test=0).split) == {"train"}
    with pytest.raises(UserError, match="below 1"):
        split_by_image(captions, val=0.5, test=0.5)


def test_a_file_of_ones_own_with_karpathys_column(file):
    captions, _ = read_captions(file("image,split,text\na,restval,a dog\na,train,a cat\nb,test,a cow\nc,val,a hen\n"))
    assert split_by_image(captions).split.tolist() == ["train", "train", "test", "val"]


def test_a_splits_file(file):
    path = file("image_name,split\na,train\nb,test\nz,val\n")
    split = split_by_image(table("aab", split="val"), path)  # the file overrides the captions' own column
    assert split.split.tolist() == ["train", "train", "test"]
    with pytest.warns(UserWarning, match="2 images have no split in .* such as c"):
        assert split_by_image(table("abccd"), path).image_name.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,left\n", "'left'; a split is one of train, restval, val (or validation, valid, dev), test"),
        ("a,train\na,test\n", "puts a into train and test"),
        ("x,train\n", "names no image of the captions"),
        ("", "no rows"),
        ("a\n", "without its fields"),
    ],
)
def test_splits_that_are_wrong(file, rows, message):
    with pytest.raises(UserError, match=re.escape(message)):
        split_by_image(table("ab"), file("image_name,split\n" + rows))
