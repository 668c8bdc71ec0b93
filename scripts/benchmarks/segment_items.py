"""A segment store that is made up, and the data of MERLOT's and MERLOT Reserve's pre-training on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.datasets.mmdataset import MMDataset
from mmpt.store.images import encode_jpeg
from mmpt.store.segment_store import FIELDS
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.utils.extras import require
from mmpt.utils.registry import build
from mmpt.utils.special_ids import RESERVE

__all__ = ["make_data", "open_data"]

SEGMENTS = 16
_KINDS = ("meta_processor", "video_processor", "text_processor", "aligner")
_FIRST_WORD = 120


def make_data(folder: Path, videos: int, width: int, height: int) -> None:
    """Write a store of videos of one record each, the list of their ids, text, and tokenizers of bytes."""
    rng = np.random.default_rng(0)
    with SegmentStoreWriter(folder / "store", FIELDS) as writer:
        for number in range(videos):
            writer.add(f"v{number}", _record(rng, width, height))
    (folder / "ids.txt").write_text("\n".join(f"v{number}" for number in range(videos)))
    (folder / "text.txt").write_text("it is not known what this text is about " * 4000)
    tokenizers = require("tokenizers", "text")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    (folder / "merlot").mkdir()
    (folder / "merlot" / "encoder.json").write_text(json.dumps({token: k for k, token in enumerate(alphabet)}))
    (folder / "merlot" / "vocab.bpe").write_text("#version: 0.2\n")
    numbers = {number: f"<|{name}|>" for name, number in RESERVE.items()}
    special = [numbers.get(number, f"<|unused{number}|>") for number in range(max(numbers) + 1)]
    model = tokenizers.models.BPE(vocab={token: k for k, token in enumerate([*special, *alphabet])}, merges=[])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "reserve.json"))


def _record(rng: np.random.Generator, width: int, height: int) -> SegmentRecord:
    """Return 16 segments of about 18 tokens: pictures as smooth as photographs, so that JPEGs are of their size."""
    coarse = rng.integers(0, 256, (SEGMENTS, height // 8 + 1, width // 8 + 1, 3))
    images = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)[:, :height, :width]
    images = np.clip(0.6 * images + rng.normal(50, 6, images.shape), 0, 255).astype(np.uint8)
    starts = [np.sort(rng.uniform(0, 4.7, rng.integers(10, 27))) for _ in range(SEGMENTS)]
    tokens = [rng.integers(_FIRST_WORD, 260, len(one)) for one in starts]
    return SegmentRecord(
        images=[encode_jpeg(image) for image in images],
        times=5.0 * np.stack([np.arange(SEGMENTS), np.arange(1, SEGMENTS + 1)], axis=1),
        mid=5.0 * np.arange(SEGMENTS) + 2.5,
        speed=np.ones(SEGMENTS),
        tokens=tokens,
        token_times=[np.stack([one, one + 0.2], axis=1) for one in starts],
        raw_tokens=tokens,
        spectrograms=[rng.random((188, 64)) for _ in range(SEGMENTS)],
    )


def open_data(folder: Path, family: str) -> MMDataset:
    """Return the training data of a family, at the published sizes."""
    tokenizer = folder / ("merlot" if family == "MERLOT" else "reserve.json")
    section: dict[str, Any] = {
        "split": "train",
        "train_path": str(folder / "ids.txt"),
        "segment_path": str(folder / "store"),
        "tokenizer": str(tokenizer),
    }
    if family == "Reserve":
        section["random_text_path"] = str(folder / "text.txt")
    names = (f"{family}MetaProcessor", "SegmentVideoProcessor", "SegmentTextProcessor", f"{family}PretrainingAligner")
    return MMDataset(*(build(kind, name, section) for kind, name in zip(_KINDS, names, strict=True)))
