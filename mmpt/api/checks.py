"""What every call asks of the texts, names, numbers and arrays that a user gives it."""

import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt.utils.errors import ConfigError, DataError

__all__ = [
    "as_array",
    "as_pictures",
    "check_count",
    "check_names",
    "check_overrides",
    "check_seconds",
    "check_texts",
    "is_number",
]


def check_texts(texts: Any, what: str = "text") -> tuple[list[str], bool]:
    """Return texts as a list, and whether a single one was given.

    Raises:
        DataError: if there is none, or one is empty, no string or not of whole characters; names its place.
    """
    single = isinstance(texts, str)
    if not isinstance(texts, Iterable):
        raise DataError(f"a {type(texts).__name__} is no {what}: give a string, or a list of them")
    found: list[Any] = [texts] if single else list(texts)
    if not found:
        raise DataError(f"there is no {what}")
    for number, text in enumerate(found):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{what} {number} is {'empty' if isinstance(text, str) else f'a {type(text).__name__}'}")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise DataError(f"{what} {number} has half of a character (a lone surrogate): {ascii(text)[:80]}")
    return found, single


def check_names(texts: Any, what: str, least: int = 1) -> list[str]:
    """Return labels, options or answers that differ by more than case, without the spaces around them.

    Raises:
        DataError: if there are fewer than ``least``, one is no text, or two are the same.
    """
    found = [text.strip() for text in check_texts([texts] if isinstance(texts, str) else texts, what)[0]]
    if len(found) < least:
        raise DataError(f"{len(found)} {what}: there is nothing to choose ({least} or more)")
    seen: set[str] = set()
    for text in found:
        if text.casefold() in seen:
            raise DataError(f"the {what} {text!r} is given more than once (capitals make no difference)")
        seen.add(text.casefold())
    return found


def check_count(value: Any, name: str) -> int:
    """Return a number of things.

    Raises:
        DataError: if it is no whole number of at least 1; names the argument.
    """
    if not isinstance(value, numbers.Integral) or value < 1:
        raise DataError(f"{name}: {value!r} is not at least 1, a whole number")
    return int(value)


def is_number(value: Any) -> bool:
    """Tell whether a value is a number, of Python or NumPy."""
    return isinstance(value, numbers.Real)


def check_seconds(value: Any, name: str) -> float:
    """Return a length of time.

    Raises:
        DataError: if it is no number of seconds above 0; names the argument.
    """
    if not is_number(value) or not 0 < value < math.inf:
        raise DataError(f"{name}: {value!r} is no number of seconds above 0")
    return float(value)


def check_overrides(overrides: Any) -> list[str]:
    """Return settings ``key.sub=value``.

    Raises:
        ConfigError: if they are no list of strings.
    """
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise ConfigError(f"overrides is a list of 'key.sub=value', such as ['dataset.bert_name=x'], not {overrides!r}")
    found = list(overrides)
    wrong = next((one for one in found if not isinstance(one, str)), None)
    if wrong is not None:
        raise ConfigError(f"overrides: {wrong!r} is no string 'key.sub=value'")
    return found


def as_pictures(images: Any) -> tuple[list[np.ndarray], bool]:
    """Return pictures (height, width, 3) as a list, and whether a single one was given.

    Raises:
        DataError: if one is of another shape; names its place.
    """
    alone = images.ndim < 4 if isinstance(images, np.ndarray | Tensor) else hasattr(images, "__array_interface__")
    single = alone or isinstance(images, str | bytes) or not isinstance(images, Iterable)
    found = [as_array(image) for image in ([images] if single else images)]
    for number, image in enumerate(found):
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
            raise DataError(
                f"picture {number}: {image.dtype} of shape {image.shape}, expected (height, width, 3)"
                + ". Of a grey one (height, width): np.stack([picture] * 3, axis=-1)" * grey
            )
    return found, single


def as_array(values: Any) -> np.ndarray:
    """Return an array or tensor of any device and type as an array; bfloat16, which NumPy has not, as float32."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)
