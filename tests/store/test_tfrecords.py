"""TFRecords: a file of the published layout, round trips, and every kind of damage."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from mmpt.store.tfrecords import Example, encode_example, parse_example, read_examples, read_records, write_records
from mmpt.utils.errors import DataError

FEATURES = {
    "text": "grün",
    "bytes": [b"a", b""],
    "ints": [1, -5, 2**40],
    "floats": [0.5, -2.0],
    "none": [],
    "one": 7,
}


def test_features_return(tmp_path: Path) -> None:
    """What is written is read; an empty list has lost its kind."""
    path = tmp_path / "a.tfrecord"
    write_records(path, [encode_example(FEATURES), b""])
    first, second = list(read_examples([path]))
    assert first.text("text") == "grün"
    assert first["bytes"] == [b"a", b""]
    assert first.numbers("ints").tolist() == [1, -5, 2**40]
    assert first.numbers("floats").dtype == np.float32 and first.numbers("floats").tolist() == [0.5, -2.0]
    assert len(first.numbers("none")) == 0
    assert first.number("one") == 7
    assert first.number("absent", 3) == 3
    assert second == {}


def test_unpacked_numbers_are_read() -> None:
    """Writers may give each number a field of its own."""
    from mmpt.utils.protobuf import field_bytes, varint

    ints = b"".join(varint(1 << 3) + varint(one) for one in (4, -4))
    floats = b"".join(varint(1 << 3 | 5) + np.float32(one).tobytes() for one in (1.5, 2.5))
    entries = b"".join(
        field_bytes(1, field_bytes(1, name) + field_bytes(2, field_bytes(kind, body)))
        for name, kind, body in ((b"i", 3, ints), (b"f", 2, floats))
    )
    parsed = parse_example(field_bytes(1, entries))
    assert np.asarray(parsed["i"]).tolist() == [4, -4]
    assert np.asarray(parsed["f"]).tolist() == [1.5, 2.5]


def test_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord.gz"
    write_records(path, [b"one", b"two" * 1000])
    assert gzip.decompress(path.read_bytes())[:1] == b"\x03"
    renamed = path.rename(tmp_path / "plain_name")
    assert list(read_records(renamed)) == [b"one", b"two" * 1000]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    path = tmp_path / "three.tfrecord"
    write_records(path, [bytes([number]) * 700 for number in range(3)])
    return path


@pytest.mark.parametrize("cut", [1, 3, 11, 12, 400, 711, 715])
def test_a_cut_file_names_its_record(three: Path, cut: int) -> None:
    content = three.read_bytes()
    three.write_bytes(content[: 716 + cut])
    records = read_records(three)
    assert len(next(records)) == 700
    with pytest.raises(DataError, match=r"three\.tfrecord: record 1: cut short"):
        next(records)


@pytest.mark.parametrize(
    ("byte", "told"), [(716, "damaged length"), (716 + 9, "damaged length"), (716 + 100, "checksum")]
)
def test_a_changed_byte_names_its_record(three: Path, byte: int, told: str) -> None:
    content = bytearray(three.read_bytes())
    content[byte] ^= 1
    three.write_bytes(bytes(content))
    with pytest.raises(DataError, match=f"record 1: .*{told}"):
        list(read_records(three))


def test_the_check_can_be_left_out(three: Path) -> None:
    content = bytearray(three.read_bytes())
    content[716 + 100] ^= 1
    three.write_bytes(bytes(content))
    assert len(list(read_records(three, check=False))) == 3


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"this is a text file of some length")
    with pytest.raises(DataError, match="no TFRecord file"):
        list(read_records(other))
    with pytest.raises(DataError, match="no such file"):
        list(read_records(tmp_path / "absent"))
    cut = tmp_path / "cut.gz"
    write_records(cut, [b"x" * 5000])
    cut.write_bytes(cut.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"cut\.gz"):
        list(read_records(cut))


def test_a_record_that_is_no_example(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write_records(path, [b"\x0a\x05ab"])
    with pytest.raises(DataError, match="record 0: holds no tf.train.Example"):
        list(read_examples([path]))


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda example: example.text("txet"), "no feature 'txet'.*Did you mean 'text'"),
        (lambda example: example.bytes_of("bytes"), "expected one byte string"),
        (lambda example: example.number("ints"), "3 numbers, expected one"),
        (lambda example: example.numbers("text"), "found byte strings"),
    ],
)
def test_what_a_feature_is_not(ask, told: str) -> None:
    example = Example(parse_example(encode_example(FEATURES)), "f: record 9")
    with pytest.raises(DataError, match=f"f: record 9: .*{told}"):
        ask(example)
