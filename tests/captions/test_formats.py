"""Captions and splits in every format of docs/formats.md, each in the shape of a real file."""

import json
import re
from pathlib import Path

import pytest

from helpers.captions.read import read_captions, read_text
from helpers.captions.splits import read_splits, split_by_image
from helpers.errors import UserError

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")
KARPATHY = {
    "dataset": "flickr8k",
    "images": [
        {"sentids": [0, 1], "imgid": 0, "filename": "a.jpg", "split": "train", "sentences": [
            {"tokens": ["a", "dog"], "raw": "A dog .", "sentid": 0}, {"tokens": ["a", "puppy"], "sentid": 1}]},
        {"imgid": 1, "filename": "b.jpg", "split": "restval", "sentences": [{"raw": "A cat ."}]},
        {"imgid": 2, "filename": "c.jpg", "split": "val", "sentences": [{"raw": "A cow ."}, {"sentid": 4}]},
    ],
}  # fmt: skip
COCO = {
    "info": {"year": 2014},
    "images": [
        {"license": 5, "file_name": "COCO_val2014_000000000005.jpg", "coco_url": "http://…", "height": 9, "id": 5},
        {"file_name": "COCO_val2014_000000000007.jpg", "id": 7},
    ],
    "annotations": [
        {"image_id": 7, "id": 38, "caption": "A bike  replica.\n"}, {"image_id": 5, "id": 39, "caption": "A room."},
        {"image_id": 6, "id": 40, "caption": "Nothing."}, {"image_id": 5, "id": 41, "caption": None}, 3,
    ],
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    """Read a file with this content: [(image_name, caption)] and [(row, reason)]."""

    def write_and_read(content: object, name="captions.txt", **choices):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        captions, left_out = read_captions(path, **choices)
        pairs = list(captions[["image_name", "caption"]].itertuples(index=False, name=None))
        return pairs, list(left_out[["row", "reason"]].itertuples(index=False, name=None))

    return write_and_read


def examples(section: str) -> list[str]:
    """Return the examples of one table of the page that are whole files."""
    table = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    cells = [re.split(r"(?<!\\)\|", line)[2] for line in table.splitlines() if line.startswith("| ")]
    shown = [re.fullmatch(r" `([^`]*)` ", cell) for cell in cells]
    return [each[1].replace(r"\|", "|").replace("⏎", "\n").replace("⇥", "\t") for each in shown if each]


@pytest.mark.parametrize("example", examples("Captions"))
def test_the_examples_of_the_page(read, example):
    pairs, left_out = read(example)
    assert pairs[0][0] == "a.jpg"
    assert pairs[0][1].startswith("A dog")
    assert left_out == []


@pytest.mark.parametrize("example", examples("Splits"))
def test_the_examples_of_splits(tmp_path, example):
    (tmp_path / "splits").write_text(example)
    assert read_splits(tmp_path / "splits").image_name[0] == "a.jpg"


def test_the_page_has_an_example_of_each_kind():
    assert (len(examples("Captions")), len(examples("Splits"))) == (9, 2)


def test_flickrs_token_files(read):
    lines = "1000268201_693b08cb0e.jpg#0\tA child in a pink dress , smiling | waving .\n"
    lines += "2258277193_586949ec62.jpg.1#0\tPeople waiting .\nno tab\n36979.jpg#14\tA group .\n"
    assert read(lines, "Flickr8k.token.txt") == (
        [
            ("1000268201_693b08cb0e.jpg", "A child in a pink dress , smiling | waving ."),
            ("2258277193_586949ec62.jpg.1", "People waiting ."),
            ("36979.jpg", "A group ."),
        ],
        [(2, "no picture's name, #, number and tab before the caption")],
    )


def test_coco(read):
    pairs, left_out = read(COCO, "captions_val2014.json")
    assert pairs == [
        ("COCO_val2014_000000000007.jpg", "A bike replica."),
        ("COCO_val2014_000000000005.jpg", "A room."),
    ]
    unknown = "an image_id that is not among the images"
    assert left_out == [(2, unknown), (3, "the caption is no text"), (4, unknown)]


def test_karpathys_json_has_captions_and_splits(tmp_path, read):
    pairs, left_out = read(KARPATHY, "dataset_flickr8k.json")
    assert pairs == [("a.jpg", "A dog ."), ("a.jpg", "a puppy"), ("b.jpg", "A cat ."), ("c.jpg", "A cow .")]
    assert left_out == [(2, "the caption is no text")]
    captions, _ = read_captions(tmp_path / "dataset_flickr8k.json")
    assert split_by_image(captions).split.tolist() == ["train", "train", "train", "val"]


def test_karpathys_coco_lies_in_folders(tmp_path, read):
    image = {
        "filepath": "val2014",
        "filename": "COCO_val2014_5.jpg",
        "split": "test",
        "sentences": [{"raw": "A room."}],
    }
    assert read({"images": [image]}, "dataset_coco.json")[0] == [("val2014/COCO_val2014_5.jpg", "A room.")]
    captions, _ = read_captions(tmp_path / "dataset_coco.json")
    flat = captions.assign(image_name="COCO_val2014_5.jpg")  # the captions of COCO itself
    assert split_by_image(flat, tmp_path / "dataset_coco.json").split.tolist() == ["test"]


def test_records_of_json(read):
    lines = '{"file_name": "a.jpg", "text": "x"}\r\n\nbroken\n{"file_name": "b.jpg"}\n{"file_name": 7, "text": "y"}\n'
    assert read(lines, "metadata.jsonl") == (
        [("a.jpg", "x"), ("7", "y")],
        [(1, "no record of JSON"), (2, "empty caption")],
    )
    blip = [{"image": "val2014/a.jpg", "caption": ["x", "y", 3], "image_id": "coco_5"}]
    assert read(blip) == ([("val2014/a.jpg", "x"), ("val2014/a.jpg", "y")], [(0, "the caption is no text")])
    assert read('{"image": "a.jpg", "caption": "x"}\n') == ([("a.jpg", "x")], [])
    deep = '{"image": "a.jpg", "caption": "x"}\n' + "[" * 100_000
    assert read(deep) == ([("a.jpg", "x")], [(1, "no record of JSON")])
    half = r'[{"image": "a\ud800.jpg", "caption": "x"}, {"image": "b.jpg", "caption": "y"}]'
    assert read(half) == ([("b.jpg", "y")], [(0, "not UTF-8")])


def test_several_captions_in_a_row(read):
    assert read("file_name,caption_0,caption_1\na.jpg,x,y\nb.jpg,,z\nc.jpg,,\n") == (
        [("a.jpg", "x"), ("a.jpg", "y"), ("b.jpg", "z")],
        [(2, "empty caption")],
    )
    hub = 'raw,sentids,split,filename,img_id\n"[""x"", ""y, z""]","[0, 1]",train,a.jpg,0\n'
    assert read(hub, "flickr_annotations_30k.csv")[0] == [("a.jpg", "x"), ("a.jpg", "y, z")]
    python = """filename,captions\na.jpg,"['x', ""it's""]"\nb.jpg,"['x' 'y']"\nc.jpg,[a dog]\n"""
    assert read(python) == (
        [("a.jpg", "x"), ("a.jpg", "it's"), ("c.jpg", "[a dog]")],
        [(1, "a list without commas, as NumPy prints it: save the captions as JSON, or one per row")],
    )


@pytest.mark.parametrize("header", ["path,title", "Filepath;Description", "image path\tCaptions", "image-path,raw"])
def test_other_header_names(read, header):
    separator = re.search("[,;\t]", header)[0]
    assert read(f"{header}\na.jpg{separator}x\n")[0] == [("a.jpg", "x")]
    assert read(f"sep={separator}\r\n{header}\r\na.jpg{separator}x\r\n")[0] == [("a.jpg", "x")]


@pytest.mark.parametrize(
    ("content", "option", "column", "pairs"),
    [
        ("image,file_name,caption\n1,a.jpg,x\n", "--image-column", "file_name", [("a.jpg", "x")]),
        ("image,caption,comment\na.jpg,x,y\n", "--caption-column", "Comment", [("a.jpg", "y")]),
        ("image,caption,caption_0\na.jpg,x,y\n", "--caption-column", "caption", [("a.jpg", "x")]),
        ('{"path": "p", "image": "a.jpg", "text": "x"}\n', "--image-column", "image", [("a.jpg", "x")]),
        ("id,url,image\na.jpg,x,b.jpg\n", "", "url", [("b.jpg", "x")]),
    ],
)
def test_two_columns_that_may_be_meant_are_refused(read, content, option, column, pairs):
    choice = "image_column" if option == "--image-column" else "caption_column"
    if option:
        with pytest.raises(
            UserError, match=rf"more than one column that may hold the .* and .*; say which by {option}"
        ):
            read(content)
    assert read(content, **{choice: column})[0] == pairs
    with pytest.raises(UserError, match=r"has no column 'other' \(--.*-column\); it has "):
        read(content, **{choice: "other"})


def test_a_column_twice_and_columns_where_there_are_none(read):
    with pytest.raises(UserError, match="has 2 columns named caption; rename all but one"):
        read("image,caption,caption\na.jpg,x,y\n")
    with pytest.raises(UserError, match="has no columns: leave out --caption-column"):
        read(COCO, caption_column="caption")


@pytest.mark.parametrize(
    ("rows", "pairs"),
    [
        ('a.jpg,"A sign says \\"stop\\" on it"\nb.jpg,x', [("a.jpg", 'A sign says "stop" on it'), ("b.jpg", "x")]),
        ('a.jpg,"it ends in \\""\nb.jpg,x', [("a.jpg", 'it ends in "'), ("b.jpg", "x")]),
        ('a.jpg,"it ends in \\"\nb.jpg,x', [("a.jpg", "it ends in \\"), ("b.jpg", "x")]),
        ('"a.jpg,""a dog, running"""\nb.jpg,x', [("a.jpg", "a dog, running"), ("b.jpg", "x")]),
        ('"a.jpg,a dog",\n"b.jpg,a cat, a hat"', [("a.jpg", "a dog"), ("b.jpg", "a cat, a hat")]),
        ("a.jpg,a dog, running, fast", [("a.jpg", "a dog, running, fast")]),
        ('a.jpg,"a dog" runs, fast', [("a.jpg", '"a dog" runs, fast')]),
        ('a.jpg,"two\nlines, here"\nb.jpg,x', [("a.jpg", "two lines, here"), ("b.jpg", "x")]),
        ("a.jpg,1\u2028 2\x0b3", [("a.jpg", "1 2 3")]),
    ],
)
def test_garbled_rows_are_read_as_they_were_meant(read, rows, pairs):
    assert read(f"image,caption\n{rows}\n") == (pairs, [])


def test_a_file_whose_lines_a_spreadsheet_quoted(read):
    assert read('"image,caption"\n"a.jpg,""a dog, running"""\n"b.jpg,x"\n')[0] == [
        ("a.jpg", "a dog, running"),
        ("b.jpg", "x"),
    ]
    assert read('"image,caption",,\n"a.jpg,x",,\n')[0] == [("a.jpg", "x")]


def test_a_broken_quote_costs_its_own_row(read):
    rows = "".join(f"{number}.jpg,a dog, number {number}\n" for number in range(5000))
    pairs, left_out = read(f'image,caption\na.jpg,"a cat\n{rows}b.jpg,"a cow"\n')
    assert (len(pairs), pairs[-1]) == (5001, ("b.jpg", "a cow"))
    assert left_out == [(0, "an unclosed quote runs into the next row")]
    pairs, left_out = read('image,caption,id\na.jpg,a dog, running,1\nb.jpg,"a" dog,2\nc.jpg,a cat,3\n')
    assert pairs == [("c.jpg", "a cat")]
    assert [reason.split(":")[0] for _, reason in left_out] == [
        "more fields than the header",
        "quotes inside a quoted field",
    ]


def test_a_text_beside_each_picture(tmp_path):
    for name in ("a.jpg", "deep/b.PNG", "twice.jpg", "twice.png", "empty.jpg", "alone.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    texts = {"a": "A dog.\n\n A puppy. \n", "deep/b": "\ufeffA cat.", "twice": "x", "empty": "", "README": "About."}
    (tmp_path / "secret").write_text("secret")
    for place in (tmp_path / "photos", tmp_path / "texts"):
        for name, text in texts.items():
            (place / f"{name}.txt").parent.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.txt").write_text(text, encoding="utf-8")
        (place / "alone.txt").symlink_to(tmp_path / "secret")
        captions, left_out = read_captions(place, images=tmp_path / "photos")
        assert captions.to_numpy().tolist() == [["a.jpg", "A dog."], ["a.jpg", "A puppy."], ["deep/b.PNG", "A cat."]]
        assert dict(zip(left_out.text, left_out.reason, strict=True)) == {
            "README.txt": "no picture has its name",
            "alone.txt": "a link out of its folder; --follow-links follows it",
            "empty.txt: ": "empty caption",
            "twice.txt": "two pictures have its name, twice.jpg and twice.png",
        }
    assert read_text(tmp_path / "photos")[:2] == ["A dog.", "A puppy."]


@pytest.mark.parametrize("word", ["validation", "VALID", "Dev", "val"])
def test_words_for_the_validation_split(tmp_path, word):
    (tmp_path / "c.csv").write_text(f"image,caption,split\na.jpg,x,Train\nb.jpg,y,{word}\n")
    captions, _ = read_captions(tmp_path / "c.csv")
    assert split_by_image(captions).split.tolist() == ["train", "val"]


def test_flickr8ks_lists_of_names(tmp_path):
    for split, names in {"train": ["a.jpg", "b.jpg"], "dev": ["c.jpg"], "test": ["d"]}.items():
        (tmp_path / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names) + "\n")
    (tmp_path / "Flickr8k.token.txt").write_text("".join(f"{name}.jpg#0\tx\n" for name in "abcd"))
    (tmp_path / "CrowdFlowerAnnotations.txt").write_text("a.jpg\ta.jpg#0\t1\n")
    captions, _ = read_captions(tmp_path / "Flickr8k.token.txt")
    for place in (tmp_path, tmp_path / "Flickr_8k.devImages.txt"):
        assert split_by_image(captions, place).split.tolist() == ["train", "train", "val", "test"]
    for split in ("train", "test"):
        (tmp_path / f"other_{split}.txt").write_text("a.jpg\n")
    with pytest.raises(UserError, match="holds more than one set of lists of names: give one of its files"):
        read_splits(tmp_path)


def test_splits_match_names_that_are_written_otherwise(tmp_path):
    (tmp_path / "s.csv").write_text(
        "image_name,split\n./one/a.jpg,train\nb.jpg,val\ncafe\u0301.jpg,test\nx/c.jpg,test\n"
    )
    (tmp_path / "c.csv").write_text("image,caption\none\\a.jpg,x\n/data/b.jpg,x\ncaf\u00e9.jpg,x\ny/c.jpg,x\n")
    captions, _ = read_captions(tmp_path / "c.csv")
    with pytest.warns(UserWarning, match=r"1 images have no split in .* such as y/c.jpg"):
        assert split_by_image(captions, tmp_path / "s.csv").split.tolist() == ["train", "val", "test"]


def test_splits_that_are_not_utf8(tmp_path):
    (tmp_path / "s.csv").write_bytes(b"image,split\na.jpg,train\ncaf\xe9.jpg,test\n")
    with pytest.raises(UserError, match=r"s.csv row 1 is not UTF-8, but perhaps Windows' cp1252"):
        read_splits(tmp_path / "s.csv")


def test_coco_with_images_that_cannot_be_told_apart(read):
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}, {"id": 2, "file_name": "c.jpg"}, {}]
    annotations = [{"image_id": number, "caption": "x"} for number in (1, 2, 2)]
    pairs, left_out = read({"images": [*images, {"id": 1, "file_name": "a.jpg"}], "annotations": annotations})
    assert pairs == [("a.jpg", "x")]
    assert left_out == [(number, "two images have its image_id, b.jpg and c.jpg") for number in (1, 2)]


def test_karpathys_images_without_sentences_cost_only_themselves(read):
    images = [
        {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "x"}]},
        {"filename": "b.jpg", "split": "test"}, {"filename": "c.jpg", "sentences": None}, 3,
        {"filename": "d.jpg", "split": "val", "sentences": ["y"]},
    ]  # fmt: skip
    for content in ({"images": images}, images):
        pairs, left_out = read(content)
        assert pairs == [("a.jpg", "x"), ("d.jpg", "y")]
        assert left_out == [(number, "it needs a filename and sentences") for number in (1, 2, 3)]
    lines = "".join(json.dumps(image) + "\n" for image in images)
    assert read(lines)[0] == [("a.jpg", "x"), ("d.jpg", "y")]


def test_records_with_different_fields(read):
    assert read('{"image": "a.jpg"}\n{"image": "b.jpg", "caption": "x"}\n') == (
        [("b.jpg", "x")],
        [(0, "empty caption")],
    )
    for other in ('"text": "y"', '"caption": "x", "text": "y"'):
        with pytest.raises(UserError, match="captions: caption and text; say which by --caption-column"):
            read(f'{{"image": "a.jpg", "caption": "x"}}\n{{"image": "b.jpg", {other}}}\n')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": [{"image": "a.jpg", "caption": "x"}]}, "has the fields annotations, but needs a column named"),
        ({"a.jpg": {"caption": "x"}}, "has the fields a.jpg, but needs a column named"),
        ("img,caption\na.jpg,x\n", "or image_path or the one that --image-column names is needed"),
        ('{"image": "a.jpg", "sentence": "x"}', "or raw or the one that --caption-column names"),
    ],
)
def test_what_is_said_of_other_names(read, content, message):
    with pytest.raises(UserError, match=message):
        read(content)


def test_pipes_and_quotes(read):
    rows = 'a.jpg| 0| "A \\"big\\" dog"\nb.jpg| 0| "A cat" and "a dog"\nc.jpg| 0| a | b\n'
    assert read(f"image_name| comment_number| comment\n{rows}")[0] == [
        ("a.jpg", 'A "big" dog'),
        ("b.jpg", '"A cat" and "a dog"'),
        ("c.jpg", "a | b"),
    ]
    pairs, left_out = read("comment|image_name\nA dog|a.jpg\nA | cat|b.jpg\n")
    assert pairs == [("a.jpg", "A dog")]
    assert left_out[0][1].startswith("more fields than the header")


def test_escapes_without_quotes(read):
    rows = 'a.jpg,A sign says \\"stop\\"\\, now\nb.jpg,a dog\\, running\nc.jpg,C:\\dogs\n'
    assert read(f"image,caption\n{rows}")[0] == [
        ("a.jpg", 'A sign says "stop", now'),
        ("b.jpg", "a dog, running"),
        ("c.jpg", "C:\\dogs"),
    ]


@pytest.mark.parametrize("first", ["\n", "\r\n \r\n"])
def test_blank_lines_before_the_header(read, first):
    assert read(f"{first}image,caption\na.jpg,x\n") == ([("a.jpg", "x")], [])
    assert read(f"{first}a.jpg#0\tx\n") == ([("a.jpg", "x")], [])


@pytest.mark.parametrize(
    ("begin", "kind"),
    [(b"PK\x03\x04", "zip archive"), (b"BZh9", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstandard")],
)
def test_packed_files_are_named(tmp_path, begin, kind):
    (tmp_path / "captions.csv").write_bytes(begin + b"image,caption\n")
    with pytest.raises(UserError, match=rf"captions.csv is packed \({kind}.*\): unpack it"):
        read_captions(tmp_path / "captions.csv")


@pytest.mark.parametrize(
    "columns",
    [{"image_column": "Image", "caption_column": "image"}, {"caption_column": "image"}, {"image_column": "caption"}],
)
@pytest.mark.parametrize("content", ["image,caption\na.jpg,A dog\n", '{"image": "a.jpg", "caption": "A dog"}\n'])
def test_one_column_does_not_hold_both_names_and_captions(tmp_path, columns, content):
    (tmp_path / "file").write_text(content)
    with pytest.raises(
        UserError, match=r"column (image|caption) cannot hold both the pictures' names and the captions: n"
    ):
        read_captions(tmp_path / "file", **columns)
