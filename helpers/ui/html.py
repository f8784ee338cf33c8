"""Pieces of HTML for widgets and reports: the style, pictures inside the page, the probability of a caption."""

import base64
import io
from typing import Any

from PIL import Image

SMALL = 128  # pixels; a picture with shorter sides is a drawn one, and is enlarged without smoothing

# The colors are those of JupyterLab's theme, light or dark; elsewhere the ones after the comma.
STYLE = """<style>
.clipxgpt-figure { margin: 0; width: 288px; }
.clipxgpt-figure > div { height: 288px; display: flex; align-items: center; justify-content: center;
  background: var(--ground); border-radius: 6px; overflow: hidden; color: var(--soft); }
.clipxgpt-figure, .clipxgpt-figure > div { max-width: 100%; }
.clipxgpt-figure img { width: 100%; height: 100%; object-fit: contain; }
.clipxgpt { --soft: var(--jp-content-font-color2, #5f6672); --line: var(--jp-border-color2, #dcdfe4);
  --ground: var(--jp-layout-color2, #f0f1f3); --accent: var(--jp-brand-color1, #3b6fb6);
  color: var(--jp-content-font-color1, #1d2129); }
.clipxgpt-tiles { display: flex; flex-flow: row wrap; gap: 6px; max-height: 236px; overflow: auto; padding: 3px;
  margin-bottom: 8px; }
.clipxgpt-tiles > button { width: 72px; height: 72px; margin: 0; padding: 0; border-radius: 6px; flex: none;
  background: var(--ground) center / cover no-repeat; }
.clipxgpt-tiles > .clipxgpt-chosen { outline: 3px solid var(--accent); }
.clipxgpt-tiles > button.widget-upload { width: 150px; border: 2px dashed var(--soft); white-space: normal;
  line-height: 1.3; padding: 4px 8px; color: inherit; font-size: 0; }
.clipxgpt-tiles > button.widget-upload::after { content: "drop a picture here, or click"; font-size: 13px; }
.clipxgpt-tiles > button.widget-upload i { font-size: 16px; }
.clipxgpt-over .clipxgpt-tiles > button.widget-upload { border-color: var(--accent); border-style: solid; }
.clipxgpt img[src^="data:image/png"] { image-rendering: pixelated; }
.clipxgpt-figure figcaption, .clipxgpt small, .clipxgpt-table caption, .clipxgpt-soft {
  color: var(--soft); font-size: 12px; line-height: 1.4; overflow-wrap: anywhere; }
.clipxgpt-caption { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 12px; line-height: 1.35; }
.clipxgpt-caption b { flex: 1 1 240px; font-weight: normal; font-size: 17px; overflow-wrap: anywhere; }
.clipxgpt-name { font-weight: 600; font-size: 13px; }
.clipxgpt-unlike { color: var(--jp-warn-color0, #9a5b00); font-size: 13px; line-height: 1.4; }
.clipxgpt-bar { display: inline-block; width: 72px; height: 8px; border-radius: 4px; overflow: hidden;
  background: var(--jp-layout-color3, #dcdfe4); }
.clipxgpt-bar i { display: block; height: 100%; background: var(--accent); }
.clipxgpt .widget-toggle-buttons { display: flex; flex-flow: row wrap; width: auto; }
.clipxgpt .widget-html-content { line-height: 1.4; }
.clipxgpt .widget-html, .clipxgpt .widget-checkbox { height: auto; }
.clipxgpt-table { border-collapse: collapse; width: 100%; margin-top: 16px; }
.clipxgpt-table caption { text-align: left; padding: 6px 0; }
.clipxgpt-table th { text-align: left; font-weight: 600; white-space: nowrap; }
.clipxgpt-table th, .clipxgpt-table td { padding: 6px 14px 6px 0; vertical-align: middle;
  border-bottom: 1px solid var(--line); }
.clipxgpt-table td { overflow-wrap: anywhere; min-width: 64px; }
.clipxgpt-table td:nth-child(4) { width: 45%; min-width: 130px; font-size: 14px; }
.clipxgpt-table td .clipxgpt-bar { display: block; }
.clipxgpt-table td:last-child { white-space: nowrap; }
.clipxgpt-table img { display: block; width: 56px; height: 56px; object-fit: contain; margin-bottom: 2px; }
.clipxgpt-wide { overflow-x: auto; }
.clipxgpt-links a { display: inline-block; margin: 6px 10px 6px 0; padding: 5px 12px; border-radius: 3px;
  border: 1px solid var(--line); background: var(--ground); color: inherit; text-decoration: none; }
.clipxgpt-links a:hover { border-color: var(--accent); }
</style>"""

# The app's page takes its theme from the system. In a notebook, JupyterLab's own theme decides.
DARK = """<style>
:root { color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root:root, :root:root body { --jp-layout-color0: #181b21; --jp-layout-color1: #181b21; --jp-layout-color2: #262b34;
    --jp-layout-color3: #3a404c; --jp-content-font-color0: #f2f3f5; --jp-content-font-color1: #e6e8ec;
    --jp-content-font-color2: #a0a7b3; --jp-ui-font-color0: #f2f3f5; --jp-ui-font-color1: #e6e8ec;
    --jp-ui-font-color2: #a0a7b3; --jp-border-color1: #4a515e; --jp-border-color2: #363b45; --jp-brand-color1: #7aa7e6;
    --jp-input-background: #262b34; --jp-warn-color0: #e0a458; }
  body, body .jp-Notebook { background: #181b21; color: #e6e8ec; }
}
</style>"""

# The upload widget's file field is not part of the page. A drop clicks the widget, and the click that the widget passes
# on to its field then gives the field the dropped files instead of opening a dialog.
DROP = """<script>
if (!window.clipxgptDrop) {
  window.clipxgptDrop = true;
  const place = event => event.target.closest && event.target.closest(".clipxgpt");
  const isFile = event => event.dataTransfer && event.dataTransfer.types.includes("Files");
  const mark = (root, on) => document.querySelectorAll(".clipxgpt").forEach(
    each => each.classList.toggle("clipxgpt-over", on && each === root));
  document.addEventListener("dragover", event => {
    const root = place(event);
    mark(root, Boolean(root) && isFile(event));
    if (root && isFile(event)) event.preventDefault();
  }, true);
  document.addEventListener("dragleave", event => { if (!event.relatedTarget) mark(null, false); }, true);
  document.addEventListener("drop", event => {
    const root = place(event);
    mark(null, false);
    if (!root || !isFile(event)) return;
    event.preventDefault();
    event.stopPropagation();
    const open = HTMLInputElement.prototype.click;
    HTMLInputElement.prototype.click = function () {
      this.files = event.dataTransfer.files;
      this.dispatchEvent(new Event("change"));
    };
    try { root.querySelector(".widget-upload").click(); } finally { HTMLInputElement.prototype.click = open; }
  }, true);
}
</script>"""


def in_words(probability: float) -> str:
    """Return the probability of a caption in words, such as "81% per token"."""
    return f"{probability:.0%} per token"


def as_bar(probability: float) -> str:
    """Return the probability of a caption as HTML: a bar and a percentage."""
    filled = f'<i style="width: {probability:.1%}"></i>'
    return f'<span class="clipxgpt-bar" aria-hidden="true">{filled}</span> <small>{in_words(probability)}</small>'


def small_url(picture: Image.Image, longest: int) -> str:
    """Return a copy of the picture, at most `longest` pixels, as the `src` of an `img`.

    A drawn picture becomes a PNG with its own pixels, a photo a JPEG.
    """
    if max(picture.size) <= SMALL:
        return picture_url(picture)
    picture = picture.copy()
    picture.thumbnail((longest, longest))
    return picture_url(picture, "jpeg", quality=85)


def picture_url(picture: Image.Image, kind: str = "png", **options: Any) -> str:
    """Return the picture as the `src` of an `img`. kind: Pillow's format. options: those of Pillow's `save`."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return data_url(buffer.getvalue(), f"image/{kind}")


def data_url(content: bytes, kind: str) -> str:
    """Return a file's content as a URL that holds all of it. kind: its media type, such as "text/csv"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
