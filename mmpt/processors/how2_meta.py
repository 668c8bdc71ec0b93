"""The usable videos of a HowTo100M-style corpus (files: :mod:`mmpt.processors.how2`; groups: `how2_groups`)."""

import functools
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmpt.processors.annotations import SkipReport
from mmpt.processors.base import MetaProcessor, SplitOptions, read_id_list
from mmpt.processors.sampling import usable_clips
from mmpt.store.features import FeatureStore, read_shard_map
from mmpt.store.transcripts import TranscriptFile, parse_transcript
from mmpt.utils.collection import uncollected
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.name_index import all_differ
from mmpt.utils.options import read_options
from mmpt.utils.shardedtensor import ShardedTensor, open_shared

__all__ = [
    "How2MetaProcessor",
    "How2Options",
    "ShardedHow2MetaProcessor",
    "check_startends",
    "open_caption_file",
    "shard_split",
    "text_prefix",
]

logger = logging.getLogger(__name__)

_NO_FEATURES = "without features"
_NO_CAPTIONS = "without captions"
_MALFORMED = "with malformed captions"
_NONE_INSIDE = "without a caption that begins inside the video"
_OUTSIDE = "that end before they begin or begin after the features end"


@dataclass
class How2Options(SplitOptions):
    """Where features and captions lie; ``max_missing`` is the share of listed videos that may be unusable."""

    vfeat_dir: str | None = None
    tfeat_dir: str | None = None
    caption_pkl_path: str | None = None
    max_missing: float = 0.1


class How2MetaProcessor(MetaProcessor):
    """Items ``(id, id)`` of the listed videos that have features and, if a caption file is named, usable captions.

    A caption is usable if it begins inside the features and does not end before it begins. ``skipped`` counts the
    listed videos that were left out, by reason, and ``dropped`` the unusable captions of the listed videos.

    Raises:
        DataError: if more than ``max_missing`` of the listed videos are unusable, or none is left.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": How2Options}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.options = read_options(config, How2Options)
        if not self.options.vfeat_dir:
            raise ConfigError("dataset.vfeat_dir: not set; it names the folder of video features")
        with uncollected():
            self._list(read_id_list(self.path, self.path_key))

    def _list(self, listed: Sequence[str]) -> None:
        ids = listed if all_differ(listed) else list(dict.fromkeys(listed))
        if len(ids) < len(listed):
            logger.warning("%s: %d ids are listed more than once", self.path, len(listed) - len(ids))
        used = self.in_split(ids)
        ids = list(ids) if used.all() else list(itertools.compress(ids, used))
        videos = SkipReport(self.path, self.options.max_missing, what="videos")
        captions = SkipReport(self._caption_source or self.path, what="captions")
        self._captions_met = 0
        faults = self._faults(ids, captions)
        for name, reason in faults.items():
            videos.add(reason, name)
        captions.log(self._captions_met)
        videos.close(len(ids))
        self.skipped: Counter[str] = videos.counts
        self.dropped: Counter[str] = captions.counts
        self.video_ids: list[str] = ids
        if faults:
            self._keep(np.fromiter((name not in faults for name in ids), bool, len(ids)))
        self.data = self.video_ids

    def _keep(self, usable: np.ndarray) -> None:
        """Forget the videos of which the mask is false."""
        self.video_ids = list(itertools.compress(self.video_ids, usable))

    @property
    def _caption_source(self) -> str | None:
        return self.options.caption_pkl_path

    def _faults(self, ids: Sequence[str], report: SkipReport) -> dict[str, str]:
        """Return why videos cannot be used; count unusable captions in ``report``."""
        store = FeatureStore(str(resolve_path(self.options.vfeat_dir or "")))
        captions = open_caption_file(self.options.caption_pkl_path) if self.options.caption_pkl_path else None
        faults = {}
        for name in ids:
            seconds = len(store[name]) if name in store else 0
            reason = _NO_FEATURES if not seconds else ""
            if not reason and captions is not None:
                reason = self._caption_fault(name, captions, seconds, report)
            if reason:
                faults[name] = reason
        return faults

    def _caption_fault(self, name: str, captions: TranscriptFile, seconds: int, report: SkipReport) -> str:
        if name not in captions:
            return _NO_CAPTIONS
        dropped: Counter[str] = Counter()
        try:
            transcript = parse_transcript(captions.raw(name), dropped)
        except DataError:
            return _MALFORMED
        # The rest of the counts is about videos, not about clips that are left out.
        dropped = Counter({reason: number for reason, number in dropped.items() if reason.startswith("clips")})
        start, end = (np.asarray(times, dtype=np.float32) for times in (transcript.start, transcript.end))
        usable = int(np.count_nonzero(usable_clips(start, end, np.full(len(start), seconds))))
        self._captions_met += len(transcript) + dropped.total()
        dropped[_OUTSIDE] += len(transcript) - usable
        for reason, number in dropped.items():
            if number:
                report.add(reason, name, number)
        return "" if usable else _NONE_INSIDE if len(transcript) else _NO_CAPTIONS

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        index = range(len(self.video_ids))[index]
        item = self._item(index, index)
        return item, item

    def _item(self, number: int, index: int) -> Any:
        """Return what the processors get of video ``number`` of the list, under ``index``."""
        return self.video_ids[number]


class ShardedHow2MetaProcessor(How2MetaProcessor):
    """Items ``(id, index in the list, shard, index in the shard)``, twice, of the videos usable in the shards.

    With ``tfeat_dir``, a video is usable if one of its captions begins inside its features.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": How2Options}

    @property
    def _caption_source(self) -> str | None:
        return self.options.tfeat_dir

    def _faults(self, ids: Sequence[str], report: SkipReport) -> dict[str, str]:
        split, vfeat_dir = shard_split(self.options), resolve_path(self.options.vfeat_dir or "")
        shards = read_shard_map(str(vfeat_dir), split)
        found = shards.index.find(ids)
        used = np.zeros(shards.firsts[-1], dtype=bool)
        used[found[found >= 0]] = True
        self._shards, self._places = shards, found
        faults = {}
        for (shard, names), here in zip(shards.items(), np.split(used, shards.firsts[1:-1]), strict=False):
            if not here.any():
                continue
            reasons, clips, dropped = self._shard_faults(vfeat_dir / f"{split}_{shard}", f"{split}_{shard}", names)
            self._captions_met += int(clips[here].sum())
            for index in np.flatnonzero(here & ((reasons != "") | (dropped > 0))):
                if reasons[index]:
                    faults[names[index]] = reasons[index]
                if dropped[index]:
                    report.add(_OUTSIDE, names[index], int(dropped[index]))
        return faults | dict.fromkeys(itertools.compress(ids, found < 0), _NO_FEATURES)

    def _keep(self, usable: np.ndarray) -> None:
        super()._keep(usable)
        self._places = self._places[usable]

    def _shard_faults(
        self, video_path: Path, shard_name: str, names: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return why each video of a shard cannot be used, or an empty string; its captions and the unusable ones."""
        seconds = _aligned(video_path, names).lengths()
        reasons = np.where(seconds > 0, "", _NO_FEATURES).astype(object)
        clips = dropped = np.zeros(len(names), dtype=np.int64)
        if self.options.tfeat_dir:
            path = f"{text_prefix(self.options.tfeat_dir)}{shard_name}.startends"
            startends = _aligned(path, names)
            check_startends(path, startends)
            clips, times = startends.lengths(), np.asarray(startends.data)
            usable = usable_clips(times[:, 0], times[:, 1], np.repeat(seconds, clips))
            count = np.diff(np.concatenate(([0], np.cumsum(usable)))[startends.starts])
            reasons[(reasons == "") & (count == 0)] = _NONE_INSIDE
            reasons[(clips == 0) & (seconds > 0)] = _NO_CAPTIONS
            clips = np.where(seconds > 0, clips, 0)
            dropped = np.where(seconds > 0, clips - count, 0)
        return reasons, clips, dropped

    def _item(self, number: int, index: int) -> Any:
        shard, place = self._shards.locate(self._places[number])
        return self.video_ids[number], index, int(shard), int(place)


def shard_split(options: SplitOptions) -> str:
    """Return which shards a split reads: ``train``, or ``val`` for valid and test.

    A valid split held out of the training list lies in the training shards.
    """
    held_out = options.split == "valid" and options.val_holdout > 0 and options.val_path == options.train_path
    return "train" if options.split == "train" or held_out else "val"


@functools.lru_cache(maxsize=2)
def open_caption_file(path: str) -> TranscriptFile:
    """Return a caption file, opened once per process."""
    return TranscriptFile(resolve_path(path))


def text_prefix(tfeat_dir: str) -> str:
    """Return the string prefix with its folder looked up as every other path."""
    folder, slash, name = tfeat_dir.rpartition("/")
    return f"{resolve_path(folder)}/{name}" if slash and folder else tfeat_dir


def check_startends(path: str, startends: ShardedTensor) -> None:
    """Refuse a shard whose rows are not (start, end); names the file."""
    if startends.data.ndim != 2 or startends.data.shape[1] != 2:
        raise DataError(f"{path}: rows have shape {startends.data.shape[1:]}, expected (2,): start and end in seconds")


def _aligned(path: str | Path, names: Sequence[str]) -> ShardedTensor:
    """Open a shard and check that it holds the videos that the shard map names."""
    shard = open_shared(path, expected_ids=names)
    if len(shard) != len(names):
        raise DataError(f"{path}: holds {len(shard)} videos, the shard map names {len(names)}; shard both again")
    if shard.ids is not None and shard.ids != list(names):
        raise DataError(f"{path}: its videos are not those of the shard map, or in another order; shard both again")
    return shard
