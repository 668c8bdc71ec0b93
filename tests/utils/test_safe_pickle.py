"""safe_pickle: plain data of every protocol loads, everything else is refused and not executed."""

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt.utils.errors import DataError
from mmpt.utils.safe_pickle import load


def dump(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.just(1j)
keys = st.integers() | st.text() | st.tuples(st.text(), st.integers())
plain = st.recursive(
    scalars | st.sets(keys) | st.frozensets(keys),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.lists(inner).map(tuple),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=plain, protocol=st.integers(0, 5))
def test_plain_data_of_every_protocol(tmp_path: Path, value: Any, protocol: int) -> None:
    loaded = load(dump(tmp_path / "x.pkl", value, protocol))
    assert loaded == value and repr(type(loaded)) == repr(type(value))


ARRAYS = [
    np.arange(6, dtype="f2").reshape(2, 3),
    np.arange(6, dtype=">i4"),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24).reshape(2, 3, 4)[:, ::2].transpose(2, 0, 1),
    np.empty((0, 512), "f2"),
    np.array(3.5),
    np.array([True, False]),
    np.array(["ab", "c"]),
    np.array([b"ab", b"\xff"]),
    np.array([1 + 2j], "c8"),
    np.float32(2.5),
    np.int64(-7),
    np.bool_(True),
    np.str_("é"),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_numpy_arrays_and_scalars(tmp_path: Path, array: Any, protocol: int) -> None:
    loaded = load(dump(tmp_path / "x.pkl", {"a": (1, [array])}, protocol))["a"][1][0]
    assert type(loaded) is type(array) and loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


@pytest.mark.parametrize("protocol", range(6))
def test_object_arrays_of_plain_data(tmp_path: Path, protocol: int) -> None:
    array = np.empty((2, 2), object)
    array[:] = [[np.arange(3), "x"], [None, [np.float32(1)]]]
    loaded = load(dump(tmp_path / "x.pkl", array, protocol))
    assert loaded.shape == (2, 2) and loaded[0, 0].tolist() == [0, 1, 2] and loaded[0, 1] == "x"
    assert loaded[1, 0] is None and type(loaded[1, 1][0]) is np.float32


def test_both_names_of_the_numpy_core(tmp_path: Path) -> None:
    content = pickle.dumps({"a": np.arange(3), "b": np.float64(2)}, 2)
    old, new = content.replace(b"numpy._core", b"numpy.core"), content.replace(b"numpy.core", b"numpy._core")
    assert b"numpy.core" in old and b"numpy._core" in new
    for text in (old, new):
        (tmp_path / "x.pkl").write_bytes(text)
        assert load(tmp_path / "x.pkl")["a"].tolist() == [0, 1, 2]


def test_shared_and_circular_parts_stay_shared(tmp_path: Path) -> None:
    array = np.arange(2)
    value: dict[str, Any] = {"one": array, "two": [array], "tuple": ("x", array)}
    value["self"] = value
    loaded = load(dump(tmp_path / "x.pkl", value))
    assert loaded["self"] is loaded
    assert loaded["one"] is loaded["two"][0] is loaded["tuple"][1] and type(loaded["one"]) is np.ndarray


class Exploit:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "call", [(os.system, "touch executed"), (eval, "open('executed', 'w')"), (os.mkdir, "executed")]
)
def test_code_is_refused_and_not_executed(
    tmp_path: Path, call: tuple[Any, ...], protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = dump(tmp_path / "bad.pkl", {0: ["a"], 1: Exploit(*call)}, protocol)
    with pytest.raises(DataError, match=rf"bad\.pkl: .*{call[0].__name__}.*not executed"):
        load(path)
    assert os.listdir(tmp_path) == ["bad.pkl"]


@pytest.mark.parametrize(
    "value",
    [
        collections.OrderedDict(a=1),
        Path("x"),
        print,
        set,
        [np.ndarray],
        {"a": np.dtype("f4")},
        np.zeros(2, dtype=[("a", "f4")]),
        np.datetime64("2020-01-01"),
        bytearray(b"x"),
        Exploit(np.ndarray, (2,)),
        Exploit(np.fromfile, "/etc/passwd"),
        Exploit(bytes, 10**14),
        Exploit(getattr, "x", "upper"),
    ],
    ids=lambda value: value.call[0].__name__ if isinstance(value, Exploit) else repr(value),
)
def test_other_types_are_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DataError, match=r"x\.pkl"):
        load(dump(tmp_path / "x.pkl", value, 2))


FORGED_DTYPE_STATE = {
    "objects said to be plain bytes": ("O8", (3, "|", None, None, None, -1, -1, 0), bytes(8)),
    "numbers said to be objects": ("f8", (3, "<", None, None, None, -1, -1, 63), bytes(8)),
    "fields beyond the element": ("V8", (3, "|", None, ("a",), {"a": (0, 4000)}, 8, 1, 0), bytes(8)),
    "too few bytes": ("f8", (3, "<", None, None, None, -1, -1, 0), bytes(4)),
    "too many bytes": ("f8", (3, "<", None, None, None, -1, -1, 0), bytes(16)),
}


@pytest.mark.parametrize("case", FORGED_DTYPE_STATE)
def test_forged_arrays_are_refused_or_harmless(tmp_path: Path, case: str) -> None:
    name, state, content = FORGED_DTYPE_STATE[case]

    class Dtype:
        def __reduce__(self) -> Any:
            return np.dtype, (name, False, True), state

    class Array:
        def __reduce__(self) -> Any:
            reconstruct = np.zeros(1).__reduce__()[0]
            return reconstruct, (np.ndarray, (0,), b"b"), (1, (1,), Dtype(), False, content)

    path = dump(tmp_path / "x.pkl", Array(), 2)
    if case == "numbers said to be objects":  # the forged flags are not looked at
        assert load(path).tolist() == [0.0]
    else:
        with pytest.raises(DataError, match=r"x\.pkl"):
            load(path)


def test_a_pickle_cannot_change_the_reader(tmp_path: Path) -> None:
    """BUILD on an allowed global would set attributes of it in this process."""
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02cnumpy\ndtype\n}X\x09\x00\x00\x00_functionNsb.")
    with pytest.raises(DataError):
        load(path)
    assert load(dump(path, np.arange(3), 2)).tolist() == [0, 1, 2]


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    content = pickle.dumps({0: ["a", "b"], 1: np.arange(3)})
    for size in range(len(content)):
        (tmp_path / "cut.pkl").write_bytes(content[:size])
        with pytest.raises(DataError, match=r"cut\.pkl"):
            load(tmp_path / "cut.pkl")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255), protocol=st.integers(0, 5))
def test_any_damage_is_an_error_or_plain_data(tmp_path: Path, position: int, byte: int, protocol: int) -> None:
    content = bytearray(pickle.dumps({0: ["a", "b"], 1: np.arange(3), 2: (np.float32(1), {"x"})}, protocol))
    content[position % len(content)] = byte
    (tmp_path / "x.pkl").write_bytes(content)
    try:
        load(tmp_path / "x.pkl")
    except DataError as error:
        assert "x.pkl" in str(error)


@pytest.mark.parametrize("code", [b"r\xff\xff\xff\xff", b"p4294967295\n"])
def test_a_huge_memo_number_is_refused_before_memory_is_taken_for_it(tmp_path: Path, code: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02]" + code + b".")
    with pytest.raises(DataError, match=r"x\.pkl.*memo number 4294967295"):
        load(tmp_path / "x.pkl")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "none.pkl")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path)
