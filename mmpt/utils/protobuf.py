"""Reading and writing protocol buffers' wire format, without generated code: only what published files need."""

from collections.abc import Iterator

__all__ = ["FIXED32", "FIXED64", "LENGTH", "VARINT", "fields", "field_bytes", "read_varint", "varint", "varints"]

#: Wire types: what follows the key of a field.
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

_MOST_VARINT = 10  # bytes
_SIZES = {FIXED64: 8, FIXED32: 4}


def read_varint(data: memoryview | bytes, position: int) -> tuple[int, int]:
    """Return a number and the position behind it; ValueError if it is cut short or too long."""
    value = 0
    for count in range(_MOST_VARINT):
        if position + count >= len(data):
            break
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, position + count + 1
    raise ValueError(f"a number at byte {position} of {len(data)} does not end")


def varints(data: memoryview | bytes) -> list[int]:
    """Return packed numbers as signed 64-bit integers; ValueError if the last is cut short."""
    numbers, value, shift = [], 0, 0
    for byte in bytes(data):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            numbers.append(_signed(value))
            value = shift = 0
        else:
            shift += 7
            if shift >= 7 * _MOST_VARINT:
                raise ValueError("a packed number does not end")
    if shift:
        raise ValueError("packed numbers are cut short")
    return numbers


def fields(data: memoryview | bytes) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield the fields of a message: number, wire type, and a signed integer or the bytes (no copy).

    Raises:
        ValueError: if the message is damaged.
    """
    view, position = memoryview(data), 0
    while position < len(view):
        key, position = read_varint(view, position)
        number, kind = key >> 3, key & 7
        if not number:
            raise ValueError(f"field number 0 at byte {position}")
        if kind == VARINT:
            value, position = read_varint(view, position)
            yield number, kind, _signed(value)
            continue
        if kind == LENGTH:
            size, position = read_varint(view, position)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        if position + size > len(view):
            raise ValueError(f"field {number} of {size} bytes ends behind the message's {len(view)}")
        yield number, kind, view[position : position + size]
        position += size


def varint(value: int) -> bytes:
    """Return a number, negative ones as 64 bits of two's complement, in wire format."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field_bytes(number: int, content: bytes) -> bytes:
    """Return a field of bytes: a string, a message inside, or packed numbers."""
    return varint(number << 3 | LENGTH) + varint(len(content)) + content


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
