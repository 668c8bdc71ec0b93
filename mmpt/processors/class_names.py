"""Names of classes: from a file, and as the list that a class id indexes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpt.utils.errors import ConfigError, DataError, shown
from mmpt.utils.files import read_json, resolve_path

__all__ = ["BACKGROUND_NAME", "list_classes", "read_class_names", "whole_number"]

#: What the class of a second without a segment is called.
BACKGROUND_NAME = "O"
_MAX_CLASSES = 100_000
_MOST_DIGITS = 18


def read_class_names(path: str) -> dict[int, str]:
    """Read the names of classes by id: a .json ``{id: name}``, or a text file whose line n (from 0) names class n.

    Raises:
        DataError: if the file is anything else or names nothing; names it.
    """
    file = resolve_path(path)
    if file.suffix == ".json":
        content = read_json(file)
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
            raise DataError(f"{path}: expected names by id, {{id: name}} (dataset.label_path)")
        names = {whole_number(key, f"{path}: id"): name.strip() for key, name in content.items()}
    else:
        try:
            lines = file.read_text(encoding="utf-8-sig").rstrip().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as a list of names (dataset.label_path): {error}") from error
        names = {number: line.strip() for number, line in enumerate(lines)}
    if not names:
        raise DataError(f"{path}: names no classes (dataset.label_path)")
    return names


def list_classes(
    names: Mapping[int, str], background: int, source: str | Path, background_name: str = BACKGROUND_NAME
) -> list[str]:
    """Return the names of classes 0 .. largest id as a list; ids that are not used are ``""``.

    Args:
        names: by id, without the background.
        background: id of the background.
        source: the file that the names come from, for errors.

    Raises:
        ConfigError: if the background is negative or the id of another class.
        DataError: if an id is not in 0 .. 99,999.
    """
    if background < 0:
        raise ConfigError(f"dataset.background: {background} is not a class id (0 or more)")
    if background in names:
        raise ConfigError(
            f"dataset.background: {background} is {names[background]!r} in {source}; choose an id that no label has"
        )
    everything = {**names, background: background_name}
    labels = [""] * (min(max(everything), _MAX_CLASSES) + 1)
    for number, name in everything.items():
        if not 0 <= number < _MAX_CLASSES:
            raise DataError(f"{source}: label id {number} ({name!r}) is not in 0 .. {_MAX_CLASSES - 1}")
        labels[number] = name
    return labels


def whole_number(value: Any, what: str) -> int:
    """Return a whole number that is one, or is written as a string of digits.

    Raises:
        DataError: if ``value`` is anything else; says ``what`` it is.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().isdecimal() and len(value) <= _MOST_DIGITS:
        return int(value)
    raise DataError(f"{what} {shown(value)} is not a whole number")
