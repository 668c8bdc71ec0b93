"""Small segment stores and tokenizers, and what the tests of systems that see segments share."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.datasets.mmdataset import MMDataset
from mmpt.store.images import encode_jpeg
from mmpt.store.segment_store import FIELDS
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.utils.registry import build

#: Videos and their numbers of segments; nobody speaks in ``silent``.
VIDEOS = {"long": 21, "four": 4, "three": 3, "silent": 8, "one": 1, "nine": 9}
RESERVE_SPECIAL = ["PAD", "START", "END", "MASK", "MASKAUDIO", "AUDIOSPAN", "LTOVPOOL", "unused0", "UNK", "RESETCTX"]


def published_files() -> Path:
    """Return where the published tokenizers are, if they are anywhere: beside the repository."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "shared" / "goldens").is_dir():
            return folder / "shared" / "goldens"
    return Path("/nowhere")


def write_segments(folder: Path, videos: dict[str, int], words: int = 9, merlot: bool = False) -> Path:
    """Write videos; segment k of the number v has ids that tell v and k, and a frame of the grey 10 * k."""
    with SegmentStoreWriter(folder, FIELDS - ({"spectrograms"} if merlot else set())) as writer:
        for number, (name, count) in enumerate(videos.items()):
            rng = np.random.default_rng(number)
            spoken = [0 if name == "silent" else int(rng.integers(0, words)) for _ in range(count)]
            starts = [np.sort(rng.uniform(0, 4.7, n)) for n in spoken]
            first = 100 if merlot else 20
            tokens = [first + (np.arange(n) + 11 * k + 37 * number) % 200 for k, n in enumerate(spoken)]
            writer.add(
                name,
                SegmentRecord(
                    images=[encode_jpeg(np.full((24, 40, 3), 10 * k, np.uint8), 95) for k in range(count)],
                    times=[[5.0 * k, 5.0 * k + 5] for k in range(count)],
                    mid=[5.0 * k + 2.5 for k in range(count)],
                    speed=[1.0] * count,
                    tokens=tokens,
                    token_times=[np.stack([begin, begin + 0.2], axis=1) for begin in starts],
                    raw_tokens=[ids[:-1] for ids in tokens],
                    spectrograms=[rng.random((188, 64)) for _ in range(count)],
                    meta={"title": f"w {name}", "tags_ids": [30, 31]} if number % 2 else {},
                ),
            )
    return folder


@functools.cache
def byte_vocabulary() -> list[str]:
    """Return the characters that stand for the 256 bytes."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def write_tokenizers(folder: Path) -> None:
    """Write ``merlot`` and ``reserve.json``, of which every byte is a token."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    (folder / "merlot").mkdir(parents=True)
    vocabulary = {token: number for number, token in enumerate(byte_vocabulary())}
    (folder / "merlot" / "encoder.json").write_text(json.dumps(vocabulary))
    (folder / "merlot" / "vocab.bpe").write_text("#version: 0.2\n")
    special = [f"<|{name}|>" for name in RESERVE_SPECIAL]
    names = {token: number for number, token in enumerate([*special, *byte_vocabulary()])}
    tokenizer = Tokenizer(models.BPE(vocab=names, merges=[]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "reserve.json"))


def write_sample(folder: Path) -> Path:
    """Write stores ``merlot_store`` and ``reserve_store``, tokenizers, a list of ids, and some text."""
    write_tokenizers(folder)
    write_segments(folder / "merlot_store", VIDEOS, merlot=True)
    write_segments(folder / "reserve_store", VIDEOS)
    (folder / "ids.txt").write_text("\n".join(VIDEOS))
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog; it's 7 o'clock. " * 60)
    return folder


def merlot_settings(folder: Path, split: str = "train", **more: Any) -> dict[str, Any]:
    """Return a ``dataset`` section of MERLOT: records of 8 chunks in groups of 4."""
    base = {
        **{f"{name}_path": str(folder / "ids.txt") for name in ("train", "val", "test")},
        "segment_path": str(folder / "merlot_store"),
        "tokenizer": str(folder / "merlot"),
        "split": split,
        "num_chunks": 8,
        "chunks_in_group": 4,
        "max_text_len": 8,
        "image_size": [32, 48],
    }
    return {**base, **more}


def reserve_settings(folder: Path, split: str = "train", **more: Any) -> dict[str, Any]:
    """Return a ``dataset`` section of MERLOT Reserve: records of 8 segments in 2 groups."""
    base = {
        **{f"{name}_path": str(folder / "ids.txt") for name in ("train", "val", "test")},
        "segment_path": str(folder / "reserve_store"),
        "tokenizer": str(folder / "reserve.json"),
        "random_text_path": str(folder / "text.txt"),
        "split": split,
        "num_segments": 8,
        "num_segment_groups": 2,
        "image_grid": [2, 4],
        "lang_seq_len": 80,
        "seq_len": 180,
        "text_span_budget": 6,
    }
    return {**base, **more}


def dataset(section: dict[str, Any], family: str) -> MMDataset:
    """Return the pre-training data of ``MERLOT`` or ``Reserve``."""
    parts = (f"{family}MetaProcessor", "SegmentVideoProcessor", "SegmentTextProcessor", f"{family}PretrainingAligner")
    kinds = ("meta_processor", "video_processor", "text_processor", "aligner")
    return MMDataset(*(build(kind, name, section) for kind, name in zip(kinds, parts, strict=True)))
