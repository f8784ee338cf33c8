"""Whatever a file holds, a reader answers with captions or with a UserError, and in bounded time."""

import contextlib
import json
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.captions.names import same_pictures
from helpers.captions.read import read_captions, read_text
from helpers.captions.splits import read_splits, split_by_image
from helpers.errors import UserError
from helpers.evaluation.score_file import read_written
from helpers.runtime.texts import defused, shown, undefused

bounded = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEYS = ("images", "annotations", "id", "image_id", "file_name", "filename", "caption", "split", "sentences", "raw",
        "filepath", "captions", "caption_0", "image")  # fmt: skip
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats()
    | st.sampled_from(["a.jpg", "x", "", "train", "['a']"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)
pieces = st.lists(
    st.sampled_from(['"', '""', '\\"', ",", ";", "\t", "|", "\n", "\r\n", "a.jpg", "A dog", "#0", "image", "caption",
                     "é", "['a', 'b']", "sep=;\n", "\0", "\ufeff", "train"]), max_size=40,
).map("".join)  # fmt: skip


def read_all(path) -> str:
    """Let every reader of captions, splits and scores have the file; return what is said about it."""
    for read in (read_text, read_splits, read_written):
        with contextlib.suppress(UserError):
            read(path)
    try:
        captions, left_out = read_captions(path)
    except UserError as error:
        return str(error)
    assert captions.caption.str.strip().all()
    captions.to_csv(path.with_name("captions.csv"))  # every name and caption can be saved
    left_out.to_csv(path.with_name("left_out.csv"))
    with contextlib.suppress(UserError):
        split_by_image(captions)
    return ""


@pytest.mark.filterwarnings("ignore")
@bounded
@given(values)
def test_json_of_any_form(tmp_path, value):
    (tmp_path / "file.json").write_text(json.dumps(value))
    assert "\n" not in read_all(tmp_path / "file.json")


@bounded
@given(
    st.sampled_from(["", "image,caption\n", "image_name| comment_number| comment\n", "image,split\n", "[", '{"']),
    pieces,
)
def test_tables_of_any_form(tmp_path, header, text):
    (tmp_path / "file.csv").write_text(header + text, encoding="utf-8", newline="")
    assert "\n" not in read_all(tmp_path / "file.csv")


@bounded
@given(
    st.sampled_from([b"", b"image,caption\n", b"\x1f\x8b\x08\0", b"\xff\xfe", b'{"images": [']), st.binary(max_size=200)
)
def test_bytes_of_any_kind(tmp_path, begin, content):
    (tmp_path / "file.csv").write_bytes(begin + content)
    assert "\n" not in read_all(tmp_path / "file.csv")


@bounded
@given(st.integers(0, 1200), st.binary(min_size=1, max_size=8))
def test_parquet_with_other_bytes(tmp_path, place, change):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"image": ["a.jpg"] * 9, "caption": [["x", "y"]] * 9}), tmp_path / "file.parquet")
    content = (tmp_path / "file.parquet").read_bytes()
    place %= len(content)
    (tmp_path / "file.parquet").write_bytes(content[:place] + change + content[place + len(change) :])
    assert "\n" not in read_all(tmp_path / "file.parquet")


@given(st.text(max_size=20))
def test_texts_for_a_terminal_and_a_spreadsheet(text):
    assert not any(
        unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in shown(text) if each != "\u200d"
    )
    assert shown(text) == text or not text.isprintable()
    if not any("\ud800" <= each <= "\udfff" for each in text):
        assert undefused(defused(text)) == text
    assert defused(text)[:1] not in ("=", "+", "-", "@", "\t", "\r")
    defused(text).encode()


def test_texts_with_bytes_that_are_not_utf8():
    assert shown("caf\udce9 \x1b[31m \u202e") == "caf\\xe9 \\x1b[31m \\u202e"
    assert defused("=caf\udce9") == "'=caf\\xe9"


names = st.text("ab/\\.é", min_size=1, max_size=8)


@given(st.lists(names, max_size=9), st.lists(names, max_size=9))
def test_names_that_mean_the_same_picture(some, known):
    found = same_pictures(some, known)
    assert set(found) <= set(some)
    assert set(found.values()) <= set(known)
    assert set(some) & set(known) <= set(found)


def test_a_picture_that_two_names_could_mean_is_not_guessed():
    assert same_pictures(["one/a.jpg", "two/a.jpg"], ["a.jpg"]) == {}
    assert same_pictures(["a.jpg"], ["one/a.jpg", "two/a.jpg"]) == {}
    assert same_pictures(["a"], ["a.jpg", "a.png"]) == {}
    assert same_pictures(["a.png"], ["a.jpg"]) == {}
    assert same_pictures(["a", "photos\\b.jpg"], ["a.jpg", "b.jpg"]) == {"a": "a.jpg", "photos\\b.jpg": "b.jpg"}
