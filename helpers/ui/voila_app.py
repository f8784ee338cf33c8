"""The explorer as the web page of one visitor: what notebooks/app.ipynb shows."""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path

import ipywidgets as widgets

from ..captions.names import ENDINGS
from ..errors import UserError
from ..runtime.model_folders import captioner_folder
from .captioners import SharedCaptioners
from .explorer import Explorer
from .html import DARK, STYLE

CAPTIONERS, PICTURES = "CLIPXGPT_CAPTIONER", "CLIPXGPT_PICTURES"  # environment variables
ADDRESS = "CLIPXGPT_ADDRESS"  # set by server.py: where the process listens that writes for all visitors
DEFAULT = "photo"  # the captioner that ships with the package
PHOTOS = Path("notebooks/photos")
MOST = 60  # pictures to choose from


def open_app(environment: Mapping[str, str] = os.environ) -> widgets.Widget:
    """Return the explorer or, if there is no captioner, a page that says how to get one.

    environment: the environment variables.
    CLIPXGPT_CAPTIONER: one or more folders of runs or captioners, separated as in PATH; by default photo, the captioner
    that ships.
    CLIPXGPT_PICTURES: a folder of pictures to choose from, by default notebooks/photos. Raises UserError if it is no
    folder.
    """
    found, missing = find_captioners(environment)
    if not found:
        return widgets.HTML(DARK + _no_captioner(missing), layout={"max_width": "720px"})
    note = f"left out, because there is no captioner in it: {', '.join(missing)}" if missing else ""
    address = environment.get(ADDRESS)
    captioners = SharedCaptioners(address, list(found)) if address else found
    explorer = Explorer(captioners, find_pictures(environment.get(PICTURES)))
    return widgets.VBox([widgets.HTML(DARK + escape(note)), explorer.widget])


def find_captioners(environment: Mapping[str, str]) -> tuple[dict[str, Path], list[str]]:
    """Return the captioners that the environment names, as {name: folder}, and the places that hold none.

    A captioner has its run's name, or its whole path if two runs have the same name.
    """
    places = [place for place in environment.get(CAPTIONERS, "").split(os.pathsep) if place] or [DEFAULT]
    found, missing = [], []
    for place in places:
        try:
            captioner_folder(place)
            found.append(Path(place))
        except UserError:
            missing.append(place)
    names = [place.parent.name if place.name == "captioner" else place.name for place in found]
    named = zip(names, found, strict=True)
    return {str(place) if names.count(name) > 1 else name: place for name, place in named}, missing


def find_pictures(folder: str | None) -> dict[str, Path]:
    """Return the first MOST pictures of `folder` as {name: path}; without one, the photos that ship, if they are there.

    Raises UserError if `folder` is no folder.
    """
    place = Path(folder) if folder else PHOTOS
    if folder and not place.is_dir():
        raise UserError(f"{PICTURES} is {folder}, which is no folder: set it to a folder of pictures, or unset it")
    files = sorted(path for path in place.glob("*") if path.suffix.lower() in ENDINGS)
    return {path.name: path for path in files[:MOST]}


def _no_captioner(missing: list[str]) -> str:
    places = ", ".join(f"<code>{escape(str(Path(place).resolve()))}</code>" for place in missing)
    return f"""{STYLE}<h2>There is no captioner yet</h2>
<p>It was looked for in {places}. Do one of these, then start the app again:</p>
<ul><li><code>make app</code> uses the captioner of photos that ships with the project;</li>
<li><code>make run</code> trains the captioner of the drawn world in minutes on a CPU, into <code>runs/tiny</code>;</li>
<li><code>{CAPTIONERS}=runs/mine make app</code> uses the captioner of another run.</li></ul>"""
