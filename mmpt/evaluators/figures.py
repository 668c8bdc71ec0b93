"""Figures of a report: loss curves, histogram of ranks, example retrievals.

Every function returns a matplotlib ``Figure`` drawn without pyplot, so that nothing is global.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.evaluators.figure_style import LIGHT, WIDTH, Theme, blank_figure, shortened, style_axes
from mmpt.evaluators.training_log import TrainingLog

__all__ = [
    "Example",
    "Shown",
    "loss_curves",
    "rank_histogram",
    "retrieval_gallery",
]

_PANELS_IN_A_ROW = 3
#: A curve that fills less than this share of a scale's height is flat.
_FLAT = 0.4
_RANK_EDGES = (1, 2, 6, 11, 21, 51, 101, 501)


@dataclass(frozen=True)
class Shown:
    """One retrieved video: score, whether it is the right one, its place, and frames ``(n, h, w, 3)`` uint8."""

    video_id: str
    score: float
    right: bool
    place: int
    frames: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Example:
    """A query and its best videos; ``rank`` is that of the right one."""

    query: str
    rank: int
    shown: Sequence[Shown] = field(default_factory=tuple)


def loss_curves(logs: Mapping[str, TrainingLog], theme: Theme = LIGHT) -> Any:
    """Draw training and validation loss over updates: one panel per training run, up to three in a row.

    A panel says its batch sizes, as a contrastive loss grows with the pairs of a batch. Where that puts the two
    curves far apart, validation has an axis of its own at the right.
    """
    shown = {name: log for name, log in logs.items() if log}
    columns, rows = max(1, min(_PANELS_IN_A_ROW, len(shown))), max(1, -(-len(shown) // _PANELS_IN_A_ROW))
    figure = blank_figure(WIDTH if columns > 1 else 6.4, 3.1 * rows + 0.4)
    handles: dict[str, Any] = {}  # one of each kind of curve, for the legend
    for position, (name, log) in enumerate(shown.items()):
        axes = figure.add_subplot(rows, columns, position + 1)
        style_axes(axes, theme, name, "updates", "loss" if position % columns == 0 else "", pad=24)
        handles |= _training_curve(axes, log, theme)
        if len(log.valid):
            handles |= _validation_curve(_own_scale(axes, theme) if _far_apart(log) else axes, log, theme)
        axes.margins(y=0.15)
        axes.text(0, 1.04, _facts(log), transform=axes.transAxes, color=theme.muted, fontsize=8.5)
    if handles:
        place = {"loc": "outside lower left", "ncols": len(handles), "fontsize": 9}
        figure.legend(handles.values(), handles, frameon=False, labelcolor=theme.text, **place)
    return figure


def _training_curve(axes: Any, log: TrainingLog, theme: Theme) -> dict[str, Any]:
    train = log.inner if len(log.inner) else log.epochs
    updates, values = train.updates, train.values
    if len(train) > 30:  # the mean of a twentieth of the run, over the raw values
        axes.plot(updates, values, color=theme.series[0], linewidth=0.8, alpha=0.35)
        updates, values = _smoothed(updates, values)
    return {"training": axes.plot(updates, values, color=theme.series[0], linewidth=2)[0]}


def _validation_curve(axes: Any, log: TrainingLog, theme: Theme) -> dict[str, Any]:
    valid, colour = log.valid, theme.series[1]
    marker = "o" if len(valid) <= 40 else None
    (line,) = axes.plot(valid.updates, valid.values, color=colour, marker=marker, markersize=4, linewidth=1.6)
    best = _best(log)
    if best is not None:
        axes.scatter(valid.updates[best], valid.values[best], s=70, facecolors="none", edgecolors=colour, zorder=3)
    return {"validation (best: ringed)": line}


def _best(log: TrainingLog) -> int | None:
    """Return the place of the lowest validation loss, if there is one."""
    values = log.valid.values
    return int(np.nanargmin(values)) if np.isfinite(values).any() else None


def _facts(log: TrainingLog) -> str:
    sizes = (("training", log.train_batch), ("validation", log.valid_batch))
    known, best = ", ".join(f"{kind} {size}" for kind, size in sizes if size is not None), _best(log)
    facts = (f"batch: {known}" if known else "", "" if best is None else f"best {log.valid.values[best]:.3g}")
    return "; ".join(filter(None, facts))


def _far_apart(log: TrainingLog) -> bool:
    """Tell whether batches of different sizes put the losses of a run so far apart that one scale flattens a curve."""
    curves = [(log.inner if len(log.inner) else log.epochs).values, log.valid.values]
    finite = [values[np.isfinite(values)] for values in curves]
    if log.train_batch == log.valid_batch or not all(map(len, finite)):
        return False
    return min(map(np.ptp, finite)) < _FLAT * np.ptp(np.concatenate(finite))


def _own_scale(axes: Any, theme: Theme) -> Any:
    """Return axes over others, with a scale at the right in the colour of the validation curve."""
    twin = axes.twinx()
    twin.spines[:].set_visible(False)
    twin.margins(y=0.15)
    twin.tick_params(axis="y", colors=theme.series[1], labelsize=9, length=0)
    axes.tick_params(axis="y", colors=theme.series[0])
    return twin


def _smoothed(updates: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    width = max(3, len(values) // 20)
    return updates[width // 2 :][: len(values) - width + 1], np.convolve(values, np.ones(width) / width, mode="valid")


def rank_histogram(ranks: Mapping[str, npt.NDArray[np.integer]], candidates: int, theme: Theme = LIGHT) -> Any:
    """Draw the share of queries by the rank of the right video, one colour per test, beside pure chance.

    ``candidates`` is the number of videos that are ranked.
    """
    edges = [edge for edge in _RANK_EDGES if edge <= candidates] + [candidates + 1]
    pairs = list(itertools.pairwise(edges))
    labels = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in pairs]
    figure = blank_figure(WIDTH, 3.4)
    axes = figure.add_subplot()
    width = 0.8 / max(1, len(ranks))
    places = np.arange(len(pairs))
    for position, (name, values) in enumerate(ranks.items()):
        share = np.array([100 * np.mean((values >= low) & (values < high)) for low, high in pairs])
        offset = places + (position - (len(ranks) - 1) / 2) * width
        colour = theme.series[position % len(theme.series)]
        bars = axes.bar(offset, share, width * 0.92, color=colour, label=name)
        axes.bar_label(bars, [f"{value:.0f}" if value >= 0.5 else "" for value in share], **_bar_text(theme))
    chance = [100 * (high - low) / candidates for low, high in pairs]
    axes.scatter(
        places, chance, marker="_", s=900 / max(1, len(pairs)) ** 0.5, color=theme.text, zorder=3, label="chance"
    )
    axes.set_xticks(places, labels)
    style_axes(axes, theme, "Rank of the right video", f"rank among {candidates} videos", "% of queries")
    axes.margins(y=0.14)
    axes.legend(frameon=False, labelcolor=theme.text, fontsize=9)
    return figure


def _bar_text(theme: Theme) -> dict[str, Any]:
    return {"color": theme.muted, "fontsize": 8, "padding": 2}


def retrieval_gallery(examples: Sequence[Example], theme: Theme = LIGHT, title: str = "Example retrievals") -> Any:
    """Draw a row per query: its text, then its best videos with score; the right one is framed.

    A video without frames is an empty tile with its id.
    """
    columns = max((len(example.shown) for example in examples), default=1)
    figure = blank_figure(2.0 * columns + 0.2, 2.15 * len(examples) + 0.5)
    figure.suptitle(title, x=0.01, ha="left", color=theme.text, fontsize=12, fontweight="bold")
    for part, example in zip(np.atleast_1d(figure.subfigures(len(examples), 1)), examples, strict=True):
        part.patch.set_alpha(0.0)
        heading = f"“{shortened(example.query)}”   rank {example.rank}"
        part.suptitle(heading, x=0.01, ha="left", color=theme.text, fontsize=9.5)
        tiles = np.atleast_1d(part.subplots(1, columns))
        for axes in tiles[len(example.shown) :]:
            axes.set_axis_off()
        for axes, item in zip(tiles, example.shown, strict=False):
            _tile(axes, item, theme)
    return figure


def _tile(axes: Any, item: Shown, theme: Theme) -> None:
    colour = theme.right if item.right else theme.wrong
    axes.set_xticks([])
    axes.set_yticks([])
    if item.frames is not None and len(item.frames):
        axes.imshow(item.frames[len(item.frames) // 2])
    else:
        axes.set_facecolor("none")
        axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(3 if item.right else 1)
    mark = " ✓" if item.right else ""
    axes.set_title(f"{item.place}. {item.score:.2f}{mark}", fontsize=8.5, color=colour if item.right else theme.muted)
    axes.set_xlabel(shortened(item.video_id, 24), fontsize=7.5, color=theme.muted)
