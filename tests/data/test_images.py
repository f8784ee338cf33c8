"""Pictures of every kind open as RGB or are left out with a reason, and no name leads out of its folder."""

import contextlib
import io
import os
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from helpers.data.images import MOST_PIXELS, open_picture, picture_path
from helpers.errors import UserError

in_a_folder = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
RED, WHITE = (255, 0, 0), (255, 255, 255)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def encoded(image, kind, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bomb(width, height) -> bytes:
    """Return a PNG of a few bytes whose header declares an enormous picture."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.fixture
def opened(tmp_path):
    def write_and_open(content: bytes, name="picture.jpg"):
        (tmp_path / name).write_bytes(content)
        return open_picture(tmp_path / name)

    return write_and_open


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_the_content_decides_not_the_name(opened, kind):
    image = opened(encoded(Image.new("RGB", (9, 7), RED), kind), "picture.txt")
    assert (image.mode, image.size) == ("RGB", (9, 7))
    assert np.abs(np.asarray(image).astype(int) - RED).max() < 3


def test_avif(opened):
    if not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    assert opened(encoded(Image.new("RGB", (9, 7), RED), "AVIF")).size == (9, 7)


def test_heic(opened, monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: pip install pillow-heif")
    stream = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 48), RED)).save(stream)
    image = opened(stream.getvalue(), "picture.heic")
    assert (image.mode, image.size) == ("RGB", (64, 48))
    assert image.getpixel((9, 9))[0] > 245


@pytest.mark.parametrize(
    ("brand", "kind", "package"), [("heic", "HEIC", "pillow-heif"), ("mif1", "HEIC", "pillow-heif")]
)
def test_heic_without_pillow_heif(opened, brand, kind, package, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("helpers.data.images.FORMATS", ("JPEG",))  # a test before may have installed the format
    content = b"\0\0\0\x18ftyp" + brand.encode() + b"\0" * 40
    with pytest.raises(UserError, match=rf"is {kind}, which cannot be read here: pip install {package}"):
        opened(content)


def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UserError, match="is no file; give the path of a picture"):
        open_picture(tmp_path / "pipe.jpg")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_becomes_rgb(opened, mode):
    values = np.full((8, 8), 128 * 257, np.uint16)
    image = Image.fromarray(values) if mode == "I;16" else Image.new("RGB", (8, 8), (128, 128, 128)).convert(mode)
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    found = opened(encoded(image, kind))
    assert (found.mode, found.size) == ("RGB", (8, 8))
    if mode not in ("1", "P"):  # these two are dithered
        assert np.abs(np.asarray(found).astype(int) - 128).max() <= 3


def test_16_bit_gray_keeps_its_shades(opened):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF", "PPM"):
        shades = np.asarray(opened(encoded(Image.fromarray(ramp), kind)))[..., 0]
        assert np.abs(shades.ravel().astype(int) - np.arange(256)).max() <= 1


def test_transparency_lies_on_white(opened):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (*RED, 255))
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([*RED, 0, 0, 255])
    palette.putpixel((0, 0), 0)
    palettes = [encoded(palette, kind, transparency=1) for kind in ("PNG", "GIF")]
    for content in (encoded(clear, "PNG"), *palettes):
        image = opened(content)
        assert (image.getpixel((0, 0)), image.getpixel((3, 3))) == (RED, WHITE)


def test_of_an_animation_the_first_frame(opened):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        image = opened(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
        assert image.getpixel((4, 4)) == RED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])  # Pillow turns a TIFF itself while it loads it
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_held_otherwise_is_turned(opened, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste((0, 0, 0), (0, 0, 16, 16))  # the top left corner is black
    transpose = Image.Transpose
    stored = {  # the inverse of what a viewer does
        1: None, 2: transpose.FLIP_LEFT_RIGHT, 3: transpose.ROTATE_180, 4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE, 6: transpose.ROTATE_90, 7: transpose.TRANSVERSE, 8: transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    image = opened(encoded(upright.transpose(stored) if stored is not None else upright, kind, exif=exif, quality=95))
    assert image.size == (48, 32)
    assert max(image.getpixel((4, 4))) < 60
    assert min(image.getpixel((44, 28))) > 200


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<html>404</html>", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        (encoded(NOISE, "JPEG")[:700], "truncated"),
        (encoded(NOISE, "PNG")[:-900], "cannot be read|truncated"),
        (encoded(NOISE, "JPEG")[:20], "no picture|cannot be read"),
        (bomb(60_000, 60_000), "cannot be read|at most"),
        (bomb(MOST_PIXELS // 1000 + 1, 1000), "at most"),
        (bomb(10_000, 1), "50 times as long as wide"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "white is not known"),
    ],
    ids=[
        "empty",
        "HTML",
        "EPS",
        "truncated JPEG",
        "truncated PNG",
        "header only",
        "bomb",
        "too large",
        "a line",
        "float",
    ],
)
@pytest.mark.filterwarnings("ignore:Image size")
def test_what_is_no_picture_gets_one_line(opened, content, reason):
    with pytest.raises(UserError, match=reason) as caught:
        opened(content)
    assert "\n" not in str(caught.value)
    assert "picture.jpg" in str(caught.value)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_costs_no_picture(opened, exif):
    assert opened(encoded(NOISE, "JPEG", exif=exif)).size == NOISE.size


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match="is missing"):
        open_picture(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match="is no file"):
        open_picture(tmp_path)


@pytest.mark.filterwarnings("ignore")  # Pillow warns about random bytes
@in_a_folder
@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]), st.data())
def test_wild_bytes_give_rgb_or_a_user_error(opened, kind, data):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray(encoded(NOISE, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {})))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, min(200, len(content) - 1)))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UserError):
        assert opened(bytes(content)).mode == "RGB"


@pytest.mark.parametrize("name", ["a.jpg", "sub/b.jpg", "картина.png", "写真 1.jpg", "a..b.jpg", ".hidden.png"])
def test_a_name_inside_the_folder(tmp_path, name):
    assert picture_path(tmp_path, name) == tmp_path / name


def test_an_accent_spelt_otherwise_is_found(tmp_path):
    (tmp_path / "cafe\u0301.jpg").touch()
    assert picture_path(tmp_path, "caf\u00e9.jpg").exists()


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "sub/../../a.jpg", "..", "/etc/passwd", "..\\a.jpg", "C:\\a.jpg", "\\a.jpg", "", "a\0.jpg"],
)
def test_a_name_that_leads_out_of_the_folder(tmp_path, name):
    with pytest.raises(UserError, match="image name") as caught:
        picture_path(tmp_path, name)
    assert repr(name) in str(caught.value)


def test_links(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (tmp_path / "secret.jpg").touch()
    (folder / "real.jpg").touch()
    (folder / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "in.jpg").symlink_to("real.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "linked").symlink_to(folder)
    assert picture_path(tmp_path / "linked", "in.jpg").exists()
    with pytest.raises(UserError, match="link out of"):
        picture_path(folder, "out.jpg")
    with pytest.raises(UserError):
        open_picture(picture_path(folder, "loop.jpg"))
    with pytest.raises(UserError, match="image name"):
        picture_path(folder, "x" * 5000)


@given(st.text(max_size=30))
def test_wild_names_stay_inside_or_are_refused(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    with contextlib.suppress(UserError):
        assert picture_path(folder, name).resolve().is_relative_to(folder.resolve())
