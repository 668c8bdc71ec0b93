"""SRT and WebVTT files: what is said when, without markup, and each line once.

Sites write recognised speech as rolling captions: each cue shows the line before again, and the new one with the times
of its words (``<00:00:01.240>``). A line that is only shown again is left out, and so is a cue
of a few milliseconds between two others that only holds the last line.
"""

import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmpt.utils.errors import DataError

__all__ = ["Cue", "CuePart", "read_subtitles"]

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_STAMP = re.compile(rf"<{_TIME}>")
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
#: Descriptions of sounds, and signs that only say that someone else speaks.
_NO_SPEECH = re.compile(r"\[[^\[\]]*\]|(?:^|(?<=\s))(?:>>+|-|♪+)(?=\s|$)")
#: Seconds by which a cue may begin after the one before ended and still go on from it.
_CLOSE = 0.05


@dataclass(frozen=True)
class CuePart:
    """Text of a cue that one time was given for, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Cue:
    """What a cue newly says, in the order of time."""

    parts: list[CuePart]


@dataclass
class _Block:
    """A cue as it stands in the file."""

    start: float
    end: float
    lines: list[str]


def read_subtitles(path: str | os.PathLike[str]) -> list[Cue]:
    """Read a ``.srt`` or ``.vtt`` file; cues in which nothing is said are left out.

    Raises:
        DataError: if it cannot be read, or a cue has no usable times; names file and line.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 ({error.reason}). Convert the file") from error
    if Path(path).suffix.lower() == ".vtt" and not text.startswith("WEBVTT"):
        raise DataError(f"{path}, line 1: a WebVTT file begins with WEBVTT")
    blocks = list(_blocks(path, text.splitlines()))
    stamped = any(_STAMP.search(line) for block in blocks for line in block.lines)
    cues, before = [], None
    for block in blocks:
        lines = _new_lines(block, before, stamped)
        if not any(_STAMP.search(line) for line in lines):
            lines = [" ".join(lines)]  # they share the time of the cue
        parts = [part for line in lines for part in _parts(line, block.start, block.end)]
        if parts:
            cues.append(Cue(parts))
        before = block
    return cues


def _blocks(path: str | os.PathLike[str], lines: list[str]) -> Iterator[_Block]:
    number, srt = 0, Path(path).suffix.lower() == ".srt"
    while number < len(lines):
        line = lines[number]
        number += 1
        if "-->" not in line:  # the number or name of a cue, a header, a note
            continue
        found = _TIMING.fullmatch(line)
        if found is None:
            raise DataError(f"{path}, line {number}: {line.strip()!r} are no times of a cue")
        start, end = _second(*found.groups()[:4]), _second(*found.groups()[4:])
        if end < start:
            raise DataError(f"{path}, line {number}: the cue ends at {end} s, before it starts at {start} s")
        if srt and number + 1 < len(lines) and not lines[number] and _is_text(lines, number + 1):
            number += 1  # the first line of the cue is empty: sites show nothing above the first line of speech
        first = number
        while number < len(lines) and lines[number] and "-->" not in lines[number]:
            number += 1
        held = lines[first:number]
        if number < len(lines) and "-->" in lines[number] and held and held[-1].strip().isdigit():
            held.pop()  # the number of the next cue, which no empty line sets off
        yield _Block(start, end, [line for line in held if _plain(line)])


def _is_text(lines: list[str], number: int) -> bool:
    """Tell whether a line is neither empty nor the number or the times of a cue."""
    following = lines[number + 1] if number + 1 < len(lines) else ""
    return bool(lines[number]) and "-->" not in lines[number] and "-->" not in following


def _second(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction) / 10 ** len(fraction)


def _new_lines(block: _Block, before: _Block | None, stamped: bool) -> list[str]:
    """Return the lines of a cue that the cue before did not show."""
    if before is None or block.start > before.end + _CLOSE:
        return block.lines
    shown = [_plain(line) for line in before.lines]
    if block.end - block.start <= _CLOSE and all(_plain(line) in shown for line in block.lines):
        return []  # too short to be read
    if stamped:
        return [line for line in block.lines if _STAMP.search(line) or _plain(line) not in shown]
    rolls = len(block.lines) > 1 and shown and _plain(block.lines[0]) == shown[-1]
    return block.lines[1:] if rolls else block.lines


def _plain(line: str) -> str:
    """Return the speech on a line without markup."""
    return " ".join(_NO_SPEECH.sub(" ", html.unescape(_MARKUP.sub("", line))).split())


def _parts(line: str, start: float, end: float) -> Iterator[CuePart]:
    """Yield what is said on a line: as a whole, or between the times that stand in it."""
    begins, texts, place = [start], [], 0
    for stamp in _STAMP.finditer(line):
        texts.append(line[place : stamp.start()])
        begins.append(min(max(begins[-1], _second(*stamp.groups())), end))
        place = stamp.end()
    texts.append(line[place:])
    for text, begin, finish in zip(texts, begins, [*begins[1:], end], strict=True):
        if said := _plain(text):
            yield CuePart(said, begin, finish)
