"""Pieces of HTML for widgets and reports: the style, pictures inside the page, the probability of a caption."""

import base64
import io
from typing import Any

from PIL import Image

from ..models.writer import Candidate

# The colors are those of JupyterLab's theme, light or dark; elsewhere the ones after the comma.
STYLE = """<style>
.clipxgpt-figure { margin: 0; width: 288px; }
.clipxgpt-figure > div { height: 288px; display: flex; align-items: center; justify-content: center;
  background: var(--jp-layout-color2, #f0f1f3); border-radius: 6px; overflow: hidden;
  color: var(--jp-content-font-color2, #5f6672); }
.clipxgpt-figure figcaption, .clipxgpt small, .clipxgpt-table caption {
  color: var(--jp-content-font-color2, #5f6672); font-size: 12px; line-height: 1.4; overflow-wrap: anywhere; }
.clipxgpt-caption { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 12px; line-height: 1.4; }
.clipxgpt-caption b { flex: 1 1 300px; font-weight: normal; font-size: 15px; overflow-wrap: anywhere; }
.clipxgpt-bar { display: inline-block; width: 72px; height: 8px; border-radius: 4px; overflow: hidden;
  background: var(--jp-layout-color3, #dcdfe4); }
.clipxgpt-bar i { display: block; height: 100%; background: var(--jp-brand-color1, #3b6fb6); }
.clipxgpt .widget-toggle-buttons { display: flex; flex-flow: row wrap; align-items: center; }
.clipxgpt .widget-toggle-buttons > .widget-label { width: 96px; text-align: right; }
.clipxgpt .widget-html-content { line-height: 1.4; }
.clipxgpt-table { border-collapse: collapse; width: 100%; margin-top: 16px; }
.clipxgpt-table caption { text-align: left; padding: 6px 0; }
.clipxgpt-table th { text-align: left; font-weight: 600; white-space: nowrap; }
.clipxgpt-table th, .clipxgpt-table td { padding: 6px 14px 6px 0; vertical-align: middle;
  border-bottom: 1px solid var(--jp-border-color2, #dcdfe4); }
.clipxgpt-table td { overflow-wrap: anywhere; }
.clipxgpt-table td:nth-child(4) { width: 45%; font-size: 14px; }
.clipxgpt-table td .clipxgpt-bar { display: block; }
.clipxgpt-table td:last-child { white-space: nowrap; }
.clipxgpt-table img { display: block; width: 56px; height: 56px; object-fit: contain; margin-bottom: 2px; }
</style>"""


def in_words(candidate: Candidate) -> str:
    """Return the probability of a caption in words, such as "81% per token"."""
    return f"{candidate.probability:.0%} per token"


def as_bar(candidate: Candidate) -> str:
    """Return the probability of a caption as HTML: a bar and a percentage."""
    filled = f'<i style="width: {candidate.probability:.1%}"></i>'
    return f'<span class="clipxgpt-bar" aria-hidden="true">{filled}</span> <small>{in_words(candidate)}</small>'


def picture_url(picture: Image.Image, kind: str = "png", **options: Any) -> str:
    """Return the picture as the `src` of an `img`. kind: Pillow's format. options: those of Pillow's `save`."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return data_url(buffer.getvalue(), f"image/{kind}")


def data_url(content: bytes, kind: str) -> str:
    """Return a file's content as a URL that holds all of it. kind: its media type, such as "text/csv"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
