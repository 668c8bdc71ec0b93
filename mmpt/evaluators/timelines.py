"""What a model says happens when, beside what does: bars over the seconds of example videos.

Every function returns a matplotlib ``Figure`` drawn without pyplot, as those of :mod:`mmpt.evaluators.figures`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt.evaluators.figure_style import (
    LABEL_COLOURS,
    LIGHT,
    WIDTH,
    Theme,
    blank_figure,
    label_colour,
    shortened,
    style_axes,
)

__all__ = ["LocalisedVideo", "SegmentedVideo", "Span", "localisation_timelines", "segmentation_timelines"]

_BAR, _INCHES_PER_BAR = 0.8, 0.3


@dataclass(frozen=True)
class Span:
    """Seconds ``start`` to ``end`` (the first after it) that have a label."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class SegmentedVideo:
    """A video's labelled spans, predicted and annotated; ``right`` is the share of its seconds labelled right."""

    video_id: str
    seconds: float
    predicted: Sequence[Span]
    annotated: Sequence[Span]
    right: float


@dataclass(frozen=True)
class LocalisedVideo:
    """The steps of a video: of each its name, its annotated spans and the second it was predicted at, if it was."""

    video_id: str
    seconds: float
    steps: Sequence[str]
    annotated: Sequence[Sequence[tuple[float, float]]]
    predicted: Sequence[int | None]


def segmentation_timelines(videos: Sequence[SegmentedVideo], theme: Theme = LIGHT, title: str = "") -> Any:
    """Draw two bars per video: the annotated spans over the predicted ones, one colour per label, none for background.

    At most twelve labels of a figure have colours of their own; further ones repeat them.
    """
    labels = list(dict.fromkeys(span.label for video in videos for span in (*video.annotated, *video.predicted)))
    colours = {label: label_colour(number) for number, label in enumerate(labels)}
    shown = labels[: 2 * len(LABEL_COLOURS)]
    figure = blank_figure(WIDTH, 1.1 * len(videos) + 0.9 + 0.22 * (len(shown) // 4 + 1))
    for number, video in enumerate(videos):
        axes = figure.add_subplot(len(videos), 1, number + 1)
        last = number == len(videos) - 1
        heading = f"{title}\n" if title and not number else ""
        name = f"{heading}{shortened(video.video_id, 40)}, {100 * video.right:.0f} % of the seconds right"
        style_axes(axes, theme, name, "seconds" if last else "", "", grid="x")
        for row, spans in enumerate((video.predicted, video.annotated)):
            _row(axes, row, video.seconds, theme)
            for span in spans:
                bar = (row - _BAR / 2, _BAR)
                axes.broken_barh([(span.start, span.end - span.start)], bar, color=colours[span.label], linewidth=0)
        axes.set_yticks([0, 1], ["predicted", "annotated"])
        axes.set_xlim(0, max(video.seconds, 1))
        axes.title.set_fontsize(9.5)
    _legend(figure, {label: colours[label] for label in shown}, theme)
    return figure


def localisation_timelines(videos: Sequence[LocalisedVideo], theme: Theme = LIGHT, title: str = "") -> Any:
    """Draw a row per step: its annotated spans as bars and its predicted second as a mark, filled if inside of one."""
    rows = [max(1, len(video.steps)) for video in videos]
    figure = blank_figure(WIDTH, _INCHES_PER_BAR * sum(rows) + 0.75 * len(videos) + 0.3)
    grid = figure.add_gridspec(len(videos), 1, height_ratios=[row + 2 for row in rows])
    for number, video in enumerate(videos):
        axes = figure.add_subplot(grid[number])
        heading = f"{title}\n" if title and not number else ""
        found = sum(_inside(second, spans) for second, spans in zip(video.predicted, video.annotated, strict=True))
        present = sum(bool(spans) for spans in video.annotated)
        name = f"{heading}{shortened(video.video_id, 40)}, {found} of {present} steps found"
        style_axes(axes, theme, name, "seconds" if number == len(videos) - 1 else "", "", grid="x")
        for row, (second, spans) in enumerate(zip(video.predicted, video.annotated, strict=True)):
            _row(axes, row, video.seconds, theme)
            bars = [(start, end - start) for start, end in spans]
            axes.broken_barh(bars, (row - _BAR / 2, _BAR), color=theme.series[0], alpha=0.55, linewidth=0)
            if second is not None:
                right = _inside(second, spans)
                colour = theme.right if right else theme.series[1]
                mark = {"marker": "D" if right else "X", "s": 34, "color": colour, "zorder": 3}
                axes.scatter([second + 0.5], [row], edgecolors=theme.text, linewidths=0.6, **mark)
        axes.set_yticks(range(len(video.steps)), [shortened(step, 34) for step in video.steps])
        axes.invert_yaxis()
        axes.set_xlim(0, max(video.seconds, 1))
        axes.title.set_fontsize(9.5)
    return figure


def _row(axes: Any, row: int, seconds: float, theme: Theme) -> None:
    axes.broken_barh([(0, seconds)], (row - _BAR / 2, _BAR), color=theme.grid, alpha=0.6, linewidth=0)


def _inside(second: int | None, spans: Sequence[tuple[float, float]]) -> bool:
    """Tell whether a second (a whole number) is one of those that a span touches."""
    return second is not None and any(int(start) <= second < end for start, end in spans)


def _legend(figure: Any, colours: Mapping[str, str], theme: Theme) -> None:
    from mmpt.utils.extras import require

    patch = require("matplotlib.patches", "report").Patch
    handles = [patch(color=colour, label=shortened(label, 34)) for label, colour in colours.items()]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower left", ncols=4, frameon=False, labelcolor=theme.text, fontsize=8.5
        )
