"""Rows of a table in JSON Lines, CSV, TSV or Parquet, one after another, each with the place it was read from.

A file is only ever read as data: nothing in it is executed or unpickled. Text files are UTF-8, with or without a
byte order mark, with either kind of line end.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmpt.utils.errors import DataError
from mmpt.utils.extras import require

__all__ = ["SUFFIXES", "Table", "read_delimited"]

#: Endings of the files that can be read, and the delimiter where there is one.
SUFFIXES: dict[str, str | None] = {".jsonl": None, ".csv": ",", ".tsv": "\t", ".parquet": None}

Row = tuple[str, dict[str, Any]]


class Table:
    """The rows of one file: iterate for ``(place, values)``; ``place`` is the file and line (or row) for messages.

    ``values`` holds the wanted columns that have a value: empty cells, null and blank text count as none. CSV values
    are text, other files keep their types (``typed``). ``columns`` are the names of all columns, of JSON Lines the
    keys of the lines read so far.

    Iterating raises:
        DataError: if the file is not of a known kind, cannot be read, or is damaged; names file and line.
        MissingExtraError: if it is Parquet and pyarrow is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], wanted: Collection[str]) -> None:
        self.path, self.wanted = Path(path), frozenset(wanted)
        self.columns: dict[str, None] = {}
        if self.path.suffix not in SUFFIXES:
            raise DataError(
                f"{path}: a file ending in {', '.join(SUFFIXES)} was expected; the ending says how it is read"
            )
        self.delimiter = SUFFIXES[self.path.suffix]
        self.typed = self.delimiter is None

    def __iter__(self) -> Iterator[Row]:
        for place, values in self._rows():
            yield place, {name: value for name, value in values.items() if name in self.wanted and not _blank(value)}

    def _rows(self) -> Iterator[Row]:
        if self.delimiter:
            yield from read_delimited(self.path, self.delimiter, self.columns)
        elif self.path.suffix == ".jsonl":
            for place, values in _json_lines(self.path):
                self.columns.update(dict.fromkeys(values))
                yield place, values
        else:
            yield from self._parquet_rows()

    def _parquet_rows(self) -> Iterator[Row]:
        arrow = require("pyarrow", "parquet")
        parquet = require("pyarrow.parquet", "parquet")
        number = 0
        try:
            with parquet.ParquetFile(self.path) as file:
                names = file.schema_arrow.names
                _refuse_repeated(names, str(self.path))
                self.columns.update(dict.fromkeys(names))
                for batch in file.iter_batches(columns=[name for name in names if name in self.wanted]):
                    for values in batch.to_pylist():
                        number += 1
                        yield f"{self.path}: row {number}", values
        except DataError:
            raise
        except (OSError, arrow.ArrowException, ValueError, OverflowError) as error:  # also text that is not UTF-8
            raise DataError(f"{self.path}: not a readable Parquet file, after row {number} ({error})") from error


def read_delimited(
    path: str | os.PathLike[str], delimiter: str, columns: dict[str, None] | None = None
) -> Iterator[Row]:
    """Yield ``(place, values)`` of every row of a delimited file whose first line names the columns.

    Cells may be quoted with ``"``; blank lines are passed over. The names are added to ``columns``, if given.

    Raises:
        DataError: if the file cannot be read, a column is named twice, or a row has more or fewer cells than there
            are columns; names file and line.
    """
    reader = csv.reader((text for _, text in _lines(path)), delimiter=delimiter, strict=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            place, line = f"{path}: line {line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                _refuse_repeated(header, place)
                if columns is not None:
                    columns.update(dict.fromkeys(header))
            elif len(cells) != len(header):
                raise DataError(
                    f"{place}: {len(cells)} cells, but the header names {len(header)} columns; "
                    f"put cells that hold {delimiter!r} in double quotes"
                )
            else:
                yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: line {line}: not a readable cell ({error}); is a quote left open?") from error


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file, numbered from 1; decoded one by one, so that an error names its line."""
    number = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line {number}: not UTF-8 text ({error}); save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        place = f"{path}: line {number}"
        try:
            value = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not a JSON object ({error})") from error
        if not isinstance(value, dict):
            raise DataError(f"{place}: a JSON object was expected, found {type(value).__name__}: one per line")
        yield place, value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeated([name for name, _ in pairs])
    return dict(pairs)


def _refuse_repeated(names: Sequence[str], place: str = "") -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        where = f"{place}: " if place else ""
        raise DataError(f"{where}column {repeated[0]!r} is there more than once; which one is meant?")
