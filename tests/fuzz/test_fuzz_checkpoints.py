"""Checkpoints and pickles: damaged bytes, hostile programs, tensors that claim more than the file holds."""

import argparse
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import examples, mutated, reads_or_refuses, structures

from mmpt.utils import safe_pickle
from mmpt.utils.errors import CheckpointError, DataError
from mmpt.utils.weight_files import load_state_dict_file, save_safetensors

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:invalid escape sequence")

KINDS = ("zip.pt", "legacy.pth", "fairseq.pt", "w.safetensors")
PLAIN = {
    "a": [1, 2.5, "x", None, True, b"y", {3}],
    "n": np.arange(6.0).reshape(2, 3),
    "s": np.float32(1),
    (1,): -(2**70),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    state = {"mmmodel.w": torch.arange(6.0).reshape(2, 3), "mmmodel.b": torch.ones(2, dtype=torch.float16)}
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": state, "args": argparse.Namespace(lr=1.0), "extra_state": {}}, folder / "fairseq.pt")
    save_safetensors(folder / "w.safetensors", state)
    return folder


def check(whole: Path, tmp_path: Path, kind: str, data: st.DataObject) -> None:
    file = tmp_path / kind
    file.write_bytes(data.draw(mutated((whole / kind).read_bytes())))
    reads_or_refuses(lambda: load_state_dict_file(file), file)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@examples(40)
def test_damaged_checkpoints(whole, tmp_path, kind, data):
    check(whole, tmp_path, kind, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@examples(200)
def test_damaged_checkpoints_at_length(whole, tmp_path, kind, data):
    check(whole, tmp_path, kind, data)


@given(content=structures("model", "state_dict", plain=False))
@examples(40)
def test_checkpoints_of_arbitrary_content(tmp_path, content):
    file = tmp_path / "c.pt"
    torch.save(content, file)
    reads_or_refuses(lambda: load_state_dict_file(file), file)


@given(header=structures("w", "dtype", "shape", "data_offsets", "__metadata__"))
@examples(60)
def test_headers_of_safetensors(tmp_path, header):
    import json

    text = json.dumps(header).encode()
    file = tmp_path / "c.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    reads_or_refuses(lambda: load_state_dict_file(file), file)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(1).expand(1 << 44), torch.zeros(4, device="meta"), torch.eye(3).to_sparse()],
    ids=["expanded", "meta", "sparse"],
)
def test_tensors_whose_values_are_not_in_the_file(tmp_path, tensor):
    """16 TiB out of four bytes: the copy would fill the memory."""
    file = tmp_path / "c.pt"
    torch.save({"w": tensor}, file)
    with pytest.raises(CheckpointError, match=r"c\.pt: w is not a plain tensor"):
        load_state_dict_file(file)


def test_tied_and_small_expanded_tensors_load(tmp_path):
    w = torch.arange(6.0)
    torch.save({"a": w, "b": w, "t": w.reshape(2, 3).T, "e": torch.ones(1).expand(5), "v": w[2:4]}, tmp_path / "c.pt")
    state = load_state_dict_file(tmp_path / "c.pt")
    assert state["v"].tolist() == [2, 3] and state["e"].tolist() == [1] * 5 and state["t"].shape == (3, 2)


class Call:
    """A pickle that calls a function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile(made: Path) -> list[Call]:
    return [
        Call(os.system, f"touch {made}"),
        Call(subprocess.check_call, ["touch", str(made)]),
        Call(open, str(made), "w"),
        Call(eval, f"open({str(made)!r}, 'w')"),
        Call(Path.touch, made),
        Call(getattr, "x", "upper"),
        Call(np.memmap, str(made), "uint8", "w+", 0, (4,)),
        Call(torch.save, [], str(made)),
    ]


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_in_a_pickle_runs(tmp_path, number, protocol):
    made = tmp_path / "made"
    payload = hostile(made)[number]
    (tmp_path / "c.pkl").write_bytes(pickle.dumps([{"id": payload}], protocol))
    with pytest.raises(DataError, match=r"c\.pkl.*not executed"):
        safe_pickle.load(tmp_path / "c.pkl")
    for name, layout in (("zip.pt", True), ("legacy.pth", False)):
        torch.save({"model": {"w": payload}}, tmp_path / name, _use_new_zipfile_serialization=layout)
        with pytest.raises(CheckpointError, match=name):
            load_state_dict_file(tmp_path / name)
    assert not made.exists()


def reads_or_refuses_damaged_pickle(folder, protocol, data):
    file = folder / "c.pkl"
    file.write_bytes(data.draw(mutated(pickle.dumps(PLAIN, protocol))))
    reads_or_refuses(lambda: safe_pickle.load(file), file)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@given(data=st.data())
@examples(80)
def test_damaged_pickles(tmp_path, protocol, data):
    reads_or_refuses_damaged_pickle(tmp_path, protocol, data)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [0, 2, 5])
@given(data=st.data())
@examples(500)
def test_damaged_pickles_at_length(tmp_path, protocol, data):
    reads_or_refuses_damaged_pickle(tmp_path, protocol, data)


@given(content=structures("a", plain=False))
@examples(60)
def test_plain_values_come_back(tmp_path, content):
    file = tmp_path / "c.pkl"
    file.write_bytes(pickle.dumps(content))
    assert repr(safe_pickle.load(file)) == repr(content) or "9" * 4301 in repr(content)
