"""Reading HowTo100M-style corpora: sharded or single-file features, captions from token shards or a caption file.

Files (``<split>`` is ``train`` or ``val``; the test split reads the ``val`` files):

    train_path, val_path                            one video id per line
    {vfeat_dir}/<split>_meta.json or .pkl           shard number -> ids in shard order
    {vfeat_dir}/<split>_<k>_{data,starts}.npy       (seconds, dim) float16
    {tfeat_dir}<split>_<k>.startends_*.npy          (captions, 2) float32 seconds; tfeat_dir is a string prefix
    {tfeat_dir}<split>_<k>.caps_ids_*.npy           (captions, 32) int32 padded with -1, or ragged, one item per caption
    {vfeat_dir}/<id>.npy, caption_pkl_path          the same without shards
"""

import functools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mmpt.processors.base import TextOptions, TextProcessor, VideoProcessor, video_name
from mmpt.processors.how2_groups import How2VideoRetriMetaProcessor, ShardedHow2VideoRetriMetaProcessor
from mmpt.processors.how2_meta import (
    How2MetaProcessor,
    How2Options,
    ShardedHow2MetaProcessor,
    check_startends,
    open_caption_file,
    shard_split,
    text_prefix,
)
from mmpt.processors.sampling import TextClips
from mmpt.store.features import ShardedFeatureStore
from mmpt.store.token_encoder import vocabulary_checksum
from mmpt.store.transcripts import parse_transcript
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.options import read_options
from mmpt.utils.shardedtensor import ShardedTensor, open_shared
from mmpt.utils.tokenizers import load_tokenizer

__all__ = [
    "CaptionOptions",
    "How2MetaProcessor",
    "How2VideoRetriMetaProcessor",
    "PKLJSONStrTextProcessor",
    "ShardedHow2MetaProcessor",
    "ShardedHow2VideoRetriMetaProcessor",
    "ShardedTextProcessor",
    "ShardedVideoProcessor",
    "VideoRetriTextProcessor",
    "VideoRetriVideoProcessor",
]

logger = logging.getLogger(__name__)


@dataclass
class CaptionOptions(How2Options, TextOptions):
    """Where captions lie and which tokenizer reads them; ``caption_pkl_path`` is HowTo100M's JSON or its pickle."""


class ShardedVideoProcessor:
    """Read features ``(seconds, dim)`` from shards: a view of the memory-mapped file, opened once per process."""

    config_options: ClassVar[dict[str, type]] = {"dataset": How2Options}

    def __init__(self, config: Any) -> None:
        options = read_options(config, How2Options)
        if not options.vfeat_dir:
            raise ConfigError("dataset.vfeat_dir: not set; it names the folder of video features")
        self.store = ShardedFeatureStore(str(resolve_path(options.vfeat_dir)), shard_split(options))

    def __call__(self, video_id: tuple[str, int, int, int]) -> np.ndarray:
        """Return the features of ``(id, .., shard, index in the shard)``."""
        return self.store.read(video_id[-2], video_id[-1])


class ShardedTextProcessor:
    """Read captions from token shards.

    Shards whose index records the vocabulary they were made with must be of that of ``bert_name``; shards of the
    published layout, which have no index, are taken as they are.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": CaptionOptions}

    def __init__(self, config: Any) -> None:
        options = read_options(config, CaptionOptions)
        if not options.tfeat_dir:
            raise ConfigError("dataset.tfeat_dir: not set; it is the prefix of the token shards")
        self.prefix, self.split = text_prefix(options.tfeat_dir), shard_split(options)
        self.bert_name, self.use_fast = options.bert_name, options.use_fast
        self._opened: dict[int, tuple[ShardedTensor, ShardedTensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def __call__(self, text_id: tuple[str, int, int, int], rng: np.random.Generator | None = None) -> TextClips:
        """Return the captions of ``(id, .., shard, index in the shard)``.

        Raises:
            DataError: if the shard is damaged, does not fit its times, or was made with another tokenizer.
        """
        shard, index = text_id[-2:]
        pair = self._opened.get(shard)
        if pair is None:
            pair = self._opened[shard] = self._open(shard)
        startends, caps = pair
        times = startends[index]
        if caps.data.ndim == 2:
            return TextClips.from_padded(times, caps[index])
        first, last = startends.starts[index], startends.starts[index + 1]
        offsets = caps.starts[first : last + 1]
        return TextClips(times[:, 0], times[:, 1], caps.data[offsets[0] : offsets[-1]], offsets - offsets[0])

    def _open(self, shard: int) -> tuple[ShardedTensor, ShardedTensor]:
        path = f"{self.prefix}{self.split}_{shard}"
        startends, caps = open_shared(f"{path}.startends"), open_shared(f"{path}.caps_ids")
        check_startends(f"{path}.startends", startends)
        padded = caps.data.ndim == 2 and np.array_equal(startends.starts, caps.starts)
        ragged = caps.data.ndim == 1 and len(caps) == len(startends.data)
        if not (padded or ragged):
            raise DataError(f"{path}.caps_ids: does not hold one caption per row of {path}.startends; shard both again")
        self._check_vocabulary(f"{path}.caps_ids", caps)
        return startends, caps

    def _check_vocabulary(self, path: str, caps: ShardedTensor) -> None:
        producer = (caps.index or {}).get("producer") or {}
        made_with = producer.get("vocabulary_sha256")
        if made_with and made_with != _vocabulary(load_tokenizer(self.bert_name, self.use_fast)):
            raise DataError(
                f"{path}: was made with tokenizer {producer.get('tokenizer')!r}, whose vocabulary is not that of "
                f"dataset.bert_name {self.bert_name!r}: name the tokenizer of the shards there, or make the shards "
                "again with scripts/text_token_extractor/pretokenization.py"
            )


class PKLJSONStrTextProcessor(TextProcessor):
    """Read captions from one file, tokenised at first use and then kept.

    A caption is cut to its first ``max_clip_text_len`` word pieces (the published implementation cuts characters).
    Captions without text or that end before they begin are dropped and counted by reason in ``dropped``.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": CaptionOptions}

    def __init__(self, config: Any, max_clip_text_len: int = 96) -> None:
        super().__init__(config)
        self.caption_path = read_options(config, CaptionOptions).caption_pkl_path
        if not self.caption_path:
            raise ConfigError("dataset.caption_pkl_path: not set; it names the caption file")
        self.max_clip_text_len = max_clip_text_len
        self.dropped: Counter[str] = Counter()
        self._cache: dict[str, TextClips] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def __call__(self, text_id: Any, rng: np.random.Generator | None = None) -> TextClips:
        """Return the captions of a video.

        Raises:
            DataError: if the file has no such video or its entry is malformed; names file and video.
        """
        name = video_name(text_id)
        if name not in self._cache:
            self._cache[name] = self._tokenize(name)
        return self._cache[name]

    def _tokenize(self, name: str) -> TextClips:
        captions = open_caption_file(self.caption_path or "")
        dropped = Counter[str]()
        try:
            transcript = parse_transcript(captions.raw(name), dropped)
        except DataError as error:
            raise DataError(f"{self.caption_path}: video {name!r}: {error}") from error
        if dropped and not self.dropped:
            logger.warning("%s: leaving out captions, first of video %s: %s", self.caption_path, name, dict(dropped))
        self.dropped += dropped
        ids = super().__call__(transcript.text) if transcript.text else []
        cap = [clip[: self.max_clip_text_len] for clip in ids]
        return TextClips.of({"start": transcript.start, "end": transcript.end, "cap": cap})


class VideoRetriVideoProcessor:
    """Read the features of a group of videos, as a list."""

    config_options: ClassVar[dict[str, type]] = {"dataset": How2Options}

    def __init__(self, config: Any, sharded: bool = True) -> None:
        self.each: Any = ShardedVideoProcessor(config) if sharded else VideoProcessor(config)

    def __call__(self, video_id: Sequence[Any]) -> list[np.ndarray]:
        """Return one ``(seconds, dim)`` array per video."""
        return [self.each(one) for one in video_id]


class VideoRetriTextProcessor:
    """Read the captions of a group of videos, as a list."""

    config_options: ClassVar[dict[str, type]] = {"dataset": CaptionOptions}

    def __init__(self, config: Any, sharded: bool = True) -> None:
        self.each: Any = ShardedTextProcessor(config) if sharded else PKLJSONStrTextProcessor(config)

    def __call__(self, text_id: Sequence[Any], rng: np.random.Generator | None = None) -> list[TextClips]:
        """Return the captions of each video."""
        return [self.each(one, rng=rng) for one in text_id]


@functools.lru_cache(maxsize=8)
def _vocabulary(tokenizer: Any) -> str:
    """Return the checksum of a tokenizer's vocabulary, computed once per process."""
    return vocabulary_checksum(tokenizer)
