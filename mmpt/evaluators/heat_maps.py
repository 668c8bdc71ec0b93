"""Matrices as colours: similarities of texts and videos, attention and its masks.

Every function returns a matplotlib ``Figure`` drawn without pyplot, so that nothing is global.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.evaluators.figure_style import (
    LIGHT,
    Theme,
    blank_figure,
    colour_bar,
    colour_ramp,
    ink_on,
    shortened,
    style_axes,
)
from mmpt.utils.errors import DataError

__all__ = ["mask_picture", "named_heatmap", "similarity_heatmap"]

#: Cells of more columns than this have no room for their numbers.
_MOST_NUMBERS = 12
_NAME = 36


def similarity_heatmap(
    scores: npt.NDArray[np.floating], theme: Theme = LIGHT, title: str = "Text-video similarity", matching: bool = True
) -> Any:
    """Draw scores ``(texts, videos)``; with ``matching``, text i belongs to video i and rows are sorted by text."""
    figure = blank_figure(5.6, 4.9)
    axes = figure.add_subplot()
    low, high = np.percentile(scores, (25, 99.7))
    image = axes.imshow(scores, cmap=colour_ramp(theme), vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
    style_axes(axes, theme, title, "videos", "texts", grid="")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)
    if matching:
        note = "sorted by text, matches on the diagonal"
        axes.text(1.0, 1.015, note, transform=axes.transAxes, ha="right", color=theme.muted, fontsize=8.5)
    colour_bar(figure, image, axes, theme)
    return figure


def named_heatmap(
    scores: npt.NDArray[np.floating],
    rows: Sequence[str],
    columns: Sequence[str],
    theme: Theme = LIGHT,
    title: str = "Text-video similarity",
    label: str = "score",
) -> Any:
    """Draw a small matrix with the names of its rows and columns; up to twelve columns, with its numbers.

    Args:
        scores: (rows, columns), such as ``VideoTextPipeline.similarity`` gives.
        rows: names, texts say.
        columns: names, videos say.
        theme: colours.
        title: above it.
        label: what the numbers are.

    Raises:
        DataError: if the names do not fit the shape.
    """
    if scores.shape != (len(rows), len(columns)) or not scores.size:
        raise DataError(f"{len(rows)} row and {len(columns)} column names for scores of shape {scores.shape}")
    longest = min(_NAME, max(map(len, rows)))
    width = 1.4 + 0.075 * longest + 0.62 * len(columns)
    figure = blank_figure(max(4.2, width), 1.0 + 0.42 * len(rows) + 0.05 * min(_NAME, max(map(len, columns))))
    axes = figure.add_subplot()
    image = axes.imshow(scores, cmap=colour_ramp(theme), aspect="auto", interpolation="nearest")
    style_axes(axes, theme, title, "", "", grid="")
    axes.set_xticks(range(len(columns)), [shortened(name, _NAME) for name in columns], rotation=35, ha="right")
    axes.set_yticks(range(len(rows)), [shortened(name, _NAME) for name in rows])
    axes.spines["bottom"].set_visible(False)
    if len(columns) <= _MOST_NUMBERS:
        _numbers(axes, image, scores)
    colour_bar(figure, image, axes, theme, label)
    return figure


def _numbers(axes: Any, image: Any, scores: np.ndarray) -> None:
    """Write each number into its cell, dark on light and light on dark."""
    for row, column in np.ndindex(*scores.shape):
        colour = ink_on(image.cmap(image.norm(scores[row, column])))
        axes.text(column, row, f"{scores[row, column]:.2f}", ha="center", va="center", color=colour, fontsize=8.5)


def mask_picture(
    seen: npt.NDArray[np.bool_] | npt.NDArray[np.floating],
    segments: Sequence[tuple[str, int]],
    theme: Theme = LIGHT,
    title: str = "Who sees whom",
) -> Any:
    """Draw an attention mask, or attention itself, with the segments of its sequence named.

    Args:
        seen: (L, L), a row per query and a column per key: bool of :mod:`mmpt.modules.attention_masks`, or weights.
        segments: (name, positions) of the segments in order, such as ``[("[CLS]", 1), ("video", 32), ("text", 20)]``.
        theme: colours.
        title: above it.

    Raises:
        DataError: if the segments do not make up the sequence.
    """
    length = sum(count for _, count in segments)
    if seen.shape != (length, length) or not length:
        raise DataError(f"segments of {length} positions for a mask of shape {seen.shape}")
    figure = blank_figure(5.8, 5.0)
    axes = figure.add_subplot()
    image = axes.imshow(seen, cmap=colour_ramp(theme), interpolation="nearest", vmin=0)
    style_axes(axes, theme, title, "seen (keys)", "by (queries)", grid="")
    edges = list(itertools.accumulate((count for _, count in segments), initial=0))
    for edge in edges[1:-1]:
        axes.axhline(edge - 0.5, color=theme.muted, linewidth=0.8)
        axes.axvline(edge - 0.5, color=theme.muted, linewidth=0.8)
    middles = [(low + high - 1) / 2 for low, high in itertools.pairwise(edges)]
    names = [shortened(name, 18) for name, _ in segments]
    axes.set_xticks(middles, names, rotation=35, ha="right")
    axes.set_yticks(middles, names)
    if seen.dtype != np.bool_:
        colour_bar(figure, image, axes, theme, "attention")
    return figure
