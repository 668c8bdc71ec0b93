"""Tiny TFRecords in the published layouts of MERLOT and MERLOT Reserve, for tests of their importers."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.store.images import encode_jpeg
from mmpt.store.tfrecords import encode_example, write_records

__all__ = ["RECORDS", "grey_jpeg", "picture", "write_layout"]

_START = 1  # Reserve's id


def picture(rng: np.random.Generator, height: int = 36, width: int = 64) -> bytes:
    """Return the JPEG of a random picture."""
    return encode_jpeg(np.kron(rng.integers(0, 256, (height // 4, width // 4, 3)), np.ones((4, 4, 1))).astype(np.uint8))


def grey_jpeg(pixels: np.ndarray) -> bytes:
    """Return the JPEG of grey values uint8 (rows, columns), as spectrograms are stored."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _ids(rng: np.random.Generator, most: int = 6) -> list[int]:
    return rng.integers(100, 260, int(rng.integers(1, most + 1))).tolist()


def _merlot(rng: np.random.Generator, number: int) -> dict[str, Any]:
    """Sixteen chunks of two videos, the first of which ends behind the tenth."""
    features: dict[str, Any] = {}
    for chunk in range(16):
        second = chunk >= 10
        features |= {
            f"c{chunk:02d}/{key}": value
            for key, value in {
                "image/encoded": picture(rng),
                "image/format": "jpeg",
                "image/height": 36,
                "image/width": 64,
                "youtube_id": f"video{number}{'b' if second else 'a'}",
                "tokenized_cleaned_asr": _ids(rng),
                "tokenized_raw_asr": _ids(rng),
                "is_eoc": int(chunk in (9, 15)),
                "mean_time": 4.0 * (chunk - 10 * second),
                "chunk_num": chunk - 10 * second,
            }.items()
        }
    return features


def _reserve(rng: np.random.Generator, number: int) -> dict[str, Any]:
    """Sixteen segments of two videos in groups of eight; the second is silent in its first segment."""
    features: dict[str, Any] = {}
    for segment in range(16):
        group, first = divmod(segment, 8)
        words = [] if group and not first else _ids(rng)
        starts = np.sort(rng.random(len(words)) * 4).astype(np.float32)
        held = {
            "image/encoded": picture(rng),
            "image/format": "jpeg",
            "spectrogram/encoded": grey_jpeg(rng.integers(0, 256, (64, 188), dtype=np.uint8)),
            "spectrogram/magic_number": 40.0,
            "youtube_id": f"video{number}{'ab'[group]}",
            "video_src_idx": group,
            "title": [200, 201] if not first else [],
            "tags": [202] if not first else [],
            "description": [203, 204] if not first else [],
            "meta": '{"duration": 40}' if not first else b"",
            "playback_speed": 1 + group,
            "start_time": 5.0 * first,
            "end_time": 5.0 * first + 5,
            "tok_ids": words,
            "tok_start_times": starts,
            "tok_end_times": starts + np.float32(0.2),
        }
        features |= {f"c{segment:02d}/{key}": value for key, value in held.items()}
    return features


def _vist(rng: np.random.Generator, number: int) -> dict[str, Any]:
    features: dict[str, Any] = {"story_id": f"story{number}", "permutation_identity_encode": 901234}
    for place in range(5):
        features |= {f"sentence/sentence_{place}": _ids(rng), f"image/image_{place}_encoded": picture(rng)}
        features |= {f"image/image_{place}_is_valid": 1, f"image/image_{place}_format": "jpeg"}
    return features


def _merlot_vcr(rng: np.random.Generator, number: int) -> dict[str, Any]:
    features: dict[str, Any] = {"img_id": f"val-{number}", "annot_id": f"val-{number}"}
    for kind in ("answer", "rationale"):
        features |= {f"{kind}/{drawing}/image/encoded": picture(rng) for drawing in ("segm", "bbox")}
        features |= {f"{kind}/ctx": _ids(rng), f"label/{kind}_label": int(rng.integers(4))}
        features |= {f"{kind}/choice_{choice}": _ids(rng) for choice in range(4)}
    return features


def _reserve_vcr(rng: np.random.Generator, number: int) -> dict[str, Any]:
    features: dict[str, Any] = {"id": f"val-{number}", "image": picture(rng), "image_fliplr": picture(rng)}
    for kind in ("qa", "qar"):
        features |= {f"{kind}_query": _ids(rng), f"{kind}_label": int(rng.integers(4))}
        features |= {f"{kind}_choice_{choice}": _ids(rng) for choice in range(4)}
    return features


def _tvqa(rng: np.random.Generator, number: int) -> dict[str, Any]:
    frames = 7 - number % 3
    features: dict[str, Any] = {"id": f"{number:06d}~clip{number}", "magic_number": 30.0, "num_frames": frames}
    features |= {"qa_query": [*_ids(rng), _START, *_ids(rng)], "qa_label": int(rng.integers(5))}
    features |= {f"qa_choice_{choice}": _ids(rng) for choice in range(5)}
    for window in range(7):
        spectrogram = rng.integers(0, 256, (180, 65), dtype=np.uint8)
        features |= {f"c{window:02d}/image_encoded": picture(rng), f"c{window:02d}/sub": _ids(rng)}
        features |= {f"c{window:02d}/spec_encoded": grey_jpeg(spectrogram)}
    return features


#: What draws the features of a record of each layout.
RECORDS: dict[str, Callable[[np.random.Generator, int], dict[str, Any]]] = {
    "merlot": _merlot,
    "reserve": _reserve,
    "vist": _vist,
    "merlot_vcr": _merlot_vcr,
    "reserve_vcr": _reserve_vcr,
    "tvqa": _tvqa,
}


def write_layout(
    path: Path, layout: str, records: int = 4, seed: int = 0, changes: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Write records of a layout; ``changes`` replace features of the first ones (None: leave the feature out)."""
    rng = np.random.default_rng(seed)
    written = [RECORDS[layout](rng, number) for number in range(records)]
    for features, change in zip(written, changes, strict=False):
        features |= change
        for name in [name for name, value in features.items() if value is None]:
            del features[name]
    write_records(path, [encode_example(features) for features in written])
    return written
