"""Pictures of any kind as plain RGB, and paths that stay inside their folder."""

import io
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path, PureWindowsPath

from PIL import Image

from ..captions.names import has_picture_ending, plain_name, stays_inside
from ..errors import UserError
from ..runtime.files import home

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")  # those that are installed
PLUGINS = {  # formats that need more than Pillow alone: how their files begin, and what to install
    "HEIC": (re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL), "pillow-heif"),
    "AVIF": (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), "pillow --upgrade"),
}
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
            raise PictureError(path, f"is {_what_else(path)}; give the path of a picture")
        if (path.stat().st_size if content is None else len(content)) == 0:
            raise PictureError(path, "is empty (0 bytes); give a whole picture")
        Image.init()
        plugin = _add_plugin(path, content)
        formats = [name for name in FORMATS if name in Image.OPEN]
        with Image.open(path if content is None else io.BytesIO(content), formats=formats) as image:
            _check_size(path, *image.size)
            return _as_rgb(_turned(image))
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(path, f"has too many pixels; at most {MOST_PIXELS:,} are read, so make it smaller") from None
    except Image.UnidentifiedImageError:
        if plugin:
            kind, package = plugin
            raise PictureError(path, f"is {kind}, which cannot be read here: pip install {package}") from None
        known = ", ".join(FORMATS)
        raise PictureError(path, f"is no picture of a kind that can be read; give one of {known}") from None
    except Exception as error:  # what a decoder raises on broken bytes is documented nowhere
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(path, f"cannot be read ({reason}); give a whole picture") from error


def picture_folder(path: str | Path) -> Path:
    """Return `path`. Raises UserError if it is no folder."""
    path = home(path)
    if not path.is_dir():
        raise UserError(f"{path} is no folder: give the folder that holds the pictures")
    return path


def folder_files(folder: Path, below: Iterable[str] = (), *, links: bool = False) -> set[str]:
    """Return the names of the files in a folder and in those of the folders `below` it that are there.

    Hidden files are left out, and so are links, unless `links` says that they may be followed.
    """
    found = set()
    for name in {"", *below}:
        inner = folder / name
        try:
            if (
                Path(name).is_absolute()
                or ".." in Path(name).parts
                or not inner.is_dir()
                or not (links or stays_inside(folder, inner))
            ):
                continue
            with os.scandir(inner) as entries:
                found |= {
                    (Path(name) / entry.name).as_posix() if name else entry.name
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_file(follow_symlinks=links)
                }
        except (OSError, ValueError):  # a folder that may not be read, a name that no file system can have
            continue
    return found


def picture_path(folder: str | Path, name: str) -> Path:
    """Return the path of the picture `name` of a captions file in `folder`, which it may not leave.

    A name may hold subfolders and any script; it may be an absolute path of a picture in the folder, begin with the
    folder's own name or `~`, and use backslashes. If the file system spells an accent in another way (a folder that
    came from macOS), that spelling is found. Raises UserError on a name that leads out of the folder, directly or by a
    link, unless such links are followed (captions/names.py).
    """
    folder = Path(folder)
    if not name.strip() or "\0" in name:
        raise UserError(f"image name {name!r} names no file; give the name of a picture")
    try:
        inside = list(dict.fromkeys(_names_inside(folder, name)))
        if not inside:
            raise UserError(f"image name {name!r} leads out of its folder; give a name inside the images folder")
        path = next((path for path in (folder / each for each in inside) if path.exists()), folder / inside[0])
        within = stays_inside(folder, path)
    except (OSError, RuntimeError) as error:  # a name too long for the file system, a loop of links
        raise UserError(
            f"image name {name[:60]!r} names no file ({error.__class__.__name__}); give the name of a picture"
        ) from error
    if not within:
        raise UserError(
            f"image name {name!r} is a link out of its folder; follow such links by --follow-links (follow_links=True "
            "of open_data), or put the picture itself there"
        )
    return path


def _names_inside(folder: Path, name: str) -> Iterator[str]:
    """Yield the names inside the folder that `name` may mean, the likeliest first; none if it leads out of it."""
    for spelling in (name, name.replace("\\", "/")):
        path, windows = home(spelling), PureWindowsPath(spelling)
        if ".." in windows.parts or (windows.drive and not path.is_absolute()):
            continue
        if path.is_absolute():
            roots = (root for root in (folder.absolute(), folder.resolve()) if path.is_relative_to(root))
            plain = next((path.relative_to(root).as_posix() for root in roots), None)
            if plain in (None, "."):
                continue
        elif windows.root:  # \\a.jpg
            continue
        else:
            plain = plain_name(spelling)
        for form in (None, "NFC", "NFD"):
            yield plain if form is None else unicodedata.normalize(form, plain)
    parts, own = [part for part in plain_name(name.replace("\\", "/")).split("/") if part], folder.absolute().parts
    for count in range(1, len(parts)):  # photos/a.jpg in photos
        if own[-count:] == tuple(parts[:count]) and ".." not in parts:
            yield "/".join(parts[count:])


def why_missing(folder: Path, path: Path) -> str | None:
    """Return why there is no picture at `path` in `folder` if there is more to say than that it is not there."""
    name = path.name
    if path.is_symlink():
        return f"{path} is a link to {path.readlink()}, which is not there: fetch that file (dvc pull, git annex get)"
    if path.parent.is_dir() and not os.access(path.parent, os.R_OK | os.X_OK):
        return f"{path.parent} may not be read: change its permissions"
    for other in sorted(folder_files(folder)):
        if other.lower() == name.lower() or (not has_picture_ending(name) and Path(other).stem == name):
            return f"{path} is missing, but {other} is there: write the names in the captions file as the files' names"
    for inner in sorted(each for each in folder.iterdir() if each.is_dir()):
        if (inner / name).exists():
            return f"{path} is missing, but {inner} holds {name}: give that folder"
    return None


def _what_else(path: Path) -> str:
    if path.exists():
        return "no file"
    return f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "missing"


def _add_plugin(path: Path, content: bytes | None) -> tuple[str, str] | None:
    """Make Pillow read HEIC if this is one; return its kind and what to install if it is HEIC or AVIF."""
    if content is None:
        with path.open("rb") as file:
            content = file.read(32)
    found = next(((kind, package) for kind, (begin, package) in PLUGINS.items() if begin.match(content)), None)
    if found and found[0] == "HEIC":
        _register_heif()
    return found


@cache
def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def _check_size(path: Path, width: int, height: int) -> None:
    size = f"has {width} x {height} pixels"
    if width * height > MOST_PIXELS:
        raise PictureError(path, f"{size}, but at most {MOST_PIXELS:,} are read; make it smaller")
    if max(width, height) > MOST_ELONGATED * min(width, height):
        raise PictureError(path, f"{size}, more than {MOST_ELONGATED} times as long as wide; crop it")


def _turned(image: Image.Image) -> Image.Image:
    image.load()  # first, because Pillow turns a TIFF while it loads it, and then drops the tag
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
