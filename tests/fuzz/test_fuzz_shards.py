"""Shards: damaged files, of both layouts, and crafted ones whose checksums hold."""

import io
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import EVIL_IDS, STRANGE_IDS, examples, mutated, reads_or_refuses, structures

from mmpt.store.features import FeatureStore, ShardedFeatureStore, read_feature, read_shard_map
from mmpt.utils.errors import DataError
from mmpt.utils.npy import read_npy
from mmpt.utils.shardedtensor import ShardedTensor

PARTS = ("data.npy", "starts.npy", "ids.json", "index.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    arrays = [np.full((n, 3), n, np.float16) for n in (4, 0, 2)]
    ShardedTensor.from_list(arrays, ids=["a", "b", "c"]).save(folder / "s")
    return folder


def read_all(prefix: Path) -> None:
    shard = ShardedTensor.load(prefix)
    for item in shard:
        item.sum()
    shard.verify()
    if shard.ids:
        shard.position(shard.ids[0])


def check(whole: Path, tmp_path: Path, part: str, indexed: bool, change) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    if not indexed:
        (tmp_path / "s_index.json").unlink()
    file = tmp_path / f"s_{part}"
    file.write_bytes(change(file.read_bytes()))
    reads_or_refuses(lambda: read_all(tmp_path / "s"), *(tmp_path / f"s_{name}" for name in PARTS), tmp_path / "s")


CASES = [(part, True) for part in PARTS] + [("data.npy", False), ("starts.npy", False)]


@pytest.mark.parametrize(("part", "indexed"), CASES)
@given(data=st.data())
@examples(30)
def test_damaged_files(whole, tmp_path, part, indexed, data):
    check(whole, tmp_path, part, indexed, lambda content: data.draw(mutated(content)))


@pytest.mark.slow
@pytest.mark.parametrize(("part", "indexed"), CASES)
@given(data=st.data())
@examples(150)
def test_damaged_files_at_length(whole, tmp_path, part, indexed, data):
    check(whole, tmp_path, part, indexed, lambda content: data.draw(mutated(content)))


@given(data=st.data())
@examples(80)
def test_an_index_of_wrong_values_whose_checksum_holds(whole, tmp_path, data):
    def craft(content: bytes) -> bytes:
        index = json.loads(content)
        del index["checksum"]
        for key in data.draw(st.lists(st.sampled_from(sorted(index)), min_size=1, max_size=2)):
            index[key] = data.draw(structures())
        index["checksum"] = zlib.crc32(json.dumps(index, sort_keys=True).encode())
        return json.dumps(index).encode()

    check(whole, tmp_path, "index.json", True, craft)


@given(ids=structures())
@examples(40)
def test_ids_of_wrong_values_whose_checksum_holds(whole, tmp_path, ids):
    content = json.dumps(ids).encode()

    def craft(old: bytes) -> bytes:
        index = json.loads(old)
        del index["checksum"]
        index["ids_crc32"] = zlib.crc32(content)
        index["checksum"] = zlib.crc32(json.dumps(index, sort_keys=True).encode())
        return json.dumps(index).encode()

    check(whole, tmp_path, "index.json", True, craft)
    (tmp_path / "s_ids.json").write_bytes(content)
    reads_or_refuses(lambda: read_all(tmp_path / "s"), *(tmp_path / f"s_{name}" for name in PARTS))


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775808), }",
    "{'descr': '|S0', 'fortran_order': False, 'shape': (4611686018427387904, 8), }",
    "{'descr': ('<f4', (2,)), 'fortran_order': False, 'shape': (1, 2), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, True), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1,) * 9, }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 300 + ")" * 300 + ", }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 70 + "), }",
    "{'descr': None, 'fortran_order': 1, 'shape': None}",
    "__import__('os').system('true')",
    "\0",
]


def npy(header: str) -> bytes:
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("mode", ["r", None])
def test_headers_that_promise_what_no_array_holds(tmp_path, header, mode):
    file = tmp_path / "v.npy"
    file.write_bytes(npy(header))
    reads_or_refuses(lambda: read_npy(file, mode), file)
    reads_or_refuses(lambda: read_feature(file, "v"), file)


@given(header=mutated(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"))
@examples(100)
def test_arbitrary_headers(tmp_path, header):
    file = tmp_path / "v.npy"
    file.write_bytes(npy(header[:60000].decode("latin1")))
    reads_or_refuses(lambda: read_npy(file), file)


def test_pickled_features_are_not_loaded(tmp_path):
    made = tmp_path / "made"
    buffer = io.BytesIO()
    np.save(buffer, np.array([Toucher(made)], object), allow_pickle=True)
    (tmp_path / "v.npy").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"v\.npy"):
        FeatureStore(tmp_path)["v"]
    assert not made.exists()


class Toucher:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("video_id", [*EVIL_IDS, *STRANGE_IDS])
def test_ids_never_leave_the_feature_folder(tmp_path, video_id):
    (tmp_path / "in").mkdir()
    for name in ("etc/passwd", "b", "in/a/b", "in/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", np.zeros((1, 1), np.float32))
    store = FeatureStore(tmp_path / "in")
    assert video_id not in store
    with pytest.raises(DataError):
        store[video_id]
    assert store.ids() == []


@given(content=structures("0", "1"))
@examples(60)
def test_maps_of_shards(tmp_path, content):
    file = tmp_path / "train_meta.json"
    file.write_text(json.dumps(content))
    reads_or_refuses(lambda: read_shard_map(tmp_path, "train"), file)
    reads_or_refuses(lambda: ShardedFeatureStore(tmp_path, "train").ids(), file)
