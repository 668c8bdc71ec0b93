"""Tokenise the captions of many videos into shards aligned with the shards of their video features.

For shard k of a split, ``<prefix><split>_<k>.startends`` holds ``(clips, 2)`` float32 seconds and
``<prefix><split>_<k>.caps_ids`` ``(clips, max_tokens)`` int32 word-piece ids padded with -1, one item per
video of ``<split>_meta``, in its order. A video without captions is an empty item, so that item i of a text
shard is always item i of the video shard.
"""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.store.features import read_shard_map
from mmpt.store.token_encoder import (
    MALFORMED,
    MISSING,
    POOL_FROM,
    BlockEncoder,
    Encoded,
    tokenizer_name,
    vocabulary_checksum,
)
from mmpt.store.transcripts import TooManyFailuresError, TranscriptFile
from mmpt.utils.errors import DataError
from mmpt.utils.files import file_sha256, sole_writer, write_json
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter
from mmpt.utils.tokenizers import load_tokenizer

__all__ = ["TokenReport", "TokenShardJob"]

logger = logging.getLogger(__name__)


@dataclass
class TokenReport:
    """What became of the shards, and why videos or clips are missing from them."""

    done: int = 0
    skipped: int = 0
    videos: int = 0
    clips: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """Return the closing lines of a script."""
        failed = self.counts[MISSING] + self.counts[MALFORMED]
        head = f"done {self.done}, skipped {self.skipped} shards; {self.videos} videos with {self.clips} clips written"
        reasons = [f"  {number} {reason}" for reason, number in sorted(self.counts.items()) if number]
        return [f"{head}, failed {failed} videos", *reasons]


@dataclass(frozen=True)
class TokenShardJob:
    """Everything the token shards of one corpus depend on.

    ``vfeat_dir`` holds ``<split>_meta.json`` or ``.pkl``; ``prefix`` is what configs call ``tfeat_dir``.
    """

    captions: str
    bert_name: str
    vfeat_dir: str
    prefix: str
    use_fast: bool = True
    max_tokens: int = 32
    max_missing: float = 0.1

    def run(
        self,
        splits: Sequence[str],
        workers: int = 1,
        force: bool = False,
        progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
    ) -> TokenReport:
        """Write the shards of ``splits`` with ``workers`` processes; unchanged ones are kept unless ``force``.

        A shard is unchanged if its index names the same captions, vocabulary and limit (by checksum), its
        ids are those of the feature shard, and its bytes are intact. ``progress(videos, total)`` wraps the
        iterator over videos. ``<prefix><split>_manifest.json`` records inputs and counts of each split.

        Raises:
            DataError: if a file is wrong, or another run is writing shards of this prefix.
            TooManyFailuresError: if more than the fraction ``max_missing`` of the videos has no captions.
            ConfigError: if there is no such tokenizer.
        """
        prefix = Path(f"{self.prefix}lock")
        with sole_writer(prefix.with_name(f".{prefix.name}")):
            return self._run(splits, workers, force, progress)

    def _run(
        self, splits: Sequence[str], workers: int, force: bool, progress: Callable[[Iterable[Any], int], Iterable[Any]]
    ) -> TokenReport:
        found = {
            split: [(f"{split}_{number}", ids) for number, ids in sorted(read_shard_map(self.vfeat_dir, split).items())]
            for split in splits
        }
        shards = [shard for split in found.values() for shard in split]
        producer = self._producer()
        todo = [(name, ids) for name, ids in shards if force or not self._unchanged(name, _made_of(producer, ids))]
        report = TokenReport(skipped=len(shards) - len(todo))
        if todo:
            captions = TranscriptFile(self.captions)
            everything = [video_id for _, ids in shards for video_id in ids]
            self._check_missing(captions, everything)
            settings = (self.bert_name, self.use_fast, self.max_tokens)
            total = sum(len(ids) for _, ids in todo)
            parts = {split: [shard for shard in todo if shard in of_split] for split, of_split in found.items()}
            with BlockEncoder(settings, workers if total >= POOL_FROM else 1) as encoder:
                # split by split, so that the counts of one are complete before the next begins
                blocks = (
                    block
                    for part in parts.values()
                    for block in encoder.encode(captions, [ids for _, ids in part], report.counts)
                )
                encoded = iter(progress((item for block in blocks for item in block), total))
                for split, part in parts.items():
                    before = report.counts.copy()
                    if part:  # a killed run leaves none, and the next writes it
                        self._manifest(split).unlink(missing_ok=True)
                    for name, ids in part:
                        self._write(name, ids, encoded, producer, report, int(self.max_missing * len(everything)))
                    if part:
                        self._record(split, producer, found[split], len(part), report.counts - before)
        for split, of_split in found.items():
            if not self._manifest(split).exists():
                self._record(split, producer, of_split, 0, Counter())
        return report

    def _producer(self) -> dict[str, Any]:
        tokenizer = load_tokenizer(self.bert_name, self.use_fast)
        return {
            "tool": "mmpt.store.token_shards",
            "captions": Path(self.captions).name,
            "captions_sha256": file_sha256(self.captions),
            "tokenizer": tokenizer_name(self.bert_name),
            "vocabulary_sha256": vocabulary_checksum(tokenizer),
            "max_tokens": self.max_tokens,
        }

    def _paths(self, name: str) -> tuple[str, str]:
        return f"{self.prefix}{name}.startends", f"{self.prefix}{name}.caps_ids"

    def _manifest(self, split: str) -> Path:
        return Path(f"{self.prefix}{split}_manifest.json")

    def _unchanged(self, name: str, producer: dict[str, Any]) -> bool:
        for path in self._paths(name):
            if not os.path.exists(f"{path}_index.json"):
                return False
            try:
                shard = ShardedTensor.load(path)
                shard.verify()
            except (DataError, OSError) as error:
                logger.warning("doing %s again: %s", path, error)
                return False
            if (shard.index or {}).get("producer") != producer:
                logger.warning("doing %s again: it was made from other captions, vocabulary, limit or videos", path)
                return False
        return True

    def _check_missing(self, captions: TranscriptFile, ids: list[str]) -> None:
        missing = [video_id for video_id in ids if video_id not in captions]
        if len(missing) > self.max_missing * len(ids):
            raise TooManyFailuresError(
                f"{self.captions}: no captions for {len(missing)} of {len(ids)} videos of {self.vfeat_dir}, for "
                f"example {', '.join(missing[:3])} (limit: the fraction {self.max_missing}). Is it the same corpus?"
            )

    def _write(
        self,
        name: str,
        ids: list[str],
        encoded: Iterator[Encoded],
        producer: dict[str, Any],
        report: TokenReport,
        allowed: int,
    ) -> None:
        """Write one shard, unless more than ``allowed`` videos of the run so far are malformed."""
        startends_path, caps_path = self._paths(name)
        Path(startends_path).parent.mkdir(parents=True, exist_ok=True)
        producer = _made_of(producer, ids)
        # Published lists may name a video twice, and then it has two items; ids are for finding one.
        item_ids: Sequence[str | None] = ids if len(set(ids)) == len(ids) else [None] * len(ids)
        with ExitStack() as stack:
            startends = stack.enter_context(ShardedTensorWriter(startends_path, np.float32, (2,), producer))
            caps_ids = stack.enter_context(ShardedTensorWriter(caps_path, np.int32, (self.max_tokens,), producer))
            for item_id in item_ids:
                times, tokens = next(encoded)
                startends.append(times, item_id)
                caps_ids.append(tokens, item_id)
                report.clips += len(times)
            if (malformed := report.counts[MALFORMED]) > allowed:
                raise TooManyFailuresError(
                    f"{self.captions}: the captions of {malformed} videos up to shard {name} are malformed"
                    f" (limit: the fraction {self.max_missing} of all)"
                )
        report.done += 1
        report.videos += len(ids)

    def _record(
        self,
        split: str,
        producer: dict[str, Any],
        shards: list[tuple[str, list[str]]],
        written: int,
        counts: Counter[str],
    ) -> None:
        """Write the manifest of one split: what is on disk, and why videos or clips lack in the shards just written."""
        lengths = [ShardedTensor.load(self._paths(name)[0]).lengths() for name, _ in shards]
        write_json(
            self._manifest(split),
            {
                "producer": producer,
                "shards": {name: len(ids) for name, ids in shards},
                "clips": int(sum(length.sum() for length in lengths)),
                "videos_without_clips": int(sum((length == 0).sum() for length in lengths)),
                "last_run": {"shards_written": written, "counts": dict(counts)},
            },
        )


def _made_of(producer: dict[str, Any], ids: list[str]) -> dict[str, Any]:
    """Return the facts on the origin of one shard."""
    return {**producer, "videos_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}
