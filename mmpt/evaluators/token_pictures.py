"""Words and frames with what a model makes of them: which words are masked, what is attended to.

Every function returns a matplotlib ``Figure`` drawn without pyplot, so that nothing is global.
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
    ink_on,
    shortened,
)
from mmpt.utils.errors import DataError
from mmpt.utils.extras import require

__all__ = ["attention_picture", "masking_picture"]

#: Inches of a character of a word, of what stands around a word, of a line of words, and of a frame.
_CHARACTER, _AROUND, _LINE = 0.111, 0.17, 0.36
_TILE = 2.2
_NAME = 24


def masking_picture(rows: Sequence[tuple[str, Sequence[str], npt.NDArray[np.bool_]]], theme: Theme = LIGHT) -> Any:
    """Draw texts word by word; the words that are masked are filled.

    Args:
        rows: of each text its name, its words, and bool (W,), which of them are masked.
        theme: colours.

    Raises:
        DataError: if a mask is not as long as its words, or there is no row.
    """
    if not rows or any(len(words) != len(masked) for _, words, masked in rows):
        raise DataError("masks and words differ in number, or there are none")
    lines = [_wrapped(words, WIDTH) for _, words, _ in rows]
    heights = [1 + max((line for line, _ in places), default=0) for places in lines]
    figure = blank_figure(WIDTH, _LINE * (sum(heights) + 0.5 * len(rows)) + 0.2)
    parts = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (name, words, masked), places, height in zip(parts, rows, lines, heights, strict=True):
        colours = [theme.series[1] if hidden else theme.grid for hidden in masked]
        _words(axes, words, places, (WIDTH, height), colours)
        axes.set_title(shortened(name, 80), loc="left", color=theme.muted, fontsize=9)
    return figure


def attention_picture(
    frames: npt.NDArray[np.uint8],
    patches: npt.NDArray[np.floating],
    words: Sequence[str],
    weights: npt.NDArray[np.floating],
    theme: Theme = LIGHT,
    title: str = "",
) -> Any:
    """Draw how much the patches of frames and the words of a text are attended to, both on one scale.

    Args:
        frames: uint8 (N, H, W, 3).
        patches: (N, rows, columns), of each patch.
        words: of the text.
        weights: (W,), of each word.
        theme: colours.
        title: above all.

    Raises:
        DataError: if the shapes do not belong together.
    """
    if len(frames) != len(patches) or patches.ndim != 3 or len(words) != len(weights) or not len(frames):
        raise DataError(
            f"attention of shape {patches.shape} for {len(frames)} frames, of {len(weights)} for {len(words)} words"
        )
    tile = min(_TILE, (WIDTH - 1) / len(frames))
    width = max(5.5, tile * len(frames) + 1)
    places = _wrapped(words, width)
    height = 1 + max((line for line, _ in places), default=0)
    tall = 2 * tile * frames.shape[1] / frames.shape[2] + 0.4
    figure = blank_figure(width, tall + _LINE * height + 0.15)
    upper, lower = figure.subfigures(2, 1, height_ratios=[tall, _LINE * height + 0.15])
    upper.patch.set_alpha(0.0)
    lower.patch.set_alpha(0.0)
    if title:
        upper.suptitle(
            shortened(title, int(9 * width)), x=0.01, ha="left", color=theme.text, fontsize=11, fontweight="bold"
        )
    scale = _scale(patches, weights)
    tiles = upper.subplots(2, len(frames), squeeze=False)
    for column, (frame, heat) in enumerate(zip(frames, patches, strict=True)):
        image = _frame(tiles[0, column], tiles[1, column], frame, heat, scale, theme)
    colour_bar(upper, image, list(tiles.flat), theme, "attention received", fraction=0.02, pad=0.01)
    _words(lower.subplots(), words, places, (width, height), [_ramp(theme)(scale(weight)) for weight in weights])
    return figure


def _scale(patches: np.ndarray, weights: np.ndarray) -> Any:
    """Return what brings attention to 0 to 1; a single position that gets nearly all does not make the rest vanish."""
    every = np.concatenate([patches.ravel(), np.asarray(weights)])
    high = float(np.percentile(every, 99))
    return require("matplotlib.colors", "report").Normalize(float(every.min()), max(high, 1e-12), clip=True)


def _frame(above: Any, below: Any, frame: np.ndarray, heat: np.ndarray, scale: Any, theme: Theme) -> Any:
    """Draw a frame, and below it in grey under its attention; return the latter."""
    grey = np.repeat(frame.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    for axes, picture in ((above, frame), (below, grey)):
        axes.imshow(picture)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    height, width = frame.shape[:2]
    edges = (-0.5, width - 0.5, height - 0.5, -0.5)
    shown = 0.8 * np.asarray(scale(heat), float)  # what is not attended to is seen as it is
    return below.imshow(heat, cmap=_ramp(theme), norm=scale, alpha=shown, extent=edges, interpolation="nearest")


def _ramp(theme: Theme) -> Any:
    """Return colours that stand out of a grey frame, from that of lines to that of the second series."""
    colours = require("matplotlib.colors", "report")
    return colours.LinearSegmentedColormap.from_list("attention", (theme.grid, theme.series[1]))


def _wrapped(words: Sequence[str], page: float) -> list[tuple[int, float]]:
    """Return the line of each word, and its left edge in inches, on a page of so many inches."""
    places, line, left = [], 0, 0.0
    for word in words:
        width = _width(word)
        if left and left + width > page:
            line, left = line + 1, 0.0
        places.append((line, left))
        left += width
    return places


def _width(word: str) -> float:
    return _CHARACTER * len(shortened(word, _NAME)) + _AROUND


def _words(
    axes: Any, words: Sequence[str], places: Sequence[tuple[int, float]], size: tuple[float, int],
    colours: Sequence[Any],
) -> None:  # fmt: skip
    for word, (line, left), colour in zip(words, places, colours, strict=True):
        axes.barh(line, _width(word) - 0.06, 0.8, left, color=colour, linewidth=0)
        middle = left + (_width(word) - 0.06) / 2
        axes.text(middle, line, shortened(word, _NAME), ha="center", va="center", color=ink_on(colour), fontsize=9)
    axes.set_xlim(0, size[0])
    axes.set_ylim(size[1] - 0.5, -0.5)
    axes.set_facecolor("none")
    axes.set_axis_off()
