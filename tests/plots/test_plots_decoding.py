"""The figures of decoding show every token they are given, and set kept from dropped ones apart."""

import io

from helpers.plots.decoding import plot_beam_tree, plot_next_tokens


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_bars_of_one_order_in_every_panel():
    figure = plot_next_tokens({"T 0.5": [("red", 0.9, True), ("$a$", 0.1, False)],
                               "T 2": [("red", 0.6, True), ("$a$", 0.4, True)]})  # fmt: skip
    figure.savefig(io.BytesIO())  # two dollar signs are no formula
    left, right = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["T 0.5", "T 2"]
    assert [bar.get_width() for bar in left.patches] == [0.9, 0.1]
    colors = [[bar.get_facecolor() for bar in axis.patches] for axis in (left, right)]
    assert colors[0][0] == colors[1][0] == colors[1][1] != colors[0][1]


def test_a_tree_has_a_box_and_a_line_for_each_beginning():
    steps = [[("a", 0.6, 0, True), ("two", 0.3, 0, True), ("$x$", 0.1, 0, False)],
             [("red", 0.3, 1, True), ("dog", 0.2, 0, True), ("cat", 0.1, 0, False)]]  # fmt: skip
    figure = plot_beam_tree(steps)
    figure.savefig(io.BytesIO())
    assert texts(figure) == ["a\n0.6", "two\n0.3", "$x$\n0.1", "red\n0.3", "dog\n0.2", "cat\n0.1"]
    lines = figure.axes[0].get_lines()[:6]
    assert list(lines[3].get_ydata()) == [1, 0]  # from the second beginning to the first of its step
    assert lines[0].get_color() != lines[2].get_color()
