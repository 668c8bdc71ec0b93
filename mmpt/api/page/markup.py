"""Pieces of the page in HTML; every text of a person, file or model is escaped here."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import Any

from mmpt.api.outputs import Answer, Span, Timeline
from mmpt.api.page.contents import Contents
from mmpt.api.page.intake import ChosenVideo
from mmpt.api.search import ClipIndex

__all__ = ["about", "alert", "answers", "escape", "heading", "player", "timeline", "waiting"]

#: Inches and dots per inch of figures: read well in three fifths of a screen.
_WIDTH, _DPI = 7.4, 150


def alert(message: str) -> str:
    """Return a message that screen readers announce."""
    return f'<p role="alert" class="mmpt-alert">{escape(message)}</p>'


def waiting(message: str) -> str:
    """Return what is shown until something is done."""
    return f'<p role="status" class="mmpt-waiting">{escape(message)}</p>'


def heading(contents: Contents) -> str:
    """Return the title, and what is loaded."""
    chips = "".join(
        f'<span class="mmpt-chip"><b>{escape(name)}</b> {escape(one.system)} · {escape(str(one.device))}</span>'
        for name, one in contents.models.items()
    )
    said = "<span>What you upload goes to the machine that serves this page, and no further.</span>"
    return f'<div class="mmpt-heading"><h1>MMPT</h1>{chips}{said}</div>'


def player(video: ChosenVideo, start: float | None = None) -> str:
    """Return a video element and what is known of the video; ``start``: it plays from that second at once."""
    facts = f"{escape(video.name)} · {video.seconds:.1f} s · {escape(video.codec)}"
    if video.copied:
        facts += " · shown as a small copy without sound"
    begin = "" if start is None else f"#t={start:.3f}"
    return (
        f'<video src="media/{video.played}{begin}" controls preload="auto" {"" if start is None else "autoplay"} '
        f'playsinline aria-label="{escape(video.name)}"></video><p class="mmpt-facts">{facts}</p>'
    )


def timeline(found: Timeline, with_table: bool = True) -> str:
    """Return a picture of the scores, where a click plays the video from there, and the table of spans."""
    spans = found.spans()
    picture, left, width = _drawn(found, spans)
    first, last = float(found.starts[0]), float(found.ends.max())
    figure = (
        f'<div class="mmpt-figure"><img src="data:image/png;base64,{b64encode(picture).decode()}" alt="Scores of '
        f'{escape(", ".join(found.labels))} over {last:.1f} seconds"><div class="mmpt-axis" title="Play from here" '
        f'data-from="{first:.3f}" data-to="{last:.3f}" style="left:{100 * left:.3f}%;width:{100 * width:.3f}%">'
        f'<i class="mmpt-now"></i></div></div>'
    )
    if not with_table:
        return figure
    if not spans:
        return f"{figure}<p>No label fits any part of the video.</p>"
    rows = "".join(
        f'<tr><td><button type="button" data-seek="{span.start:.3f}">&#9654; {span.start:.1f} – {span.end:.1f} s'
        f"</button></td><td>{escape(span.label)}</td><td>{span.score:.3f}</td></tr>"
        for span in spans
    )
    head = "<tr><th>Seconds</th><th>Best label</th><th>Mean score</th></tr>"
    return f'{figure}<div class="mmpt-scroll"><table class="mmpt-table">{head}{rows}</table></div>'


def _drawn(found: Timeline, spans: Sequence[Span]) -> tuple[bytes, float, float]:
    """Return a PNG, and where its axis of time begins and how wide it is, as shares of the picture's width."""
    from mmpt.evaluators.figure_style import to_bytes
    from mmpt.evaluators.score_timelines import score_timeline

    named = [(span.start, span.end, span.label) for span in spans]
    figure: Any = score_timeline(found.scores, found.labels, found.starts, found.ends, named, width=_WIDTH)
    picture = to_bytes(figure, "png", _DPI)
    place = figure.axes[0].get_position()  # as drawing has laid it out
    return picture, float(place.x0), float(place.width)


def answers(found: Sequence[Answer]) -> str:
    """Return a table of answers, best first."""
    rows = "".join(
        f'<tr><td>{escape(one.text)}</td><td class="mmpt-share"><i style="width:{100 * one.probability:.1f}%"></i></td>'
        f"<td>{100 * one.probability:.1f} %</td></tr>"
        for one in found
    )
    return f'<table class="mmpt-table"><tr><th>Answer</th><th colspan="2">Probability</th></tr>{rows}</table>'


def about(contents: Contents) -> str:
    """Return the tables of what is loaded, and what could not be, by name: where it is concerns no visitor."""
    models = _table(
        ("Model", "System", "Device", "Answers"),
        [(name, one.system, one.device, ", ".join(sorted(one.calls))) for name, one in contents.models.items()],
    )
    indexes = _table(
        ("Index", "Videos", "Clips", "Of seconds", "Model"),
        [
            (name, len(one.snapshot.videos), len(one), one.settings.clip_seconds, _model_of(contents, one))
            for name, one in contents.indexes.items()
        ],
    )
    most = contents.limits
    limits = (
        f"<p>Uploads: at most {most.upload_mb} MB and {most.seconds:.0f} s each; {most.uploads} files and "
        f"{most.total_mb} MB are kept, for {most.keep_minutes:.0f} minutes, and all are deleted when the page ends.</p>"
    )
    failures = "".join(alert(f"{one.what} could not be loaded; the page's log says why") for one in contents.failures)
    return models + indexes + limits + failures


def _model_of(contents: Contents, index: ClipIndex) -> str:
    return next((name for name, one in contents.models.items() if one is index.pipeline), "")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    cells = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<table class="mmpt-table"><tr>{"".join(f"<th>{name}</th>" for name in head)}</tr>{body}</table>'
