"""A large picture is decoded as far as it is needed, or refused before it is."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.data.images import PictureError, open_picture
from helpers.ui.pictures import MOST_BYTES, MOST_PIXELS, open_small

NAME = Path("large.png")
SIDE = 9_459  # pixels; the largest square that open_picture reads
ROOT = Path(__file__).parents[2]


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_picture_of_few_pixels_is_what_open_picture_gives():
    content = saved(Image.effect_noise((300, 200), 80).convert("RGB"), "jpeg")
    assert np.array_equal(open_small(NAME, content), open_picture(NAME, content))


@pytest.mark.parametrize("kind", ["png", "webp", "tiff", "bmp"])
def test_more_pixels_are_refused_by_their_number(kind):
    content = saved(Image.new("1" if kind in ("png", "tiff") else "L", (4000, 3500)), kind)
    with pytest.raises(PictureError, match=r"large.png has 4,000 x 3,500 pixels, but at most 12,600,000 are read of "):
        open_small(NAME, content)


def test_a_large_jpeg_is_decoded_smaller_and_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    content = saved(Image.linear_gradient("L").resize((8000, 6000)), "jpeg", exif=exif)
    picture = open_small(NAME, content)
    assert picture.mode == "RGB"
    assert picture.size == (3000, 4000)
    assert picture.width * picture.height <= MOST_PIXELS
    assert picture.getpixel((0, 2000))[0] > 200  # the gradient's light lower edge has become the left one


def test_a_large_progressive_jpeg_is_refused_because_its_decoder_holds_all_pixels():
    content = saved(Image.new("L", (6000, 5000)), "jpeg", progressive=True)
    with pytest.raises(PictureError, match="a progressive JPEG"):
        open_small(NAME, content)


def test_a_large_file_is_refused_by_its_size():
    with pytest.raises(PictureError, match="has 20 MB, but at most 20 MB are read"):
        open_small(NAME, bytes(MOST_BYTES + 1))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_a_picture_that_is_small_as_a_file_takes_little_memory(tmp_path):
    Image.new("1", (SIDE, SIDE)).save(tmp_path / "white.png")
    Image.new("RGBA", (3540, 3540), (9, 9, 9, 9)).save(tmp_path / "most.png")
    code = """
import sys
from pathlib import Path
from helpers.errors import UserError
from helpers.ui.pictures import open_small
for name in sys.argv[1:]:
    try:
        open_small(Path(name), Path(name).read_bytes())
    except UserError:
        pass
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    files = [str(tmp_path / name) for name in ("white.png", "most.png")]
    said = subprocess.run([sys.executable, "-c", code, *files], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(said.stdout) < 330_000  # kilobytes; a kernel with its widgets takes 70,000 more
