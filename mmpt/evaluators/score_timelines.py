"""Scores of labels over the seconds of a video, and the spans that they make.

Returns a matplotlib ``Figure`` drawn without pyplot, as those of :mod:`mmpt.evaluators.figures`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.evaluators.figure_style import (
    LIGHT,
    WIDTH,
    Theme,
    blank_figure,
    colour_bar,
    colour_ramp,
    ink_on,
    label_colour,
    shortened,
    style_axes,
)
from mmpt.utils.errors import DataError

__all__ = ["score_timeline"]

#: Lines of more labels than this cannot be told apart; rows of colours can.
_MOST_LINES = 6
#: More rows make no picture that a screen, or the drawing library, takes.
_MOST_ROWS = 60
_NAME = 30


def score_timeline(
    scores: npt.NDArray[np.floating],
    labels: Sequence[str],
    starts: npt.NDArray[np.floating],
    ends: npt.NDArray[np.floating],
    spans: Sequence[tuple[float, float, str]] = (),
    theme: Theme = LIGHT,
    title: str = "",
    width: float = WIDTH,
) -> Any:
    """Draw the scores of labels over a video, and the spans in which a label is the best.

    Up to six labels are lines, above a bar of spans in the colours of the lines; more are rows whose colour is the
    score, and spans are framed. Of more than sixty, those are shown that have spans or else the highest scores.

    Args:
        scores: (T, L), of every part and label.
        labels: the L names.
        starts: (T,), seconds at which the parts begin.
        ends: (T,), at which they end.
        spans: (start, end, label) in seconds; none: no bar.
        theme: colours.
        title: above all.
        width: inches.

    Raises:
        DataError: if the shapes do not belong together.
    """
    if scores.shape != (len(starts), len(labels)) or len(starts) != len(ends) or not scores.size:
        raise DataError(
            f"scores of shape {scores.shape} for {len(labels)} labels, {len(starts)} starts, {len(ends)} ends"
        )
    if len(labels) > _MOST_LINES:
        return _as_rows(scores, labels, starts, ends, spans, theme, title, width)
    figure = blank_figure(width, 3.5 if spans else 2.9)
    grid = figure.add_gridspec(2 if spans else 1, 1, height_ratios=[2.4, 0.5] if spans else None)
    upper = figure.add_subplot(grid[0])
    style_axes(upper, theme, shortened(title, 80), "" if spans else "seconds", "score", "y")
    _lines(figure, upper, scores, labels, starts, ends, theme)
    upper.set_xlim(starts[0], ends.max())
    if spans:
        lower = figure.add_subplot(grid[1], sharex=upper)
        style_axes(lower, theme, "", "seconds", "", grid="")
        upper.tick_params(labelbottom=False)
        _bar(lower, spans, labels, 10.4 * width / float(ends.max() - starts[0]))
    return figure


def _lines(
    figure: Any, axes: Any, scores: np.ndarray, labels: Sequence[str], starts: np.ndarray, ends: np.ndarray,
    theme: Theme,
) -> None:  # fmt: skip
    marker = "o" if len(starts) <= 40 else None
    for number, label in enumerate(labels):
        look = {"color": label_colour(number), "linewidth": 1.8, "marker": marker, "markersize": 3}
        axes.plot((starts + ends) / 2, scores[:, number], label=shortened(label, _NAME), **look)
    axes.margins(y=0.12)
    place = {"loc": "outside lower left", "ncols": min(4, len(labels)), "fontsize": 9}
    figure.legend(frameon=False, labelcolor=theme.text, **place)


def _as_rows(
    scores: np.ndarray, labels: Sequence[str], starts: np.ndarray, ends: np.ndarray,
    spans: Sequence[tuple[float, float, str]], theme: Theme, title: str, width: float,
) -> Any:  # fmt: skip
    rows = _chosen_rows(scores, labels, {label for _, _, label in spans})
    note = "" if len(rows) == len(labels) else f"   ({len(rows)} of {len(labels)} labels)"
    scores, labels = scores[:, rows], [labels[row] for row in rows]
    figure = blank_figure(width, 0.3 * len(labels) + 1.2)
    axes = figure.add_subplot()
    style_axes(axes, theme, shortened(title, 80), "seconds" + note, "", grid="")
    edges = np.append(starts, ends[-1])  # parts may overlap: each is drawn up to the next
    image = axes.pcolormesh(edges, np.arange(len(labels) + 1) - 0.5, scores.T, cmap=colour_ramp(theme))
    for start, end, label in spans:
        if label not in labels:
            continue
        row = (list(labels).index(label) - 0.5, 1)
        axes.broken_barh([(start, end - start)], row, facecolor="none", edgecolor=theme.series[1], linewidth=2)
    axes.set_xlim(starts[0], ends.max())
    axes.set_yticks(range(len(labels)), [shortened(label, _NAME) for label in labels])
    axes.invert_yaxis()
    colour_bar(figure, image, axes, theme, fraction=0.03, pad=0.01)
    return figure


def _chosen_rows(scores: np.ndarray, labels: Sequence[str], spanned: set[str]) -> list[int]:
    """Return the numbers of the labels that have a row, in order: those with spans first, then by highest score."""
    order = sorted(range(len(labels)), key=lambda row: (labels[row] not in spanned, -float(scores[:, row].max())))
    return sorted(order[:_MOST_ROWS])


def _bar(axes: Any, spans: Sequence[tuple[float, float, str]], labels: Sequence[str], letters_a_second: float) -> None:
    for start, end, label in spans:
        colour = label_colour(list(labels).index(label))
        axes.broken_barh([(start, end - start)], (0, 1), color=colour, linewidth=0)
        letters = int((end - start) * letters_a_second)  # that many fit into the bar
        if letters >= 4:
            look = {"ha": "center", "va": "center", "color": ink_on(colour), "fontsize": 8.5, "clip_on": True}
            axes.text((start + end) / 2, 0.5, shortened(label, letters), **look)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.5], ["best"])
