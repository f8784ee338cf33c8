"""The report, opened as a file, is complete and has no errors in the light and dark themes."""

import os
import shutil

import pandas as pd
import pytest

from helpers.sharing.report import write_report

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_an_error_and_texts_are_text(finished, data, open_page, tmp_path, scheme):
    run = shutil.copytree(finished.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    names = data.image_names()[:6]
    captions = [HOSTILE, *("A small red circle above a blue square." for _ in names[1:])]
    pd.DataFrame({"image_name": names, "caption": captions}).to_csv(run / "captions.csv", index=False)
    page, trouble = open_page(color_scheme=scheme)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(write_report(run, images=data.images).as_uri())

    pictures = page.locator("img").all()
    assert len(pictures) == 1 + len(names)
    for picture in pictures:
        assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
        assert picture.get_attribute("alt")
    assert page.locator("figcaption").first.inner_text().startswith(HOSTILE)
    assert page.locator("script").count() == 0
    lightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(lightness) > 600) == (scheme == "light")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing overflows sideways
    if where := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{where}/report-{scheme}.png", full_page=True)
    assert trouble == said == []
