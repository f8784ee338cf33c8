"""The explorer as a page of its own, which voila serves: `make app`."""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path

import ipywidgets as widgets

from ..data.dataset import open_data
from ..data.images import FORMATS
from ..errors import UserError
from .explorer import Explorer
from .html import STYLE

CAPTIONERS, PICTURES = "CLIPXGPT_CAPTIONER", "CLIPXGPT_PICTURES"  # the environment variables
DEFAULT = Path("runs/tiny/captioner")
WORLD = Path("data/drawn")
MOST = 100  # pictures to choose from


def open_app(environment: Mapping[str, str] = os.environ) -> widgets.Widget:
    """The explorer, or a page that says how to get a captioner where there is none.

    CLIPXGPT_CAPTIONER: one or more captioner folders, separated as in PATH; runs/tiny/captioner where it is not set.
    CLIPXGPT_PICTURES: a folder of pictures to choose from; where it is not set, the drawn world's test pictures beside
    the default captioner, and uploads alone beside any other.
    """
    named = environment.get(CAPTIONERS)
    folders = [Path(folder) for folder in named.split(os.pathsep) if folder] if named else [DEFAULT]
    there = [folder for folder in folders if any(folder.glob("*.safetensors"))]
    if not there:
        return widgets.HTML(_no_captioner(folders), layout={"max_width": "720px"})
    missing = [str(folder) for folder in folders if folder not in there]
    note = f"no captioner lies in {', '.join(missing)}: left out" if missing else ""
    explorer = Explorer(_by_name(there), find_pictures(environment.get(PICTURES), named is None))
    return widgets.VBox([widgets.HTML(escape(note)), explorer.widget])


def find_pictures(folder: str | None, drawn: bool) -> dict[str, Path]:
    """Pictures to choose from, by name, at most MOST: those of `folder`, else the drawn world's test pictures.

    Raises UserError where `folder` is none.
    """
    if folder:
        if not Path(folder).is_dir():
            raise UserError(f"{PICTURES} is {folder}, which is no folder: name a folder of pictures, or unset it")
        endings = {f".{name.lower()}" for name in FORMATS} | {".jpg", ".jp2", ".tif"}
        files = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in endings)
        return {path.name: path for path in files[:MOST]}
    if drawn and (WORLD / "results.csv").exists():
        data = open_data(WORLD / "flickr30k_images", WORLD / "results.csv")
        return {name: data.images / name for name in data.image_names("test")[:MOST]}
    return {}


def _by_name(folders: list[Path]) -> dict[str, Path]:
    """Each captioner called after its run, or by its whole path where two runs have the same name."""
    names = [folder.parent.name if folder.name == "captioner" else folder.name for folder in folders]
    return {str(folder) if names.count(name) > 1 else name: folder for name, folder in zip(names, folders, strict=True)}


def _no_captioner(folders: list[Path]) -> str:
    places = ", ".join(f"<code>{escape(str(folder.resolve()))}</code>" for folder in folders)
    return f"""{STYLE}<h2>There is no captioner yet</h2>
<p>None lies in {places}. One of these makes or names one:</p>
<ul><li><code>make run</code> trains the tiny captioner in minutes on a CPU;</li>
<li><code>clipxgpt train --preset tiny --out runs/tiny</code> does so without the notebooks;</li>
<li><code>{CAPTIONERS}=runs/mine/captioner make app</code> takes the captioner of another run.</li></ul>
<p>Then load this page again.</p>"""
