"""Flax's files: what they hold comes back, and what they should not hold is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.utils.errors import CheckpointError
from mmpt.utils.flax_checkpoint import is_flax_checkpoint, read_flax_checkpoint
from mmpt.utils.weight_files import load_state_dict_file
from tests.models.published_reserve import FLAX_FILE, reserve_golden

msgpack = pytest.importorskip("msgpack")

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def array(value: np.ndarray, kind: str | None = None, code: int = 1) -> Any:
    return msgpack.ExtType(code, msgpack.packb((value.shape, kind or value.dtype.name, value.tobytes())))


def brain_float(values: list[float]) -> np.ndarray:
    return (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write(path: Path, content: Any) -> Path:
    path.write_bytes(msgpack.packb(content))
    return path


def content() -> dict[str, Any]:
    chunks = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}}
    chunks["chunks"] = {"0": array(WEIGHT.ravel()[:4]), "1": array(WEIGHT.ravel()[4:])}
    return {
        "step": 7,
        "params": {
            "head": {"kernel": array(WEIGHT), "bias": array(WEIGHT[0].astype(np.float16))},
            "tower": {"scale": array(brain_float([1.5, -2.0]), "bfloat16"), "big": chunks, "none": array(WEIGHT[:0])},
            "count": array(np.array(3, np.int32), code=3),
        },
        "opt_state": {"0": {"mu": {"kernel": array(WEIGHT)}}},
    }


def test_all_kinds_of_arrays_come_back(tmp_path: Path) -> None:
    state = read_flax_checkpoint(write(tmp_path / "ckpt_7", content()))
    assert sorted(state) == ["count", "head/bias", "head/kernel", "tower/big", "tower/none", "tower/scale"]
    assert torch.equal(state["head/kernel"], torch.from_numpy(WEIGHT))
    assert torch.equal(state["tower/big"], torch.from_numpy(WEIGHT))
    assert state["head/bias"].dtype == torch.float16 and state["head/bias"].tolist() == [0, 1, 2]
    assert state["tower/scale"].dtype == torch.bfloat16 and state["tower/scale"].tolist() == [1.5, -2]
    assert state["tower/none"].shape == (0, 3)
    assert state["count"].item() == 3


def test_parameters_may_be_the_whole_file_and_the_optimizer_may_be_missing(tmp_path: Path) -> None:
    bare = write(tmp_path / "bare", content()["params"]["head"])
    assert sorted(read_flax_checkpoint(bare)) == ["bias", "kernel"]
    without = write(tmp_path / "without", {**content(), "opt_state": None})
    assert len(read_flax_checkpoint(without)) == 6


def test_a_flax_file_stands_where_weights_may(tmp_path: Path) -> None:
    path = write(tmp_path / "weights.bin", content())
    assert is_flax_checkpoint(path)
    state = load_state_dict_file(path)
    assert state["tower/scale"].dtype == state["head/bias"].dtype == torch.float32
    assert not is_flax_checkpoint(tmp_path / "absent") and not is_flax_checkpoint(write(tmp_path / "list", [1, 2]))
    (tmp_path / "empty").write_bytes(b"")
    assert not is_flax_checkpoint(tmp_path / "empty")
    for zipped in (True, False):
        torch.save({"a": torch.ones(2)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        assert not is_flax_checkpoint(tmp_path / "a.pt")


def test_a_file_that_was_cut_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", content()).read_bytes()
    for length in range(1, len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="cut: damaged or truncated"):
            read_flax_checkpoint(tmp_path / "cut")
    (tmp_path / "more").write_bytes(whole + b"\xc0")
    with pytest.raises(CheckpointError, match="bytes behind the end"):
        read_flax_checkpoint(tmp_path / "more")


def test_overwritten_bytes_give_tensors_or_a_named_error(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", content()).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(256)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            state = read_flax_checkpoint(tmp_path / "damaged")
        except CheckpointError as error:
            assert "damaged" in str(error)
        else:
            assert all(isinstance(value, torch.Tensor) for value in state.values())


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (array(WEIGHT, "object"), "type b'object'"),
        (msgpack.ExtType(1, msgpack.packb(((2, 2), "float32", b"1234"))), "has 4 bytes, not 16"),
        (msgpack.ExtType(1, msgpack.packb(((2**40, 2**40), "float32", b""))), "has 0 bytes"),
        (msgpack.ExtType(1, msgpack.packb(((-1,), "float32", b""))), "array of shape"),
        (msgpack.ExtType(1, msgpack.packb(("float32", b""))), "without shape"),
        (msgpack.ExtType(1, msgpack.packb(((1,), "float32", 4))), "without values"),
        (msgpack.ExtType(42, b"code"), "extension type 42"),
        ("a string", "holds str at x"),
        ([1, 2], "holds list at x"),
        ({"__msgpack_chunked_array__": True, "shape": [2], "chunks": {}}, "some are missing"),
        ({"__msgpack_chunked_array__": True, "shape": [7], "chunks": {"0": array(WEIGHT)}}, "have 6 values"),
    ],
)
def test_what_is_no_array_is_refused(tmp_path: Path, leaf: Any, message: str) -> None:
    path = write(tmp_path / "odd", {"params": {"x": leaf}})
    with pytest.raises(CheckpointError, match=message) as caught:
        read_flax_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_file_without_parameters_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="without parameters"):
        read_flax_checkpoint(write(tmp_path / "none", {"step": 1, "params": {}}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_flax_checkpoint(tmp_path / "absent")


def test_the_published_file_is_the_golden_weights_in_half_precision() -> None:
    """These were kept as what they differ by, which is less than half a step of half precision."""
    state = read_flax_checkpoint(FLAX_FILE)
    weights = {name[7:]: value for name, value in reserve_golden().items() if name.startswith("params/")}
    assert set(state) == set(weights) and len(state) == 129
    for name, value in weights.items():
        assert state[name].dtype == torch.float16
        assert np.array_equal(state[name].numpy(), value.astype(np.float16))
