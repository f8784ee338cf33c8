"""Pictures of any kind as plain RGB, and paths that stay inside their folder."""

import io
import unicodedata
from pathlib import Path, PureWindowsPath

from PIL import Image

from ..errors import UserError

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")  # those that Pillow was built with
ENDINGS = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
                     ".jp2", ".j2k", ".avif"})  # fmt: skip
MOST_PIXELS = 89_478_485  # a quarter of a gigabyte as RGB: Pillow's own limit, at which it warns of decompression bombs
MOST_ELONGATED = 50  # times as long as wide; resizing the short edge to CLIP's 224 pixels would make it enormous
ORIENTATION = 0x0112  # the EXIF tag of how the camera was held
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class PictureError(UserError):
    """A file that is no usable picture. reason: the message without the path."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path} {reason}")
        self.reason = reason


def open_picture(path: str | Path, content: bytes | None = None) -> Image.Image:
    """Open a picture as RGB: turned as EXIF says, transparency on white, the first frame of an animation.

    content: the file's bytes, if they are at hand; `path` is then only their name. The content decides on the format,
    not the name. Raises PictureError (a UserError) and nothing else if the file is no usable picture.
    """
    path = Path(path)
    try:
        if content is None and not path.is_file():
            kind = "no file" if path.exists() else "missing"
            raise PictureError(path, f"is {kind}; give the path of a picture")
        if (path.stat().st_size if content is None else len(content)) == 0:
            raise PictureError(path, "is empty (0 bytes); give a whole picture")
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]
        with Image.open(path if content is None else io.BytesIO(content), formats=formats) as image:
            _check_size(path, *image.size)
            return _as_rgb(_turned(image))
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(path, f"has too many pixels; at most {MOST_PIXELS:,} are read, so make it smaller") from None
    except Image.UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise PictureError(path, f"is no picture of a kind that can be read; give one of {known}") from None
    except Exception as error:  # what a decoder raises on broken bytes is documented nowhere
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(path, f"cannot be read ({reason}); give a whole picture") from error


def picture_folder(path: str | Path) -> Path:
    """Return `path`. Raises UserError if it is no folder."""
    if not Path(path).is_dir():
        raise UserError(f"{path} is no folder: give the folder that holds the pictures")
    return Path(path)


def picture_path(folder: str | Path, name: str) -> Path:
    """Return the path of the picture `name` of a captions file in `folder`, which it may not leave.

    A name may hold subfolders and any script. If the file system spells an accent in another way (a folder that came
    from macOS), that spelling is found. Raises UserError on a name that leads out of the folder, directly or by a link.
    """
    folder = Path(folder)
    if not name.strip() or "\0" in name:
        raise UserError(f"image name {name!r} names no file; give the name of a picture")
    windows = PureWindowsPath(name)
    if Path(name).is_absolute() or windows.is_absolute() or windows.root or ".." in windows.parts:
        raise UserError(f"image name {name!r} leads out of its folder; give a name inside the images folder")
    spellings = dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))
    try:
        path = next((path for path in (folder / spelling for spelling in spellings) if path.exists()), folder / name)
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a name too long for the file system, a loop of links
        raise UserError(
            f"image name {name[:60]!r} names no file ({error.__class__.__name__}); give the name of a picture"
        ) from error
    if not inside:
        raise UserError(f"image name {name!r} is a link out of its folder; put the picture itself there")
    return path


def _check_size(path: Path, width: int, height: int) -> None:
    size = f"has {width} x {height} pixels"
    if width * height > MOST_PIXELS:
        raise PictureError(path, f"{size}, but at most {MOST_PIXELS:,} are read; make it smaller")
    if max(width, height) > MOST_ELONGATED * min(width, height):
        raise PictureError(path, f"{size}, more than {MOST_ELONGATED} times as long as wide; crop it")


def _turned(image: Image.Image) -> Image.Image:
    turn = TURNS.get(image.getexif().get(ORIENTATION))
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("gray of floating point, whose white is not known")
    if image.mode.startswith("I"):  # 16-bit gray, for which Pillow's own conversion clips all above 255
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
