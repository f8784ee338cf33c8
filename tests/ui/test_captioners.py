"""Captions of a process that writes for all visitors are those of one's own, and nobody's broken request ends it."""

import sys
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Client

import pytest
from PIL import Image

from helpers.data.images import open_picture
from helpers.errors import UserError
from helpers.models.decoding import Decoding
from helpers.ui.captioners import OwnCaptioners, SharedCaptioners, write_for_all

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the captions come through a Unix socket")


@pytest.fixture
def shared(finished, tmp_path):
    folders, address = {"one": finished.captioner, "gone": tmp_path / "gone"}, str(tmp_path / "socket")
    process = get_context("spawn").Process(target=write_for_all, args=(address, folders), daemon=True)
    process.start()
    while not (tmp_path / "socket").exists():
        process.join(0.1)
        assert process.is_alive()
    yield SharedCaptioners(address, list(folders))
    process.terminate()
    process.join()


def test_they_are_the_same_and_errors_come_back_in_words(shared, finished, data, tmp_path):
    picture = open_picture(data.images / data.image_names()[0])
    own = OwnCaptioners({"one": finished.captioner})
    for decoding in (Decoding(), Decoding(beams=3, max_tokens=9), Decoding(temperature=1.5, seed=3)):
        expected, written = own.write("one", picture, decoding), shared.write("one", picture, decoding)
        assert [caption.text for caption in written.captions] == [caption.text for caption in expected.captions]
        assert written.captions[0].probability == pytest.approx(expected.captions[0].probability, rel=1e-4)
        assert written.unlike == expected.unlike
    with pytest.raises(UserError, match="gone holds no captioner"):
        shared.write("gone", picture, Decoding())
    for broken in (b"", b"[", b"{}", b'{"name": "none", "size": [1, 1], "decoding": {}}', bytes(10_000)):
        with Client(shared.address) as connection:
            connection.send_bytes(broken)
            with suppress(ConnectionError):  # it may have hung up by now
                connection.send_bytes(b"\0\0\0")
    with Client(shared.address):
        pass  # a visitor who leaves at once
    assert shared.write("one", Image.new("RGB", (40, 30)), Decoding()).captions
