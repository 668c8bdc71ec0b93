"""Measure how fast items of MERLOT's and MERLOT Reserve's pre-training are made from a segment store.

    python scripts/benchmarks/bench_segment_items.py
    python scripts/benchmarks/bench_segment_items.py --width 512 --height 384 --json items.json

Makes its own store of noisy pictures, sound and words, and a tokenizer of bytes. Everything runs in one process and is
measured in seconds of its processor, after one item that is not counted: what an item takes as a whole, and what its
parts would take alone. There is no published figure to compare with: the published loaders are TensorFlow's.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from mmpt.datasets.mmdataset import MMDataset
from mmpt.store.images import decode_image, encode_jpeg
from mmpt.store.segment_store import FIELDS, open_segments
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.utils.extras import require
from mmpt.utils.files import write_json
from mmpt.utils.registry import build
from mmpt.utils.special_ids import RESERVE

__all__ = ["main", "make_data", "measure"]

SEGMENTS = 16
FAMILIES = ("MERLOT", "Reserve")
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


def rate(work: Callable[[int], Any], items: int, seconds: float) -> float:
    """Return how many times a second of processor ``work`` is done; goes round ``work(0)`` to ``work(items - 1)``."""
    work(0)
    done, begin = 0, time.process_time()
    while (passed := time.process_time() - begin) < seconds:
        work(done % items)
        done += 1
    return done / passed


def measure(folder: Path, family: str, seconds: float) -> dict[str, float]:
    """Return items/s: of whole items, and of parts of them alone."""
    data, store = open_data(folder, family), open_segments(str(folder / "store"))
    pixels = [[decode_image(store[name].image(k)) for k in range(SEGMENTS)] for name in store.ids[:4]]
    stored = [data.video_processor(data.meta_processor[index][0]) for index in range(len(data))]
    blank = np.zeros((3, *data.aligner.transform.size), np.uint8)
    data.aligner(data.meta_processor[0][0], stored[0], stored[0])  # what is made once is not counted

    def transform(index: int) -> None:
        rng = np.random.default_rng(index)
        for image in pixels[index % len(pixels)]:
            data.aligner.transform(image, rng)

    def decode(index: int) -> None:
        for k in range(SEGMENTS):
            stored[index].image(k)

    def rest(index: int) -> None:
        stored[index].frames = lambda transform, rng: np.broadcast_to(blank, (SEGMENTS, *blank.shape)).copy()
        data.aligner(data.meta_processor[index][0], stored[index], stored[index], np.random.default_rng(index))

    return {
        "items": rate(data.__getitem__, len(data), seconds),
        "JPEG decoding alone": rate(decode, len(data), seconds),
        "transform alone": rate(transform, len(data), seconds),
        "words, sound and the rest alone": rate(rest, len(data), seconds),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=16, help="number of videos (16)")
    parser.add_argument("--width", type=int, default=512, help="pixels of a stored frame (512)")
    parser.add_argument("--height", type=int, default=288, help="pixels of a stored frame (288)")
    parser.add_argument("--seconds", type=float, default=2.0, help="least time per measurement (2)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        make_data(Path(place), args.videos, args.width, args.height)
        rates = {family: measure(Path(place), family, args.seconds) for family in FAMILIES}
        size = np.mean([len(open_segments(f"{place}/store")["v0"].image(k)) for k in range(SEGMENTS)])
    print(f"{f'items/s, {SEGMENTS} segments each, {args.width} x {args.height}':<42} {'MERLOT':>8} {'Reserve':>8}")
    for name in rates["MERLOT"]:
        print(f"{name:<42} " + " ".join(f"{rates[family][name]:>8.1f}" for family in FAMILIES))
    for family in FAMILIES:
        share = rates[family]["items"] / rates[family]["JPEG decoding alone"]
        print(f"{family}: JPEG decoding ({size / 1024:.0f} KB each) takes {share:.0%} of an item")
    if args.json:
        write_json(args.json, rates)
    return 0


if __name__ == "__main__":
    sys.exit(main())
