"""Figures of decoding: the likeliest next tokens at several temperatures, and the tree of a beam search."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .base import BLUE, GREY

LEFT_OUT = "#c9ccd1"  # tokens and beginnings that are not taken
INK = "#1f2328"


def plot_next_tokens(choices: Mapping[str, Sequence[tuple[str, float, bool]]]) -> Figure:
    """Return one panel of bars per choice, the likeliest token on top; those that may be drawn are blue.

    choices: for each title the (token, probability, may be drawn), in one order for all panels.
    """
    longest = max(len(bars) for bars in choices.values())
    highest = max(probability for bars in choices.values() for _, probability, _ in bars)
    figure = Figure(figsize=(2.8 * len(choices), 0.8 + 0.26 * longest), layout="constrained", dpi=80)
    panels = figure.subplots(1, len(choices), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (title, bars) in zip(panels, choices.items(), strict=True):
        tokens, probabilities, drawn = zip(*bars, strict=True)
        colors = [BLUE if may else LEFT_OUT for may in drawn]
        axis.bar_label(axis.barh(range(len(tokens)), probabilities, color=colors), fmt="%.2f", padding=2, fontsize=8)
        axis.set_yticks(range(len(tokens)), tokens, fontsize=9, parse_math=False)
        axis.set_title(title, fontsize=10, parse_math=False)
        axis.set(xlabel="probability", xlim=(0, 1.25 * highest))
        axis.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    return figure


def plot_beam_tree(steps: Sequence[Sequence[tuple[str, float, int, bool]]]) -> Figure:
    """Return a beam search as a tree from left to right: one column per step, kept beginnings blue, dropped ones gray.

    steps: for each step its (token, probability of the whole beginning, parent, kept), likeliest first. parent: the
    place among the kept ones of the step before; 0 in the first step.
    """
    highest = max(len(step) for step in steps)
    figure = Figure(figsize=(1.2 + 1.25 * len(steps), 0.5 + 0.46 * highest), layout="constrained", dpi=80)
    axis = figure.subplots()
    axis.set(xlim=(-0.65, len(steps) - 0.45), ylim=(highest - 0.4, -0.6))
    axis.axis("off")
    kept_at = [((highest - 1) / 2, -0.6)]  # height and right end of each beginning that goes on
    for column, step in enumerate(steps):
        going_on = []
        for row, (token, probability, parent, kept) in enumerate(step):
            height, end = kept_at[parent]
            axis.plot([end, column - 0.36], [height, row], color=BLUE if kept else LEFT_OUT, linewidth=1.2, zorder=1)
            box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": BLUE if kept else LEFT_OUT}
            shown = f"{probability:.2g}" if probability >= 0.001 else "< 0.001"
            axis.text(column, row, f"{token}\n{shown}", ha="center", va="center", fontsize=8, zorder=2,
                      color=INK if kept else GREY, bbox=box, parse_math=False)  # fmt: skip
            if kept:
                going_on.append((row, column + 0.36))
        kept_at = going_on
    axis.plot([], [], color=BLUE, label="kept")
    axis.plot([], [], color=LEFT_OUT, label="dropped")
    axis.legend(frameon=False, fontsize=8, loc="lower left", ncols=2, bbox_to_anchor=(0, -0.06))
    return figure
