"""Compressed images as bytes: the one place that turns JPEG (or PNG) into pixels, and pixels into JPEG."""

import io

import numpy as np

from mmpt.utils.errors import DataError

__all__ = ["QUALITY", "decode_image", "encode_jpeg", "image_format"]

#: Pillow's own, which the published frames were written with.
QUALITY = 75

_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}


def image_format(content: bytes | np.ndarray) -> str | None:
    """Return ``"JPEG"`` or ``"PNG"`` by the first bytes, None if it is neither; looks at nothing else."""
    head = bytes(content[:8])
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def decode_image(content: bytes | np.ndarray, shortest_side: int | None = None) -> np.ndarray:
    """Decode a JPEG or PNG to RGB; grey, CMYK and palette images are converted, transparency is dropped.

    Args:
        content: the file's bytes, or uint8 (bytes,) as the stores hold them.
        shortest_side: let the JPEG decoder leave out resolution (by 2, 4 or 8) as long as the shorter side keeps at
            least this many pixels. Faster for large images, but the pixels after a resize differ a little from those
            of the whole image, as every published system decodes it: None, the default.

    Returns:
        uint8 (height, width, 3), its own memory.

    Raises:
        DataError: if it is neither, cut short, damaged, or absurdly large; says which. The caller names the video.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(memoryview(content)), formats=("JPEG", "PNG")) as image:
            if shortest_side is not None:
                # draft() keeps both sides at least as large as asked for
                scale = shortest_side / min(image.size)
                image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise DataError(f"an image that claims too many pixels ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for damaged files
        kind = image_format(content)
        raise DataError(f"{kind or 'neither JPEG nor PNG'}: {len(content)} bytes, not decodable ({error})") from error


def encode_jpeg(image: np.ndarray, quality: int = QUALITY) -> bytes:
    """Encode RGB pixels uint8 (height, width, 3) as the bytes of a JPEG file of this quality, 1 to 95."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
