"""What a line of a file of questions holds, as importers write it; a text is a string or a list of token ids."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt.processors.annotations import missing_field
from mmpt.utils.errors import DataError, shown

__all__ = ["Text", "as_id", "as_label", "as_text", "as_texts", "needed"]

#: A text, or the ids that it was tokenised to.
Text = str | list[int]


def needed(record: Mapping[str, Any], key: str, place: str) -> Any:
    """Return a value; DataError names the place and the nearest key if it is missing."""
    if key not in record:
        raise missing_field(place, "key", key, record)
    return record[key]


def as_id(value: Any, place: str) -> str:
    """Return an id: a text that is not empty; DataError names the place."""
    if not isinstance(value, str) or not value:
        raise DataError(f"{place}: {shown(value)} is no id")
    return value


def as_text(value: Any, place: str) -> Text:
    """Return a text, or a list of token ids; DataError names the place."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in value):
        if any(one < 0 for one in value):
            raise DataError(f"{place}: {shown(value)} holds a negative token id")
        return value
    raise DataError(f"{place}: expected a text or a list of token ids, found {shown(value)}")


def as_texts(value: Any, count: int, place: str) -> tuple[Text, ...]:
    """Return so many texts; DataError names the place, and how many there are."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != count:
        found = len(value) if isinstance(value, Sequence) and not isinstance(value, str) else shown(value)
        raise DataError(f"{place}: expected {count} texts, found {found}")
    return tuple(as_text(one, f"{place}: {number}") for number, one in enumerate(value))


def as_label(value: Any, count: int, place: str) -> int:
    """Return the index of the right one of ``count`` choices, -1 for null; DataError names the place."""
    if value is None:
        return -1
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
        raise DataError(
            f"{place}: {shown(value)} is not the index of one of {count} choices, 0 to {count - 1}, or null"
        )
    return value
