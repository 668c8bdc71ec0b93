"""Files of JSON objects, one a line."""

import json
import os
from collections.abc import Iterator
from typing import Any

from mmpt.utils.errors import DataError, shown
from mmpt.utils.files import resolve_path

__all__ = ["read_lines"]


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each line stands, and its object; empty lines are left out.

    Raises:
        DataError: if the file is missing or a line is no JSON object; names file and line.
    """
    try:
        with open(resolve_path(path), encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                place = f"{path}: line {number}"
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{place}: not JSON ({error})") from error
                if not isinstance(record, dict):
                    raise DataError(f"{place}: expected an object, found {shown(record)}")
                yield place, record
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
