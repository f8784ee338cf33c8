"""Figures of single captions show any text as it is."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from helpers.plots.captions import as_image, plot_attention, plot_confidence, plot_grid, show_rows

PICTURE = Image.new("RGB", (9, 5), "red")
ODD = "$5 for a_dog \\ <b>ü</b>"


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_rows_have_titles_and_may_differ_in_length(tmp_path):
    figure = show_rows(
        {"best": [(PICTURE, ODD, None), (PICTURE, "b\nsecond line", True)], "worst": [(PICTURE, "c", False)]}
    )
    axes = figure.axes
    assert [axis.get_ylabel() for axis in axes] == ["best", "", "worst", ""]
    assert [axis.get_xlabel() for axis in axes] == [ODD, "b\nsecond line", "c", ""]
    assert [len(axis.images) for axis in axes] == [1, 1, 1, 0]
    assert len({axis.xaxis.label.get_color() for axis in axes[:3]}) == 3
    figure.savefig(tmp_path / "rows.png")
    show_rows({}).savefig(tmp_path / "empty.png")


def test_surer_words_are_darker(tmp_path):
    figure = plot_confidence([PICTURE, PICTURE], [[("a", 0.1), (ODD, 0.99)], [("b", 1.0)]])
    _, first, _, second = figure.axes
    assert texts(first) == ["a", "0.10", ODD, "0.99"]
    assert texts(second) == ["b", "1.00"]
    brightness = [sum(patch.get_facecolor()[:3]) for patch in first.patches]
    assert brightness[0] > brightness[1]
    assert first.patches[0].get_x() + first.patches[0].get_width() < first.patches[1].get_x()
    figure.savefig(tmp_path / "confidence.png")


def test_attention_has_a_row_per_word_and_a_column_per_prefix_vector(tmp_path):
    ratios = torch.tensor([[0.25, 0.75, torch.nan], [1.1, 0.2, 1.4], [0.0, 0.5, 1.9]])
    figure = plot_attention([PICTURE, PICTURE], [(["a", ODD, "c"], ratios)] * 2)
    below = figure.axes[2]
    assert [label.get_text() for label in below.get_yticklabels()] == ["a", ODD, "c"]
    assert [label.get_text() for label in below.get_xticklabels()] == ["prefix 1", "prefix 2", "words\nbefore"]
    assert texts(below) == ["0.2", "0.8", "1.1", "0.2", "1.4", "0.0", "0.5", "1.9"]  # none for no words before
    figure.savefig(tmp_path / "attention.png")


def test_a_grid_names_its_rows_and_columns_and_shades_ratios_around_one(tmp_path):
    table = pd.DataFrame({"color": [0.0, 1.0], ODD: [0.5, np.nan]}, index=pd.RangeIndex(1, 3, name="vector"))
    (axis,) = plot_grid(table).axes
    assert texts(axis) == ["0.00", "0.50", "1.00"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["color", ODD]
    assert axis.get_ylabel() == "vector"
    figure = plot_grid(table + 0.5, ratio=True)
    (image,) = figure.axes[0].images
    white = image.cmap(image.norm(1.0))
    assert white[:3] == pytest.approx((1, 1, 1), abs=0.02)
    assert image.cmap(image.norm(1.5))[2] > image.cmap(image.norm(0.5))[2]  # blue above 1
    figure.savefig(tmp_path / "grid.png")


def test_a_figure_as_an_image_is_described_alike_whatever_it_shows():
    images = [as_image(show_rows({str(row): [] for row in range(rows)})) for rows in (1, 3)]
    assert images[0].data.startswith(b"\x89PNG")
    assert images[0].data != images[1].data
    assert repr(images[0]) == repr(images[1])
