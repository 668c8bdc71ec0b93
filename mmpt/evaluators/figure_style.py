"""The look of all figures: colours, axes, what a name is cut to, and files.

Colours come from palettes that stay apart for the colour-blind (Okabe and Ito, 2008; Tol, 2021, "muted").
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.utils.errors import ConfigError
from mmpt.utils.extras import require
from mmpt.utils.files import atomic_open

__all__ = [
    "DARK",
    "LABEL_COLOURS",
    "LIGHT",
    "WIDTH",
    "Theme",
    "blank_figure",
    "check_figure_name",
    "colour_bar",
    "colour_ramp",
    "ink_on",
    "label_colour",
    "save_figure",
    "shortened",
    "style_axes",
    "to_bytes",
]

#: Inches that fill the page.
WIDTH = 10.6
#: Colours of labels, told apart by the colour-blind (Tol, 2021, "muted", and four of Okabe and Ito).
LABEL_COLOURS = (
    "#88ccee", "#cc6677", "#ddcc77", "#117733", "#aa4499", "#44aa99", "#e69f00", "#999933", "#882255", "#6699cc",
    "#d55e00", "#0072b2",
)  # fmt: skip


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


def label_colour(number: int) -> str:
    """Return the colour of a label by its number; from the thirteenth on they repeat."""
    return LABEL_COLOURS[number % len(LABEL_COLOURS)]


def colour_ramp(theme: Theme) -> Any:
    """Return the colour map of a theme, from the page's background (low) to a strong colour (high)."""
    return require("matplotlib.colors", "report").LinearSegmentedColormap.from_list("ramp", _RAMPS[theme.colormap])


def ink_on(colour: Any) -> str:
    """Return the colour of text on a ground of a colour (any form that matplotlib takes): dark on light, or white."""
    red, green, blue = require("matplotlib.colors", "report").to_rgb(colour)
    return "#1f2933" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "#ffffff"


def colour_bar(figure: Any, image: Any, axes: Any, theme: Theme, label: str = "score", **place: Any) -> None:
    """Put the scale of an image's colours beside it."""
    bar = figure.colorbar(image, ax=axes, **{"fraction": 0.04, "pad": 0.03, **place})
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=theme.muted, labelsize=8.5, length=0)
    bar.set_label(label, color=theme.muted, fontsize=9)


def blank_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure of a size in inches, transparent and without pyplot's global state.

    Its texts are drawn as they stand: what a user calls a label, such as "$5 or $6", is never read as a formula.
    """
    figure_module = require("matplotlib.figure", "report")
    require("matplotlib.backends.backend_agg", "report").FigureCanvasAgg(
        figure := figure_module.Figure(figsize=(width, height), layout="constrained")
    )
    figure.patch.set_alpha(0.0)
    drawing = figure.draw
    figure.draw = lambda renderer: _draw_plainly(figure, drawing, renderer)
    return figure


def _draw_plainly(figure: Any, drawing: Callable[[Any], None], renderer: Any) -> None:
    """Draw a figure without reading formulas in its texts: those that are there, and those that drawing makes."""
    with require("matplotlib", "report").rc_context({"text.parse_math": False}):
        for text in figure.findobj(require("matplotlib.text", "report").Text):
            text.set_parse_math(False)
        drawing(renderer)


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


def shortened(text: str, limit: int = 90) -> str:
    """Return a text cut to ``limit`` characters, the last one an ellipsis where it was longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def to_bytes(figure: Any, file_format: str = "svg", dpi: int = 140) -> bytes:
    """Render a figure as SVG, PNG or PDF, transparent unless it has a page; equal figures give equal bytes."""
    buffer = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[file_format]
    with require("matplotlib", "report").rc_context({"svg.hashsalt": "mmpt", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=file_format, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def check_figure_name(path: str | os.PathLike[str]) -> str:
    """Return the kind of a file of a figure: png, svg or pdf.

    Raises:
        ConfigError: for any other ending.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise ConfigError(f"{path}: a figure is written as .png, .svg or .pdf")
    return kind


def save_figure(figure: Any, path: str | os.PathLike[str], theme: Theme = LIGHT, dpi: int = 140) -> None:
    """Write a figure as the file's ending says, .png, .svg or .pdf, on a white or black page.

    Raises:
        ConfigError: for any other ending.
        StorageError: if the file cannot be written.
    """
    kind = check_figure_name(path)
    figure.patch.set_facecolor("#0d1117" if theme == DARK else "#ffffff")
    figure.patch.set_alpha(1.0)
    content = to_bytes(figure, kind, dpi)
    with atomic_open(path, "wb") as file:
        file.write(content)
