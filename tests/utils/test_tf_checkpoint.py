"""TensorFlow's checkpoints: a published one, and ones written here byte by byte, whole and damaged."""

import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmpt.utils.crc32c import crc32c, mask_crc
from mmpt.utils.errors import CheckpointError
from mmpt.utils.files import REPOSITORY
from mmpt.utils.protobuf import field_bytes, varint
from mmpt.utils.tf_checkpoint import read_tf_checkpoint, tf_prefix
from mmpt.utils.weight_files import checkpoint_file, load_state_dict_file

PUBLISHED = REPOSITORY / "tests/data/merlot_checkpoint/model.ckpt"
TYPES = {torch.float32: 1, torch.float64: 2, torch.int32: 3, torch.int64: 9, torch.bool: 10, torch.bfloat16: 14}


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def block(entries: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    """A block of LevelDB's table with a restart at every third entry, and its trailer."""
    content, restarts, last = b"", [], b""
    for place, (key, value) in enumerate(entries):
        shared = 0
        if place % 3:
            while shared < min(len(last), len(key)) and last[shared] == key[shared]:
                shared += 1
        else:
            restarts.append(len(content))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    content += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts)) + bytes([kind])
    return content + struct.pack("<I", mask_crc(crc32c(content)))


def write(prefix: Path, tensors: Mapping[str, Tensor], shards: int = 1, per_block: int = 4, more: bytes = b"") -> None:
    """Write a checkpoint, its variables dealt out among the data files; ``more`` ends each entry."""
    data = [b""] * shards
    entries = [(b"", number(1, shards) + field_bytes(3, number(1, 1)))]
    for place, (name, tensor) in enumerate(sorted(tensors.items())):
        shard = place % shards
        shape = b"".join(field_bytes(2, number(1, size)) for size in tensor.shape)
        content = raw(tensor)
        checksum = varint(6 << 3 | 5) + struct.pack("<I", mask_crc(crc32c(content)))
        where = number(3, shard) + number(4, len(data[shard])) + number(5, len(content))
        message = number(1, TYPES[tensor.dtype]) + field_bytes(2, shape) + where + checksum + more
        entries.append((name.encode(), message))
        data[shard] += content
    index, places = b"", []
    for first in range(0, len(entries), per_block):
        part = entries[first : first + per_block]
        written = block(part)
        places.append((part[-1][0], varint(len(index)) + varint(len(written) - 5)))
        index += written
    handles = b""
    for extra in (block([]), block(places)):
        handles += varint(len(index)) + varint(len(extra) - 5)
        index += extra
    index += handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    prefix.with_name(prefix.name + ".index").write_bytes(index)
    for shard, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {f"layer{layer:02d}/kernel": torch.randn(3, layer, generator=generator) for layer in range(12)}
    return found | {
        "global_step": torch.tensor(460_000),
        "layer00/kernel/adam_m": torch.randn(7, generator=generator).bfloat16(),
        "mask": torch.tensor([[True], [False]]),
        "double": torch.randn(2, 1, 2, 1, generator=generator, dtype=torch.float64),
        "short": torch.tensor([-1, 2], dtype=torch.int32),
    }


@pytest.mark.parametrize(("shards", "per_block"), [(1, 100), (1, 1), (3, 4)])
def test_every_type_shard_and_block_is_read(
    tmp_path: Path, tensors: dict[str, Tensor], shards: int, per_block: int
) -> None:
    write(tmp_path / "model.ckpt", tensors, shards, per_block)
    found = read_tf_checkpoint(tmp_path / "model.ckpt")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def test_a_published_checkpoint_is_read() -> None:
    state = read_tf_checkpoint(PUBLISHED)
    assert len(state) == 171
    moment = state["encoder/layer00/query_layer/kernel/adam_m"]
    assert moment.dtype == torch.bfloat16 and moment.shape == (64, 64) and moment.float().isfinite().all()
    assert state["global_step"].dtype == torch.int64 and state["global_step"].shape == ()


def test_a_checkpoint_has_several_names(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    prefix = tmp_path / "model.ckpt-7"
    write(prefix, tensors, shards=2)
    for name in ("model.ckpt-7", "model.ckpt-7.index", "model.ckpt-7.data-00001-of-00002"):
        assert tf_prefix(tmp_path / name) == prefix
        assert checkpoint_file(tmp_path / name) == tmp_path / "model.ckpt-7.index"
    assert tf_prefix(tmp_path / "model.ckpt") is None and tf_prefix(tmp_path) is None
    assert checkpoint_file("runs/checkpoint_best.pt") == Path("runs/checkpoint_best.pt")


def test_weights_are_loaded_without_what_the_training_kept(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write(tmp_path / "model.ckpt", tensors)
    for name in ("model.ckpt", "model.ckpt.index"):
        state = load_state_dict_file(tmp_path / name)
        assert state.keys() == tensors.keys() - {"global_step", "layer00/kernel/adam_m"}
    with pytest.raises(CheckpointError, match="no moving average"):
        load_state_dict_file(tmp_path / "model.ckpt", "ema")
    assert read_tf_checkpoint(tmp_path / "model.ckpt", without=("layer*",)).keys() == {
        "global_step", "mask", "double", "short"
    }  # fmt: skip


def test_a_cut_or_missing_data_file_is_told(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write(tmp_path / "model.ckpt", tensors, shards=2)
    data = tmp_path / "model.ckpt.data-00001-of-00002"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.ckpt\.data-00001-of-00002: truncated: \S+ ends at byte"):
        read_tf_checkpoint(tmp_path / "model.ckpt")
    data.write_bytes(b"")
    with pytest.raises(CheckpointError, match="truncated"):
        read_tf_checkpoint(tmp_path / "model.ckpt")
    data.unlink()
    with pytest.raises(CheckpointError, match=r"data-00001-of-00002: cannot be read \(No such file"):
        read_tf_checkpoint(tmp_path / "model.ckpt")


def test_a_flipped_bit_of_a_weight_is_told(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write(tmp_path / "model.ckpt", tensors)
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[-1] ^= 4
    data.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged: the checksum of short is wrong"):
        read_tf_checkpoint(tmp_path / "model.ckpt")
    unchecked = read_tf_checkpoint(tmp_path / "model.ckpt", check=False)
    assert not torch.equal(unchecked["short"], tensors["short"])


def test_a_damaged_index_is_always_an_error_that_names_it(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write(tmp_path / "model.ckpt", tensors)
    index = tmp_path / "model.ckpt.index"
    whole = index.read_bytes()
    cut = [whole[:length] for length in range(0, len(whole), 13)]
    flipped = []
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 0x55
        flipped.append(bytes(content))
    for content in cut + flipped:
        index.write_bytes(content)
        try:
            found = read_tf_checkpoint(tmp_path / "model.ckpt")
        except CheckpointError as error:
            assert "model.ckpt.index: damaged or truncated" in str(error)
        else:  # bytes of the footer or of the empty block that nothing reads
            assert all(torch.equal(found[name], value) for name, value in tensors.items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (number(1, 7), "mask has TensorFlow's type 7|double has TensorFlow's type 7"),
        (field_bytes(7, b""), "is stored in slices"),
        (number(5, 3), r"has 3 bytes: the index is damaged"),
        (number(3, 9), r"is in data file 9 of 1"),
        (number(4, 1 << 40), r"truncated: double ends at byte"),
        (number(4, (1 << 64) - 8), r"truncated: double ends at byte|damaged"),
    ],
)
def test_what_is_not_understood_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor], more: bytes, message: str
) -> None:
    write(tmp_path / "model.ckpt", tensors, more=more)
    with pytest.raises(CheckpointError, match=message):
        read_tf_checkpoint(tmp_path / "model.ckpt")


def test_another_file_of_that_name_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "notes.index").write_text("a list of words " * 20)
    with pytest.raises(CheckpointError, match=r"notes\.index: damaged or truncated, or not the index"):
        load_state_dict_file(tmp_path / "notes.index")
