"""CRC-32C against its published values, and against the definition, one bit at a time."""

import numpy as np
import pytest

from mmpt.utils.crc32c import crc32c, mask_crc


def by_definition(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_published_values(data: bytes, expected: int) -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(data) == expected


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 2047, 2048, 5001, (1 << 20) + 1025])
def test_rows_joined_equal_the_definition(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    assert crc32c(data) == crc32c(data.tobytes()) == by_definition(data.tobytes())


def test_every_other_byte_and_an_odd_address() -> None:
    data = np.random.default_rng(0).integers(0, 256, 6001, dtype=np.uint8)
    assert crc32c(data[::2]) == crc32c(data[::2].tobytes()) == by_definition(data[::2].tobytes())
    assert crc32c(data[1:]) == by_definition(data[1:].tobytes())


def test_masked() -> None:
    crc = 0x12345678
    assert mask_crc(crc) == (((crc >> 15) | (crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) % 2**32
