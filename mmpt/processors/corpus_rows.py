"""The rows of a corpus of one's own, checked field by field for what one kind of task needs of them."""

import difflib
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.processors.annotations import SkipReport, missing_field, safe_video_id
from mmpt.processors.corpus_files import Table
from mmpt.utils.errors import ConfigError, DataError, nearest

__all__ = ["FIELDS", "KINDS", "CorpusRow", "read_corpus"]

logger = logging.getLogger(__name__)

#: A whole number as pandas writes it into text where a column of whole numbers has gaps.
_WHOLE_FLOAT = re.compile(r"(-?\d+)\.0+")
_LARGEST_EXACT = 2**53
_MOST_DIGITS = 18


@dataclass(frozen=True)
class _Kind:
    """Which fields a task reads: rows without ``key`` are not of the task, ``needed`` the others must have."""

    key: str
    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


#: What each kind of item reads, beside ``video``, ``start``, ``end`` and ``split``.
KINDS: dict[str, _Kind] = {
    "retrieval": _Kind("text"),
    "captioning": _Kind("text"),
    "qa": _Kind("options", ("answer",), ("question",)),
    "classification": _Kind("label", (), ("question",)),
    "segmentation": _Kind("label", ("start", "end")),
}
FIELDS = ("video", "start", "end", "text", "question", "options", "answer", "label", "split")
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS.update(dict.fromkeys(("valid", "val", "validation", "dev"), "valid"))


@dataclass(frozen=True, slots=True)
class CorpusRow:
    """One row: ``place`` for messages, times in seconds; what it does not say, or no one asked for, is empty.

    A row of segmentation without ``label`` and times says that the video is there, and nothing about it.
    """

    place: str
    video: str
    start: float | None = None
    end: float | None = None
    text: str = ""
    question: str = ""
    options: tuple[str, ...] = ()
    answer: int = -1
    label: str = ""
    split: str = ""

    @property
    def clip(self) -> str | tuple[str, int, int]:
        """The video, or the whole seconds of it that the row's times touch: ``(video, start, end)``."""
        if self.start is None or self.end is None:
            return self.video
        return self.video, math.floor(self.start), math.ceil(self.end)


def read_corpus(
    path: str | Path, items: str, columns: Mapping[str, str] | None = None, max_missing: float = 0.1
) -> list[CorpusRow]:
    """Read the rows of a file that are of one kind of task, of all splits.

    Args:
        path: .jsonl, .csv, .tsv or .parquet.
        items: one of :data:`KINDS`.
        columns: field -> name of its column, where that is another.
        max_missing: the fraction of rows that may lack the field that makes them rows of this kind.

    Raises:
        ConfigError: if ``columns`` renames no field.
        DataError: if the file is damaged, lacks a column or holds a wrong value (names file, line and column), or
            too many rows are left out.
    """
    skips = SkipReport(path, max_missing, "rows")
    reader = _Reader(path, items, columns or {})
    rows = reader.read(skips)
    skips.close(len(rows) + len(skips))
    return rows


class _Reader:
    """Read one file for one kind of task."""

    def __init__(self, path: str | Path, items: str, columns: Mapping[str, str]) -> None:
        for field in columns:
            if field not in FIELDS:
                raise ConfigError(f"dataset.columns: {field!r} is none of {', '.join(FIELDS)}.{nearest(field, FIELDS)}")
        self.items, self.kind = items, KINDS[items]
        self.renamed = columns
        names = ("video", "start", "end", "split", self.kind.key, *self.kind.needed, *self.kind.optional)
        self.columns = {field: columns.get(field, field) for field in dict.fromkeys(names)}
        self.table = Table(path, self.columns.values())

    def read(self, skips: SkipReport) -> list[CorpusRow]:
        rows: list[CorpusRow] = []
        for place, values in self.table:
            given = {field: values[name] for field, name in self.columns.items() if name in values}
            if self.kind.key in given or self._only_names_a_video(given):
                rows.append(self._row(place, given))
            else:
                skips.add(f"without a value in column {self.columns[self.kind.key]!r}", place.rpartition(": ")[2])
        if not rows and not len(skips):
            raise DataError(f"{self.table.path}: holds no rows")
        self._check_columns()
        return rows

    def _only_names_a_video(self, given: Mapping[str, Any]) -> bool:
        return self.items == "segmentation" and not {"start", "end"} & given.keys()

    def _check_columns(self) -> None:
        """Refuse a file without a column that is needed or was renamed; warn of a name that looks like a slip."""
        there = self.table.columns
        for field, name in self.columns.items():
            if name in there:
                continue
            if field in ("video", self.kind.key, *self.kind.needed, *self.renamed):
                raise self._missing(field)
            close = difflib.get_close_matches(name, [other for other in there if other not in FIELDS], 1, cutoff=0.75)
            if close:
                logger.warning("%s: column %r is not read; is it %r?", self.table.path, close[0], name)

    def _missing(self, field: str) -> DataError:
        what = "column" if field not in self.renamed else f"column for {field!r} (dataset.columns),"
        return missing_field(self.table.path, what, self.columns[field], self.table.columns)

    def _row(self, place: str, given: Mapping[str, Any]) -> CorpusRow:
        def where(field: str) -> str:
            return f"{place}: column {self.columns[field]!r}"

        for field in ("video", *(self.kind.needed if self.kind.key in given else ())):
            if field not in given:
                if self.columns[field] not in self.table.columns:
                    raise self._missing(field)
                raise DataError(f"{where(field)}: has no value, and {self.items} needs one")
        fields = {field: _PARSERS[field](given[field], where(field)) for field in given if field in _PARSERS}
        if ("start" in fields) != ("end" in fields):
            absent = "end" if "start" in fields else "start"
            raise DataError(f"{where(absent)}: has no value; give both start and end, or neither for the whole video")
        if "start" in fields and fields["end"] <= fields["start"]:
            raise DataError(f"{where('end')}: {fields['end']} is not after start {fields['start']}")
        if "answer" in given:
            fields["answer"] = _answer(given["answer"], fields["options"], where("answer"), self.table.typed)
        return CorpusRow(place, **fields)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: expected text, found {value!r} ({type(value).__name__})")
    return value.strip()


def _video(value: Any, where: str) -> str:
    return safe_video_id(_text(value, where), where)


def _seconds(value: Any, where: str) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        seconds = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: expected a number of seconds, found {value!r}") from error
    if not math.isfinite(seconds) or seconds < 0:
        raise DataError(f"{where}: {value!r} is not a time in seconds, 0 or more")
    return seconds


def _options(value: Any, where: str) -> tuple[str, ...]:
    """Return the options of a list, or of text: a JSON list, or separated by ``|``."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip().startswith("[") else value.split("|")
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: begins as a JSON list and is none ({error})") from error
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: expected a list of options, found {value!r} ({type(value).__name__})")
    options = tuple(_text(option, f"{where}, option {number}") for number, option in enumerate(value))
    if len(options) < 2 or not all(options):
        raise DataError(f"{where}: expected two options or more, none of them empty, found {list(options)}")
    return options


def _whole(value: Any) -> int | None:
    """Return a whole number, also of a float that is one (pandas writes 1 as 1.0 beside gaps); else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LARGEST_EXACT or value % 1:
        return None
    return int(value)


def _label(value: Any, where: str) -> str:
    """Return the name of a class; 3, 3.0 and the text 3.0 are all class "3", whatever kind of file they are in."""
    number = _whole(value)
    text = str(number) if number is not None else _text(value, where)
    whole = _WHOLE_FLOAT.fullmatch(text)
    return str(int(whole[1])) if whole and len(whole[1]) <= _MOST_DIGITS else text


def _answer(value: Any, options: Sequence[str], where: str, typed: bool) -> int:
    """Return the index of the right option, given as that index (from 0; 1.0 is 1) or as the option's text.

    In a file without types, a number may be either; it is refused where the two readings differ.
    """
    readings: set[int] = set()
    number = _whole(value)
    if isinstance(value, str):
        text = value.strip()
        readings = {index for index, option in enumerate(options) if option == text}
        if len(readings) > 1:
            raise DataError(f"{where}: {text!r} is the text of {len(readings)} options; give the index (from 0)")
        index = _WHOLE_FLOAT.sub(r"\1", text)
        if not typed and index.isdecimal() and len(index) < 9 and int(index) < len(options):
            readings.add(int(index))
        if len(readings) > 1:
            raise DataError(
                f"{where}: {text!r} is the text of one option and the index of another; "
                'write JSON Lines, where 1 is an index and "1" a text'
            )
    elif number is not None and 0 <= number < len(options):
        readings = {number}
    if not readings:
        hint = nearest(value, options) if isinstance(value, str) else ""
        raise DataError(
            f"{where}: {value!r} is neither an index 0 .. {len(options) - 1} nor the text of an option.{hint}"
        )
    return readings.pop()


def _split(value: Any, where: str) -> str:
    name = _text(value, where).lower()
    if name not in _SPLITS:
        raise DataError(f"{where}: {value!r} is none of {', '.join(_SPLITS)}.{nearest(name, _SPLITS)}")
    return _SPLITS[name]


_PARSERS: dict[str, Callable[[Any, str], Any]] = {
    "video": _video,
    "start": _seconds,
    "end": _seconds,
    "text": _text,
    "question": _text,
    "options": _options,
    "label": _label,
    "split": _split,
}
