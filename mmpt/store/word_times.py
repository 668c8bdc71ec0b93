"""Transcripts whose words are timed, one video at a time, out of the formats that speech recognisers and sites write.

* JSON of one video: MERLOT's (``subtitles`` of ``word`` and ``time``, ``denoised``, ``info``), Whisper's (``segments``,
  with ``words`` or without), ``words`` of ``word``, ``start`` and ``end``, the list of these alone, or HowTo100M's
  ``start``, ``end`` and ``text``;
* SRT and WebVTT (:mod:`mmpt.store.subtitle_files`).

Where only a whole caption is timed, its words share its time by their characters. Where the files lie is the matter of
:mod:`mmpt.store.transcript_source`.
"""

import html
import itertools
import json
import math
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.store.subtitle_files import Cue, read_subtitles
from mmpt.store.transcripts import parse_transcript
from mmpt.utils.errors import DataError, shown

__all__ = ["SUFFIXES", "SpokenText", "Word", "clean_words", "parse_spoken", "read_spoken", "spread_words"]

#: Of files that hold the transcript of one video, the most telling first.
SUFFIXES = (".json", ".vtt", ".srt")
#: Seconds that a word lasts at most if the next one's beginning is all that is known of its end.
_LONGEST_WORD = 1.0

_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u200b": "", "\ufeff": ""})


class Word(NamedTuple):
    """A spoken word without white space, and when it is said, in seconds of the video."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class SpokenText:
    """What is said in a video.

    Attributes:
        words: in the order of their beginnings.
        denoised: the words of a cleaned transcript, which have no times; None where there is none.
        video_id: whose transcript it says to be; None where it does not.
        meta: what else is known of the video: ``title``, ``description``.
        notes: what could not be used as it stands, with its number.
    """

    words: list[Word]
    denoised: list[str] | None = None
    video_id: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def clean_words(text: str) -> list[str]:
    """Return the words of a text: entities resolved, quotes straight, control characters out, composed (NFC)."""
    plain = unicodedata.normalize("NFC", html.unescape(text)).translate(_QUOTES)
    kept = "".join(c if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn") else " " for c in plain)
    return kept.split()


def spread_words(text: str, start: float, end: float) -> list[Word]:
    """Return the words of a caption, its time shared among them by their characters."""
    words = clean_words(text)
    total, before = sum(map(len, words)), 0
    spread = []
    for word in words:
        after = before + len(word)
        spread.append(Word(word, start + (end - start) * before / total, start + (end - start) * after / total))
        before = after
    return spread


def read_spoken(path: str | os.PathLike[str]) -> SpokenText:
    """Read the transcript of one video from a ``.json``, ``.srt`` or ``.vtt`` file.

    Raises:
        DataError: if it cannot be read or is none; names the file, and the line or the word.
    """
    file = Path(path)
    if file.suffix.lower() in (".srt", ".vtt"):
        return SpokenText(_sorted([word for cue in read_subtitles(file) for word in _words_of(cue)]))
    try:
        content = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from error
    return parse_spoken(content, str(path))


def parse_spoken(content: str, where: str) -> SpokenText:
    """Return the transcript of one video from its JSON.

    Args:
        content: JSON text.
        where: what errors begin with: file, and video or line.

    Raises:
        DataError: if it is no JSON, or no transcript.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if isinstance(value, list):
        return SpokenText(_timed(value, where))
    if not isinstance(value, dict):
        raise DataError(f"{where}: {shown(value, 80)} is no transcript")
    notes: list[str] = []
    words = _words_in(value, where, notes)
    given = value.get("info")
    info: Mapping[str, Any] = given if isinstance(given, dict) else value
    meta = {key: info[key] for key in ("title", "description") if isinstance(info.get(key), str)}
    video_id = next((info[key] for key in ("id", "video_id") if isinstance(info.get(key), str)), None)
    denoised = _denoised(value.get("denoised"), where)
    if denoised is not None and not denoised:
        denoised = None
        notes.append("its denoised transcript is empty: the words as they were heard stand for it")
    return SpokenText(words, denoised, video_id, meta, tuple(notes))


def _words_in(value: Mapping[str, Any], where: str, notes: list[str]) -> list[Word]:
    if isinstance(value.get("subtitles"), list):
        return _timed(value["subtitles"], f"{where}, subtitles", _is_no_remains)
    if isinstance(value.get("words"), list):
        return _timed(value["words"], f"{where}, words")
    if isinstance(value.get("segments"), list):
        return _in_segments(value["segments"], f"{where}, segments", notes)
    if {"start", "end", "text"} <= value.keys():
        try:
            clips = parse_transcript(value)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        return _sorted(
            [word for clip in zip(clips.text, clips.start, clips.end, strict=True) for word in spread_words(*clip)]
        )
    raise DataError(
        f"{where}: no transcript: it has none of the keys subtitles, words, segments, or start with end and text"
    )


def _is_no_remains(word: str) -> bool:
    """Tell whether a word of MERLOT's transcripts is none of the remains of entities (arXiv:2106.02636, data).

    The rule is about words as they stand in the file, before entities are resolved.
    """
    return not word.startswith("&") and not word.endswith(";")


def _timed(entries: Sequence[Any], where: str, keep: Callable[[str], bool] = bool) -> list[Word]:
    """Return words that are timed one by one: objects, or lists of word, start and maybe end; those to ``keep``."""
    words, ends_known = [], []
    for number, entry in enumerate(entries):
        text, start, end = _fields(entry)
        at = f"{where}: word {number}"
        if not isinstance(text, str):
            raise DataError(f"{at}: {shown(entry, 80)} has no word and time")
        begin = _seconds(start, at)
        until = math.nan if end is None else _seconds(end, at)
        if until < begin:
            raise DataError(f"{at}: {text!r} ends at {until} s, before it starts at {begin} s")
        for word in spread_words(text, begin, begin if end is None else until) if keep(text.strip()) else ():
            words.append(word)
            ends_known.append(end is not None)
    order = sorted(range(len(words)), key=lambda k: words[k].start)
    known = [ends_known[k] for k in order]
    return _ended([words[k] for k in order], known)


def _ended(words: list[Word], known: list[bool]) -> list[Word]:
    """Let words of unknown end last until the next one begins."""
    result = []
    for number, word in enumerate(words):
        if not known[number]:
            following = words[number + 1].start if number + 1 < len(words) else math.inf
            word = word._replace(end=min(following, word.start + _LONGEST_WORD))
        result.append(word)
    return result


def _fields(entry: Any) -> tuple[Any, Any, Any]:
    if isinstance(entry, dict):
        start = entry.get("start", entry.get("time"))
        return entry.get("word", entry.get("text")), start, entry.get("end")
    if isinstance(entry, list) and len(entry) in (2, 3):
        return entry[0], entry[1], entry[2] if len(entry) == 3 else None
    return None, None, None


def _seconds(value: Any, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise DataError(f"{at}: {shown(value, 40)} is no time in seconds")
    return float(value)


def _in_segments(segments: Sequence[Any], where: str, notes: list[str]) -> list[Word]:
    words: list[Word] = []
    untimed = 0
    for number, segment in enumerate(segments):
        held = segment if isinstance(segment, dict) else {}
        at = f"{where} {number}"
        if isinstance(held.get("words"), list):
            timed, filled = _with_times(held["words"], held, at)
            words += _timed(timed, at)
            untimed += filled
        elif isinstance(held.get("text"), str):
            start, end = _seconds(held.get("start"), at), _seconds(held.get("end"), at)
            words += spread_words(held["text"], start, max(start, end))
        else:
            raise DataError(f"{at}: {shown(segment, 80)} has neither words nor text")
    if untimed:
        notes.append(f"{untimed} words without times: they fill the gaps between the others")
    return _sorted(words)


def _with_times(entries: Sequence[Any], segment: Mapping[str, Any], at: str) -> tuple[list[Any], int]:
    """Let words without times, which aligners leave where they know no sound (numbers), fill the gap that they are in.

    Returns:
        The words, of each such run one entry, and how many had no times.
    """
    runs = [(untimed, list(run)) for untimed, run in itertools.groupby(entries, _is_untimed)]
    result, count = list[Any](), 0
    for number, (untimed, run) in enumerate(runs):
        if not untimed:
            result += run
            continue
        count += len(run)
        start = _last_time(runs[number - 1][1][-1]) if number else segment.get("start")
        end = _fields(runs[number + 1][1][0])[1] if number + 1 < len(runs) else segment.get("end")
        begin, until = _seconds(start, at), _seconds(end, at)
        text = " ".join(_fields(entry)[0] for entry in run)
        result.append({"word": text, "start": begin, "end": max(begin, until)})
    return result, count


def _is_untimed(entry: Any) -> bool:
    text, start, end = _fields(entry)
    return isinstance(text, str) and start is None and end is None


def _last_time(entry: Any) -> Any:
    _, start, end = _fields(entry)
    return start if end is None else end


def _denoised(value: Any, where: str) -> list[str] | None:
    """Return the words of MERLOT's ``denoised``: a list of objects with ``cleanasr``, a list of words, or a text."""
    if value is None:
        return None
    if isinstance(value, str):
        value = [value]
    entries = value if isinstance(value, list) else [None]
    texts = [entry.get("cleanasr") if isinstance(entry, dict) else entry for entry in entries]
    words = [text for text in texts if isinstance(text, str)]
    if len(words) < len(texts):
        raise DataError(f"{where}, denoised: {shown(value, 80)} is no list of texts (cleanasr)")
    return clean_words(" ".join(word for text in words for word in text.split() if _is_no_remains(word)))


def _words_of(cue: Cue) -> list[Word]:
    return [word for part in cue.parts for word in spread_words(part.text, part.start, part.end)]


def _sorted(words: list[Word]) -> list[Word]:
    return sorted(words, key=lambda word: word.start)
