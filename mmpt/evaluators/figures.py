"""Figures of a report: loss curves, similarity heat map, histogram of ranks, example retrievals.

Every function returns a matplotlib ``Figure`` drawn without pyplot, so that nothing is global.
Colours come from one palette that stays apart for the colour-blind (Okabe and Ito, 2008).
"""

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.evaluators.training_log import TrainingLog
from mmpt.utils.extras import require

__all__ = [
    "DARK",
    "LIGHT",
    "WIDTH",
    "Example",
    "Shown",
    "Theme",
    "blank_figure",
    "loss_curves",
    "rank_histogram",
    "retrieval_gallery",
    "shortened",
    "similarity_heatmap",
    "style_axes",
    "to_bytes",
]

#: Inches that fill the page.
WIDTH = 10.6
_PANELS_IN_A_ROW = 3
#: A curve that fills less than this share of a scale's height is flat.
_FLAT = 0.4
_RANK_EDGES = (1, 2, 6, 11, 21, 51, 101, 501)


@dataclass(frozen=True)
class Theme:
    """Colours of a figure; the background stays transparent."""

    text: str
    muted: str
    grid: str
    series: tuple[str, ...]
    right: str
    wrong: str
    colormap: str


LIGHT = Theme(
    "#1f2933", "#697586", "#e3e8ef", ("#0072b2", "#d55e00", "#009e73", "#cc79a7"), "#0b8457", "#9aa5b1", "mako_light"
)
DARK = Theme(
    "#e6edf3", "#9aa7b4", "#30363d", ("#56b4e9", "#f0883e", "#2fbf8f", "#e29fc4"), "#3fb984", "#6e7681", "mako_dark"
)
# from the page's own background to a strong colour, so that low scores vanish and the diagonal stands out
_RAMPS = {
    "mako_light": ("#f7f9fb", "#b9dfe3", "#4fb0bf", "#23698f", "#1b2a54"),
    "mako_dark": ("#10161d", "#1c3350", "#23698f", "#4fb0bf", "#e4f6f1"),
}


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


def blank_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure of a size in inches, transparent and without pyplot's global state."""
    figure_module = require("matplotlib.figure", "report")
    require("matplotlib.backends.backend_agg", "report").FigureCanvasAgg(
        figure := figure_module.Figure(figsize=(width, height), layout="constrained")
    )
    figure.patch.set_alpha(0.0)
    return figure


def style_axes(axes: Any, theme: Theme, title: str, x: str, y: str, grid: str = "y", pad: float = 10) -> None:
    """Give axes the look of the report; ``x`` and ``y`` are their labels, ``pad`` points below the title."""
    axes.set_facecolor("none")
    axes.set_title(title, loc="left", color=theme.text, fontsize=11, fontweight="bold", pad=pad)
    axes.set_xlabel(x, color=theme.muted, fontsize=9.5)
    axes.set_ylabel(y, color=theme.muted, fontsize=9.5)
    axes.tick_params(colors=theme.muted, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.grid)
    if grid:
        axes.grid(axis=grid, color=theme.grid, linewidth=0.8)
        axes.set_axisbelow(True)


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
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=theme.muted, labelsize=8.5, length=0)
    bar.set_label("score", color=theme.muted, fontsize=9)
    return figure


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


def shortened(text: str, limit: int = 90) -> str:
    """Return a text cut to ``limit`` characters, the last one an ellipsis where it was longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def to_bytes(figure: Any, file_format: str = "svg", dpi: int = 140) -> bytes:
    """Render a figure as SVG or PNG with a transparent background; equal figures give equal bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else {"Software": None}
    with require("matplotlib", "report").rc_context({"svg.hashsalt": "mmpt", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=file_format, dpi=dpi, metadata=metadata)
    return buffer.getvalue()
