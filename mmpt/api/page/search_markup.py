"""Hits of a search as cards of the page: picture, time and score; each is a button."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from mmpt.utils.times import clocks

__all__ = ["ON_CLICK", "Found", "cards"]

#: Tells the server which card was clicked.
ON_CLICK = """element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-hit]');
  if (!card) return;
  element.querySelectorAll('[data-hit]').forEach((each) => each.setAttribute('aria-pressed', each === card));
  trigger('click', {hit: Number(card.dataset.hit)});
});"""


class Found(NamedTuple):
    """A hit as the page keeps it: where the file is, what it is called, seconds, and the score."""

    path: str
    name: str
    start: float
    end: float
    score: float


def cards(found: Sequence[Found], pictures: Sequence[bytes | None], nothing: str = "nothing found") -> str:
    """Return the cards of hits, best first; ``pictures`` are JPEG files, ``nothing`` says why there is no hit."""
    if not found:
        return f'<p role="status">{escape(nothing[:1].upper() + nothing[1:])}.</p>'
    each = "".join(_card(number, *pair) for number, pair in enumerate(zip(found, pictures, strict=True)))
    return f'<div class="mmpt-cards">{each}</div>'


def _card(number: int, hit: Found, picture: bytes | None) -> str:
    source = "" if picture is None else f"data:image/jpeg;base64,{b64encode(picture).decode()}"
    shown = f'<img src="{source}" alt="">' if source else '<span class="mmpt-blank"></span>'
    times = " – ".join(clocks(hit.start, hit.end))
    return (
        f'<button type="button" data-hit="{number}" aria-pressed="false" title="{escape(hit.name)}">{shown}'
        f'<span class="mmpt-line"><b>{times}</b><span>{hit.score:.3f}</span></span>'
        f'<span class="mmpt-name">{escape(hit.name)}</span></button>'
    )
