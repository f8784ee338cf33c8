"""The choice of a picture: thumbnails to click, and a field that takes an upload or a file that is dropped on it."""

import io
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import ipywidgets as widgets
from PIL import Image, ImageOps

from ..data.images import PictureError, open_picture
from ..errors import UserError
from .html import DROP, small_url

MOST_BYTES = 20_000_000  # of an uploaded file
MOST_PIXELS = 12_600_000  # that are decoded at once; phones that take more pixels save JPEG, which is decoded smaller
MOST_PROGRESSIVE = 2 * MOST_PIXELS  # of a progressive JPEG, whose decoder holds all of them
THUMB = 144  # pixels; the longest side of a thumbnail, two for each CSS pixel
_numbers = count()  # tell the style of one explorer's thumbnails from another's


class PictureChoice:
    """A widget to choose a picture with. `name` and `picture` are the chosen one's, `picture` is None without one.

    problem: why the picture that was chosen last cannot be read, else empty.
    """

    def __init__(self, pictures: Mapping[str, Path], on_choice: Callable[[], None]):
        """pictures: {name: path}; the user can upload others. on_choice: called after every choice, also a bad one."""
        self.pictures, self._on_choice = dict(pictures), on_choice
        self.name, self.picture, self.problem = "", None, ""
        self.upload = widgets.FileUpload(
            accept="image/*", multiple=False, description="upload a picture",
            tooltip=f"JPEG, PNG, WebP and others, at most {MOST_BYTES // 10**6} MB",
        )  # fmt: skip
        self.thumbs = {name: widgets.Button(tooltip=name) for name in self.pictures}
        place, rules = next(_numbers), []
        for number, (name, thumb) in enumerate(self.thumbs.items()):
            mark = f"clipxgpt-thumb-{place}-{number}"
            thumb.add_class(mark)
            thumb.on_click(lambda _button, name=name: self.choose(name))
            try:
                url = small_url(open_small(self.pictures[name]), THUMB)
                rules.append(f".clipxgpt-tiles > .{mark} {{ background-image: url({url}) }}")
            except UserError:
                thumb.description = "?"  # a click says why
        self.upload.observe(lambda _change: self._take_upload(), names="value")
        tiles = widgets.Box([self.upload, *self.thumbs.values()])
        tiles.add_class("clipxgpt-tiles")
        drop = widgets.Output(outputs=({"output_type": "display_data", "data": {"text/html": DROP}, "metadata": {}},))
        drop.layout.display = "none"
        self.widget = widgets.VBox([widgets.HTML(f"<style>{' '.join(rules)}</style>"), drop, tiles])

    def choose(self, name: str) -> None:
        """Choose one of the pictures by its name."""
        self._take(name, self.pictures[name])

    def _take_upload(self) -> None:
        if self.upload.value:
            file = self.upload.value[0]
            self.upload.value = ()  # so that the same file can be uploaded again
            self._take(file["name"], Path(file["name"]), bytes(file["content"]))

    def _take(self, name: str, path: Path, content: bytes | None = None) -> None:
        self.name, self.picture, self.problem = name, None, ""
        for other, thumb in self.thumbs.items():
            (thumb.add_class if other == name and content is None else thumb.remove_class)("clipxgpt-chosen")
        try:
            self.picture = open_small(path, content)
        except UserError as error:
            self.problem = str(error)
        self._on_choice()


def open_small(path: Path, content: bytes | None = None) -> Image.Image:
    """Open a picture as `open_picture` does, but decode MOST_PIXELS at most: a larger JPEG is decoded at a half to an
    eighth of its size, any other larger picture is refused before it is decoded.

    content: the file's bytes, if they are at hand. Raises PictureError (a UserError) if it cannot be read.
    """
    if content is not None and len(content) > MOST_BYTES:
        raise PictureError(path, f"has {len(content) / 1e6:.0f} MB, but at most {MOST_BYTES // 10**6} MB are read")
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            pixels, is_jpeg = image.width * image.height, image.format in ("JPEG", "MPO")
            if pixels > (MOST_PROGRESSIVE if "progressive" in image.info else MOST_PIXELS) and not (
                is_jpeg and "progressive" not in image.info
            ):
                raise PictureError(
                    path, f"has {image.width:,} x {image.height:,} pixels, but at most {MOST_PIXELS:,} are read of "
                    f"{'a progressive JPEG' if is_jpeg else image.format}; make it smaller, or save it as baseline JPEG"
                )  # fmt: skip
            if pixels > MOST_PIXELS:
                factor = next(factor for factor in (2, 4, 8) if pixels <= MOST_PIXELS * factor**2)
                image.draft("RGB", (image.width // factor, image.height // factor))
                return ImageOps.exif_transpose(image).convert("RGB")
    except PictureError:
        raise
    except Exception:  # noqa: BLE001 - open_picture says what is wrong with the file
        pass
    return open_picture(path, content)
