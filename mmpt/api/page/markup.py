"""Pieces of the page in HTML; every text of a person, file or model is escaped here."""

from collections.abc import Sequence
from html import escape

from mmpt.api.outputs import Answer, Timeline
from mmpt.api.page.contents import Contents
from mmpt.api.page.intake import ChosenVideo

__all__ = ["SCRIPT", "about", "alert", "answers", "escape", "player", "timeline"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#117733")
#: A click on a span plays the chosen video from there.
SCRIPT = """<script>
document.addEventListener('click', (event) => {
  const span = event.target.closest('[data-seek]');
  const video = document.querySelector('#mmpt-player video');
  if (span && video) { video.currentTime = Number(span.dataset.seek); video.play().catch(() => {}); }
});
</script>"""


def alert(message: str) -> str:
    """Return a message that screen readers announce."""
    return f'<p role="alert" class="mmpt-alert"><b>{escape(message)}</b></p>'


def player(video: ChosenVideo, start: float = 0.0) -> str:
    """Return a video element that begins at ``start`` seconds, and what is known of the video."""
    facts = f"{escape(video.name)} · {video.seconds:.1f} s · {escape(video.codec)}"
    if not video.playable:
        return alert(f"Browsers do not play {video.codec} in this file; the model reads it all the same.") + facts
    source = f'src="media/{video.token}#t={start:.3f}"'
    return (
        f'<video {source} controls preload="metadata" style="width:100%;max-height:320px;background:#000" '
        f'aria-label="{escape(video.name)}"></video><p>{facts}</p>'
    )


def timeline(found: Timeline) -> str:
    """Return a strip of spans over the seconds of a video and the table of them; each plays its span."""
    spans = found.spans()
    if not spans:
        return "<p>No label fits any part of the video.</p>"
    whole = max(float(found.ends[-1]), 1e-6)
    colours = {label: _COLOURS[number % len(_COLOURS)] for number, label in enumerate(found.labels)}
    strip = "".join(
        f'<button type="button" data-seek="{span.start:.3f}" title="{escape(span.label)}" '
        f'aria-label="{escape(span.label)}, from {span.start:.1f} s" style="position:absolute;top:0;height:100%;'
        f"left:{100 * span.start / whole:.2f}%;width:{100 * (span.end - span.start) / whole:.2f}%;"
        f'background:{colours[span.label]};border:1px solid #fff"></button>'
        for span in spans
    )
    rows = "".join(
        f'<tr><td><button type="button" data-seek="{span.start:.3f}">&#9654; {span.start:.1f} – {span.end:.1f} s'
        f'</button></td><td><span style="color:{colours[span.label]}">&#9632;</span> {escape(span.label)}</td>'
        f"<td>{span.score:.3f}</td></tr>"
        for span in spans
    )
    head = "<tr><th>Seconds</th><th>Label</th><th>Mean score</th></tr>"
    return f'<div style="position:relative;height:44px">{strip}</div><table class="mmpt-spans">{head}{rows}</table>'


def answers(found: Sequence[Answer]) -> str:
    """Return a table of answers, best first."""
    rows = "".join(f"<tr><td>{escape(one.text)}</td><td>{100 * one.probability:.1f} %</td></tr>" for one in found)
    return f"<table><tr><th>Answer</th><th>Probability</th></tr>{rows}</table>"


def about(contents: Contents) -> str:
    """Return the table of what is loaded, and what could not be."""
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in (
            name, pipeline.system, pipeline.source, pipeline.device, ", ".join(sorted(pipeline.calls))
        )) + "</tr>"
        for name, pipeline in contents.models.items()
    )  # fmt: skip
    head = "<tr><th>Name</th><th>System</th><th>Source</th><th>Device</th><th>Answers</th></tr>"
    limits = f"<p>Videos of at most {contents.max_upload_mb} MB and {contents.max_seconds:.0f} s.</p>"
    return f"<table>{head}{rows}</table>{limits}" + "".join(map(alert, contents.failures))
