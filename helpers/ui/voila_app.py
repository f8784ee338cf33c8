"""The explorer as a web page that voila serves: `make app`."""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path

import ipywidgets as widgets

from ..captions.names import ENDINGS
from ..data.dataset import open_data
from ..errors import UserError
from ..runtime.model_folders import captioner_folder
from .explorer import Explorer
from .html import STYLE

CAPTIONERS, PICTURES = "CLIPXGPT_CAPTIONER", "CLIPXGPT_PICTURES"  # environment variables
DEFAULT = Path("runs/tiny")
WORLD = Path("data/drawn")
MOST = 100  # pictures in the list


def open_app(environment: Mapping[str, str] = os.environ) -> widgets.Widget:
    """Return the explorer or, if there is no captioner, a page that says how to get one.

    environment: the environment variables.
    CLIPXGPT_CAPTIONER: one or more folders of runs or captioners, separated as in PATH; by default runs/tiny.
    CLIPXGPT_PICTURES: a folder of pictures to choose from. Without it, the default captioner has the drawn world's test
    pictures and any other captioner has uploads alone. Raises UserError if it is no folder.
    """
    named = environment.get(CAPTIONERS)
    folders = [Path(folder) for folder in named.split(os.pathsep) if folder] if named else [DEFAULT]
    there = [folder for folder in folders if _holds_captioner(folder)]
    if not there:
        return widgets.HTML(_no_captioner(folders), layout={"max_width": "720px"})
    missing = [str(folder) for folder in folders if folder not in there]
    note = f"left out, because there is no captioner in it: {', '.join(missing)}" if missing else ""
    explorer = Explorer(_by_name(there), find_pictures(environment.get(PICTURES), drawn=named is None))
    return widgets.VBox([widgets.HTML(escape(note)), explorer.widget])


def find_pictures(folder: str | None, *, drawn: bool) -> dict[str, Path]:
    """Return at most MOST pictures as {name: path}: those in `folder`, or the drawn world's test pictures.

    drawn: whether to use the drawn world if no folder is given. Raises UserError if `folder` is no folder.
    """
    if folder:
        if not Path(folder).is_dir():
            raise UserError(f"{PICTURES} is {folder}, which is no folder: set it to a folder of pictures, or unset it")
        files = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in ENDINGS)
        return {path.name: path for path in files[:MOST]}
    if drawn and (WORLD / "results.csv").exists():
        data = open_data(WORLD / "flickr30k_images", WORLD / "results.csv")
        return {name: data.images / name for name in data.image_names("test")[:MOST]}
    return {}


def _holds_captioner(folder: Path) -> bool:
    try:
        captioner_folder(folder)
    except UserError:
        return False
    return True


def _by_name(folders: list[Path]) -> dict[str, Path]:
    """Return {name: folder}. A captioner has its run's name, or its whole path if two runs have the same name."""
    names = [folder.parent.name if folder.name == "captioner" else folder.name for folder in folders]
    return {str(folder) if names.count(name) > 1 else name: folder for name, folder in zip(names, folders, strict=True)}


def _no_captioner(folders: list[Path]) -> str:
    places = ", ".join(f"<code>{escape(str(folder.resolve()))}</code>" for folder in folders)
    return f"""{STYLE}<h2>There is no captioner yet</h2>
<p>It was looked for in {places}. Do one of these:</p>
<ul><li><code>make run</code> trains the tiny captioner in minutes on a CPU;</li>
<li><code>clipxgpt train --preset tiny --out runs/tiny</code> does the same without the notebooks;</li>
<li><code>{CAPTIONERS}=runs/mine make app</code> uses the captioner of another run.</li></ul>
<p>Then reload this page.</p>"""
