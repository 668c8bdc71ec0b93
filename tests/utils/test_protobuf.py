"""The wire format of protocol buffers: worked examples of its documentation, round trips, and damage."""

import pytest

from mmpt.utils.protobuf import LENGTH, VARINT, field_bytes, fields, read_varint, varint, varints


def test_the_documented_examples() -> None:
    assert list(fields(bytes.fromhex("089601"))) == [(1, VARINT, 150)]
    [(number, kind, value)] = fields(bytes.fromhex("120774657374696e67"))
    assert (number, kind, bytes(value)) == (2, LENGTH, b"testing")
    assert varints(bytes.fromhex("038e029ea705")) == [3, 270, 86942]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**63 - 1, -1, -(2**63)])
def test_numbers_return(value: int) -> None:
    assert varints(varint(value) + varint(7)) == [value, 7]
    assert list(fields(varint(3 << 3) + varint(value))) == [(3, VARINT, value)]


def test_a_field_returns() -> None:
    [(number, _, content)] = fields(field_bytes(17, b"x" * 1000))
    assert (number, bytes(content)) == (17, b"x" * 1000)


@pytest.mark.parametrize(
    "damaged",
    [b"\x80", b"\x08\x80", b"\x12\x05ab", b"\x0b", b"\x00\x01", b"\x08" + b"\x80" * 12, b"\x09\x01"],
    ids=["key", "number", "length", "group", "field 0", "too long", "fixed"],
)
def test_damage_is_told(damaged: bytes) -> None:
    with pytest.raises(ValueError):
        list(fields(damaged))


def test_cut_numbers_are_told() -> None:
    with pytest.raises(ValueError, match="cut short"):
        varints(b"\x05\x80")
    with pytest.raises(ValueError, match="does not end"):
        varints(b"\x80" * 12)
    with pytest.raises(ValueError, match="does not end"):
        read_varint(b"", 0)
