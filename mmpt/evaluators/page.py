"""The page of a report: its style and the HTML of its parts. Nothing is loaded from elsewhere."""

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.evaluators.figure_style import DARK, LIGHT, Theme, to_bytes
from mmpt.evaluators.figures import Example, Shown

__all__ = ["caption_card", "chart", "example_card", "gallery", "options_card", "page", "section", "table"]

#: Frames of a video ``(n, h, w, 3)``, None where there are none.
Frames = npt.NDArray[np.uint8] | None

_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--panel:#f7f9fb;--text:#1f2933;--muted:#697586;--line:#e3e8ef;
--accent:#0072b2;--right:#0b8457;--wrong:#c2410c}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--panel:#151b23;--text:#e6edf3;--muted:#9aa7b4;--line:#2a313a;
--accent:#56b4e9;--right:#3fb984;--wrong:#f0883e}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:40px 24px 80px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
h2{font-size:20px;margin:52px 0 4px}
h3{font-size:15px;margin:28px 0 10px}
p.note{color:var(--muted);margin:0 0 16px;max-width:74ch;font-size:14.5px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:14px;margin:28px 0 0}
.tile{background:var(--panel);border:1px solid var(--line);border-radius:12px;padding:16px 18px}
.tile .value{font-size:34px;font-weight:650;letter-spacing:-.02em;line-height:1.15}
.tile .value small{font-size:16px;font-weight:500;color:var(--muted);letter-spacing:0}
.tile .label{font-size:14.5px;margin-top:2px}
.tile .aside{font-size:13px;color:var(--muted)}
.scroll{overflow-x:auto}
.scroll+.scroll{margin-top:26px}
th:first-child{width:27%}
th:nth-child(2){width:11%}
table{border-collapse:collapse;width:100%;font-size:14.5px;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:8px 12px;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;color:var(--muted);font-size:13px}
th:first-child,td:first-child,th.left,td.left{text-align:left}
td .ci{display:block;color:var(--muted);font-size:12px}
.badge{border:1px solid var(--line);border-radius:999px;padding:1px 9px;font-size:12.5px;color:var(--muted)}
.badge.tuned{color:var(--accent);border-color:var(--accent)}
figure{margin:14px 0;overflow-x:auto}
figure img{max-width:100%;height:auto;display:block}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(430px,1fr));gap:18px;align-items:start}
@media (max-width:520px){.pair{grid-template-columns:1fr}}
.card{border:1px solid var(--line);background:var(--panel);border-radius:12px;padding:14px 16px 16px;margin:0 0 14px}
.card .query{font-size:16px;margin:0 0 12px;display:flex;gap:14px;justify-content:space-between}
.card .rank{flex:none;font-size:13px;padding-top:2px;color:var(--wrong)}
.card .rank.hit{color:var(--right)}
.found{display:flex;gap:12px;flex-wrap:wrap}
.video{flex:0 0 148px}
.strip{display:grid;grid-template-columns:1fr 1fr;gap:2px;border-radius:8px;overflow:hidden;
border:3px solid transparent;background:var(--line);min-height:70px}
.video.right .strip{border-color:var(--right)}
.strip img{width:100%;display:block;aspect-ratio:1}
.strip.empty{aspect-ratio:1}
.video .caption{font-size:12.5px;color:var(--muted);margin-top:4px;overflow-wrap:anywhere}
.video.right .caption{color:var(--right)}
.video.apart{border-left:1px dashed var(--line);padding-left:12px;flex-basis:161px}
.card.beside{display:flex;gap:18px;align-items:flex-start}
.card.beside .texts{flex:1;min-width:0}
.options{list-style:none;margin:0;padding:0;font-size:15px}
.options li{padding:3px 0 3px 26px;position:relative;overflow-wrap:anywhere}
.options li::before{content:attr(data-mark);position:absolute;left:4px;font-weight:650}
.options li.right{color:var(--right);font-weight:600}
.options li.wrong{color:var(--wrong)}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:14px}
.gallery .card{margin:0;padding:10px}
.gallery img{width:100%;display:block;aspect-ratio:4/3;object-fit:contain;background:var(--line);border-radius:8px;
margin:0 0 8px}
.gallery a{color:inherit;overflow-wrap:anywhere}
.said{font-size:16px;margin:0 0 6px}
.reference{font-size:14.5px;color:var(--muted);margin:0}
@media (max-width:520px){.card.beside{flex-direction:column}}
details{border-top:1px solid var(--line);padding:9px 0}
summary{cursor:pointer;font-size:14.5px}
pre{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:12px;overflow-x:auto;
font-size:12.5px}
footer{margin-top:60px;color:var(--muted);font-size:13px;border-top:1px solid var(--line);padding-top:14px}
code{font-size:.92em;overflow-wrap:anywhere}
"""


def page(title: str, body: Sequence[str], footer: str) -> str:
    """Return a complete HTML document; ``body`` and ``footer`` are HTML, ``title`` is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + f"\n<footer>{footer}</footer>\n</main></body></html>\n"
    )


def section(title: str, note: str, *parts: str) -> str:
    """Return a titled section; ``note`` is text, ``parts`` are HTML."""
    return f"<section><h2>{html.escape(title)}</h2><p class=note>{html.escape(note)}</p>{''.join(parts)}</section>"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """Return a table; headings are text, cells HTML, the first ``left`` columns are flush left."""
    kinds = [" class=left" if column < left else "" for column in range(len(headings))]
    head = "".join(f"<th{kind}>{html.escape(text)}</th>" for kind, text in zip(kinds, headings, strict=True))
    lines = ("".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def chart(draw: Callable[[Theme], Any], description: str) -> str:
    """Return a figure, drawn for light and for dark pages."""
    light, dark = (base64.b64encode(to_bytes(draw(theme))).decode() for theme in (LIGHT, DARK))
    kind = "data:image/svg+xml;base64,"
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{kind}{dark}">'
        f'<img src="{kind}{light}" alt="{html.escape(description, quote=True)}"></picture></figure>'
    )


def example_card(example: Example) -> str:
    """Return one query with its best videos, each as a strip of frames; the right one is framed.

    Where no video has frames, names and scores are all; where some have, the others are empty tiles.
    """
    hit = example.rank == 1
    verdict = "found first" if hit else f"right video at rank {example.rank}"
    pictures = any(item.frames is not None for item in example.shown)
    videos = "".join(_video(item, position, pictures) for position, item in enumerate(example.shown, 1))
    return (
        f"<div class=card><p class=query><span>“{html.escape(example.query)}”</span>"
        f'<span class="rank{" hit" if hit else ""}">{verdict}</span></p><div class=found>{videos}</div></div>'
    )


def options_card(video_id: str, frames: Frames, question: str, options: Sequence[tuple[str, str]]) -> str:
    """Return a question beside its video; an option is (text, mark), the mark "right", "wrong" or "" for none."""
    marks = {"right": "✓", "wrong": "✗"}
    items = "".join(
        f'<li class="{mark}" data-mark="{marks.get(mark, "")}">{html.escape(text)}</li>' for text, mark in options
    )
    asked = f"<p class=said>{html.escape(question)}</p>" if question else ""
    return _beside(video_id, frames, f"{asked}<ol class=options>{items}</ol>")


def gallery(items: Sequence[tuple[bytes | None, str, str, str]]) -> str:
    """Return small pictures side by side; each has a JPEG file or none, a title, what it links to, and a line below."""
    return f"<div class=gallery>{''.join(_tile(*item) for item in items)}</div>"


def _tile(picture: bytes | None, title: str, link: str, below: str) -> str:
    source = "" if picture is None else base64.b64encode(picture).decode()
    image = f'<img src="data:image/jpeg;base64,{source}" alt="">' if source else ""
    return (
        f'<div class=card>{image}<a href="{html.escape(link, quote=True)}">{html.escape(title)}</a>'
        f"<p class=reference>{html.escape(below)}</p></div>"
    )


def caption_card(video_id: str, frames: Frames, said: str, references: Sequence[str]) -> str:
    """Return a generated caption and those of annotators beside their video; all are text."""
    below = "".join(f"<p class=reference>{html.escape(text)}</p>" for text in references)
    return _beside(video_id, frames, f"<p class=said>“{html.escape(said)}”</p>{below}")


def _beside(video_id: str, frames: Frames, texts: str) -> str:
    name = f"<div class=caption>{html.escape(video_id)}</div>"
    strip = "" if frames is None else _strip(frames)
    return f"<div class='card beside'><div class=video>{strip}{name}</div><div class=texts>{texts}</div></div>"


def _strip(frames: Frames) -> str:
    """Return the frames of a video; an empty tile, where it has none."""
    images = "".join(f'<img src="{_jpeg(frame)}" alt="">' for frame in (frames if frames is not None else ()))
    return f'<div class="strip{"" if images else " empty"}">{images}</div>'


def _video(item: Shown, position: int, pictures: bool) -> str:
    kinds = ["video", *(["right"] if item.right else []), *(["apart"] if item.place != position else [])]
    mark = "✓ " if item.right else ""
    return (
        f'<div class="{" ".join(kinds)}">{_strip(item.frames) if pictures else ""}'
        f"<div class=caption>{mark}{item.place}. {html.escape(item.video_id)}<br>score {item.score:.2f}</div></div>"
    )


def _jpeg(frame: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
