"""Tokenise the transcripts of many videos, in this process or in several."""

import hashlib
import json
import multiprocessing
import os
import re
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import numpy as np

from mmpt.store.transcripts import Transcript, TranscriptFile, parse_transcript
from mmpt.utils.errors import DataError
from mmpt.utils.tokenizers import load_tokenizer

__all__ = [
    "BLOCK_VIDEOS",
    "MALFORMED",
    "MISSING",
    "POOL_FROM",
    "BlockEncoder",
    "Encoded",
    "encode_transcript",
    "tokenizer_name",
    "vocabulary_checksum",
]

Encoded = tuple[np.ndarray, np.ndarray]

BLOCK_VIDEOS = 64
"""Videos per unit of work."""

POOL_FROM = 1000
"""Fewer videos than this are done before other processes have started."""

MISSING = "videos missing from the captions (stored as empty items)"
MALFORMED = "videos whose captions are malformed (stored as empty items)"
_EMPTY = "videos without a usable clip (stored as empty items)"
_CUT = "clips cut to the token limit"
_TOKENLESS = "clips without a token (dropped)"


def tokenizer_name(bert_name: str) -> str:
    """Return the part of a hub id or folder that goes into file names: its last component, made safe."""
    last = re.split(r"[/\\]", bert_name.rstrip("/\\"))[-1]
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", last).strip(".")
    return name or "tokenizer"


def vocabulary_checksum(tokenizer: Any) -> str:
    """Return the SHA-256 of what a tokenizer's ids depend on: its vocabulary and how it cleans text."""
    options = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    content = [sorted(tokenizer.get_vocab().items()), [tokenizer.init_kwargs.get(name) for name in options]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def encode_transcript(
    transcript: Transcript, tokenizer: Any, max_tokens: int, counts: Counter[str] | None = None
) -> Encoded:
    """Tokenise the clips of one video.

    Returns:
        Times ``(clips, 2)`` float32 in seconds and ids ``(clips, max_tokens)`` int32, padded with -1.
    """
    counts = Counter() if counts is None else counts
    texts = transcript.text
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    kept = [clip for clip, tokens in enumerate(ids) if len(tokens)]
    counts[_TOKENLESS] += len(ids) - len(kept)
    startends = np.zeros((len(kept), 2), dtype=np.float32)
    caps_ids = np.full((len(kept), max_tokens), -1, dtype=np.int32)
    for row, clip in enumerate(kept):
        startends[row] = transcript.start[clip], transcript.end[clip]
        tokens = ids[clip][:max_tokens]
        caps_ids[row, : len(tokens)] = tokens
        counts[_CUT] += len(ids[clip]) > max_tokens
    return startends, caps_ids


_worker: tuple[Any, int] | None = None


def _start_worker(bert_name: str, use_fast: bool, max_tokens: int) -> None:
    global _worker
    _worker = load_tokenizer(bert_name, use_fast), max_tokens


def _start_pool_worker(bert_name: str, use_fast: bool, max_tokens: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _start_worker(bert_name, use_fast, max_tokens)


def _encode_block(entries: list[str | None]) -> tuple[list[Encoded], Counter[str]]:
    """Tokenise raw entries of a caption file (None: the video is missing)."""
    assert _worker is not None
    tokenizer, max_tokens = _worker
    counts: Counter[str] = Counter()
    encoded = []
    for entry in entries:
        transcript = Transcript([], [], [])
        if entry is None:
            counts[MISSING] += 1
        else:
            try:
                transcript = parse_transcript(entry, counts)
            except DataError:
                counts[MALFORMED] += 1
            else:
                counts[_EMPTY] += not len(transcript)
        encoded.append(encode_transcript(transcript, tokenizer, max_tokens, counts))
    return encoded, counts


class BlockEncoder:
    """Tokenise blocks of videos in order, in this process or in a pool, never far ahead of the writer."""

    def __init__(self, settings: tuple[str, bool, int], workers: int) -> None:
        self._settings, self._workers = settings, workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "BlockEncoder":
        if self._workers > 1:
            # Spawned: the Rust tokenizers of a parent that has used threads do not survive a fork.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, _start_pool_worker, self._settings)
        else:
            _start_worker(*self._settings)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def encode(
        self, captions: TranscriptFile, shards: list[list[str]], counts: Counter[str]
    ) -> Iterator[list[Encoded]]:
        """Yield the encoded videos of all shards, block by block; adds to ``counts`` what happened to a block."""
        # No block spans two shards: when a shard is complete, the counts are those of whole shards.
        blocks = (
            shard[first : first + BLOCK_VIDEOS] for shard in shards for first in range(0, len(shard), BLOCK_VIDEOS)
        )
        waiting: deque[Future[tuple[list[Encoded], Counter[str]]]] = deque()
        for ids in blocks:
            entries = [captions.raw(name) if name in captions else None for name in ids]
            if self._pool is None:
                encoded, counted = _encode_block(entries)
                counts.update(counted)
                yield encoded
                continue
            waiting.append(self._pool.submit(_encode_block, entries))
            if len(waiting) >= 4 * self._workers:
                encoded, counted = waiting.popleft().result()
                counts.update(counted)
                yield encoded
        while waiting:
            encoded, counted = waiting.popleft().result()
            counts.update(counted)
            yield encoded
