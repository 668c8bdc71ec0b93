"""What the fuzz tests share: damaged bytes, arbitrary structures, and what a reader may do with them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mmpt.utils.errors import MMPTError

__all__ = ["EVIL_IDS", "examples", "mutated", "reads_or_refuses", "structures"]

#: Video ids that would leave the feature folder, or are no file names.
EVIL_IDS = ["../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "..", ".", "", "a\0b", ".hidden"]
#: Names that stay in the folder, and that no file system holds.
STRANGE_IDS = ["x" * 5000, "\ud800", "é" * 200, "\n", "a:b", "~", "$HOME", "%s"]

_TOKENS = [
    b"\0",
    b"\xff\xfe",
    b'"',
    b"{",
    b"[" * 3000,
    b"}",
    b",",
    b"\n",
    b"-1",
    b"9" * 5000,
    b"1e999",
    b"NaN",
    b"null",
]


def examples(number: int) -> Callable[[Any], Any]:
    """Return the settings of a fuzz test: so many examples, the same ones at every run, of no time limit each."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=number, deadline=None, derandomize=True, database=None, suppress_health_check=checks)


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw ``content`` cut, with bits flipped, bytes inserted, removed or repeated; or bytes of no origin."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.binary(max_size=200))
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        # Most of what decides how a file is read stands at its ends.
        at = draw(st.one_of(st.integers(0, len(result)), st.integers(0, min(len(result), 128))))
        match draw(st.sampled_from(["cut", "flip", "insert", "token", "remove", "repeat"])):
            case "cut":
                del result[at:]
            case "flip" if at < len(result):
                result[at] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                result[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "token":
                result[at:at] = draw(st.sampled_from(_TOKENS))
            case "remove":
                del result[at : at + draw(st.integers(1, 16))]
            case "repeat":
                result[at:at] = result[at : at + draw(st.integers(1, 64))]
    return bytes(result)


def structures(*keys: str, plain: bool = True) -> st.SearchStrategy[Any]:
    """Return arbitrary nested values, with the keys that a reader looks for; ``plain``: only what JSON holds."""
    numbers = st.one_of(
        st.integers(),
        st.floats(),
        st.sampled_from([0, -1, 1, 2**63, 10**400, math.nan, math.inf, "0", "1", "9" * 5000, "²"]),
    )
    leaves: list[st.SearchStrategy[Any]] = [
        st.none(),
        st.booleans(),
        numbers,
        st.text(max_size=6),
        st.sampled_from([*EVIL_IDS, *STRANGE_IDS, "v_0", "vid"]),
    ]
    if not plain:
        leaves += [st.binary(max_size=4), st.complex_numbers(), st.just({1}), st.just(_array()), st.just(_array() > 0)]
    names = st.one_of(st.sampled_from(keys), st.text(max_size=4)) if keys else st.text(max_size=4)
    if not plain:
        names = st.one_of(names, st.integers(), st.floats(), st.none(), st.just((1, "a")))
    return st.recursive(
        st.one_of(leaves),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(names, inner, max_size=4),
            st.fixed_dictionaries(dict.fromkeys(keys, inner)),
        ),
        max_leaves=12,
    )


def _array() -> Any:
    import numpy as np

    return np.arange(4.0).reshape(2, 2)


def reads_or_refuses(read: Callable[[], Any], *files: Path) -> Any:
    """Return what ``read`` returns; what it raises must be an MMPTError that names one of the files."""
    try:
        return read()
    except MMPTError as error:
        message = str(error)
        assert any(file.name in message for file in files), f"names no file: {message[:500]}"
        return None
