"""Video features on disk: one ``.npy`` file per video, or shards of thousands of videos.

Both stores answer ``store[video_id]`` with the memory-mapped array ``(seconds, dim)``: one
row per second of video.
"""

import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmpt.store.opened import OpenedOnce, file_state
from mmpt.utils import safe_pickle
from mmpt.utils.errors import DataError, UnsafePathError, nearest, shown
from mmpt.utils.files import read_json, resolve_path
from mmpt.utils.name_index import NameIndex
from mmpt.utils.npy import read_npy
from mmpt.utils.safe_paths import is_plain_name, path_below
from mmpt.utils.shardedtensor import ShardedTensor, open_shared

__all__ = [
    "FeatureStore",
    "Features",
    "ShardedFeatureStore",
    "check_feature_width",
    "check_width",
    "read_feature",
    "read_id_list",
    "read_shard_map",
    "shard_map_paths",
    "shard_prefix",
]


class Features(Protocol):
    """What both stores offer."""

    def __getitem__(self, video_id: str) -> np.ndarray: ...

    def __contains__(self, video_id: object) -> bool: ...

    def ids(self) -> list[str]:
        """Return the ids of all videos."""
        ...


def read_id_list(path: str | os.PathLike[str], key: str, what: str = "video") -> list[str]:
    """Read one id per line; blank lines are ignored.

    Args:
        path: text file in UTF-8.
        key: the option or config key that names the file, for errors.
        what: what a line is, for errors.

    Raises:
        DataError: if the file is missing, not text, or holds no id; names file and key.
    """
    try:
        lines = resolve_path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{key}: cannot read {path} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{key}: {path} is not a text file in UTF-8 ({error})") from error
    if ids := list(filter(None, map(str.strip, lines))):
        return ids
    raise DataError(f"{key}: {path} lists no {what}s. Write one {what} per line.")


def read_feature(path: str | os.PathLike[str], video_id: str) -> np.ndarray:
    """Map one video's feature file ``(seconds, dim)``; pickled objects are refused.

    Raises:
        DataError: if the file is missing, damaged, or not a two-dimensional array of numbers.
    """
    try:
        feature = read_npy(path)
    except DataError as error:
        raise DataError(f"features of video {video_id!r}: {error}") from error
    if feature.ndim != 2 or feature.dtype.kind not in "fiu":
        raise DataError(
            f"features of video {video_id!r}: {path} holds {feature.dtype} of shape {feature.shape}, expected"
            " numbers of shape (seconds, dim). Extract the video again or take it off the list."
        )
    return feature


class FeatureStore:
    """A folder of ``<video id>.npy`` files.

    Raises:
        DataError: if the folder does not exist.
    """

    def __init__(self, vfeat_dir: str | os.PathLike[str]) -> None:
        self.vfeat_dir = Path(vfeat_dir)
        if not self.vfeat_dir.is_dir():
            raise DataError(f"{self.vfeat_dir}: no such folder of features (dataset.vfeat_dir)")

    def __getitem__(self, video_id: str) -> np.ndarray:
        """Map the features ``(seconds, dim)`` of a video.

        Raises:
            UnsafePathError: if the id is no plain file name, or its file is a link that leads out of the folder.
            DataError: if there are none, or they cannot be read; names the video.
        """
        if not is_plain_name(video_id):
            raise UnsafePathError(
                f"{shown(video_id)} is not a video id: it must be a plain file name inside {self.vfeat_dir}"
            )
        return read_feature(path_below(self.vfeat_dir, f"{video_id}.npy"), video_id)

    def __contains__(self, video_id: object) -> bool:
        return is_plain_name(video_id) and os.path.isfile(self.vfeat_dir / f"{video_id}.npy")

    def holds(self, video_ids: Sequence[str]) -> np.ndarray:
        """Tell of each id whether there are features of it, bool (ids,)."""
        return np.fromiter(map(self.__contains__, video_ids), bool, len(video_ids))

    def ids(self) -> list[str]:
        """Return the ids of all videos in the folder, sorted."""
        with os.scandir(self.vfeat_dir) as entries:
            return sorted(e.name[:-4] for e in entries if e.name.endswith(".npy") and e.name[:-4] in self)


def shard_prefix(vfeat_dir: str | os.PathLike[str], split: str, shard_id: int) -> Path:
    """Return the ShardedTensor prefix of one feature shard: ``<vfeat_dir>/<split>_<k>``."""
    return Path(vfeat_dir) / f"{split}_{shard_id}"


def shard_map_paths(vfeat_dir: str | os.PathLike[str], split: str) -> tuple[Path, Path]:
    """Return the names of the shard map: ours (JSON), and the published one (pickle)."""
    return Path(vfeat_dir) / f"{split}_meta.json", Path(vfeat_dir) / f"{split}_meta.pkl"


class ShardMap(dict[int, list[str]]):
    """Shard number -> ids of its videos, in the shard's order. It is shared by all who read the file: not to change."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    @functools.cached_property
    def numbers(self) -> np.ndarray:
        """The shards' numbers in the map's order, int64 (shards,)."""
        return np.fromiter(self, np.int64, len(self))

    @functools.cached_property
    def firsts(self) -> np.ndarray:
        """The place of each shard's first video, all counted through, and how many there are; int64 (shards + 1,)."""
        return np.concatenate([[0], np.cumsum([len(ids) for ids in self.values()], dtype=np.int64)])

    @functools.cached_property
    def index(self) -> NameIndex:
        """The place of each video, all counted through."""
        # The published lists may name a video twice; both are the same features.
        return NameIndex(list(itertools.chain.from_iterable(self.values())))

    def locate(self, places: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the shard numbers and the indices within these, int64 both, of places int64 (any shape)."""
        shards = self.firsts.searchsorted(places, side="right") - 1
        return self.numbers[shards], places - self.firsts[shards]


def read_shard_map(vfeat_dir: str | os.PathLike[str], split: str) -> ShardMap:
    """Return which videos are in which shard; read once per process, and again if the file changes.

    Reads ``<split>_meta.json``, or else ``<split>_meta.pkl`` of the published layout (without
    executing pickled code).

    Raises:
        DataError: if neither exists or the content is not such a map; names the file.
    """
    ours, published = shard_map_paths(vfeat_dir, split)
    for path in (ours, published):
        if path.exists():
            return _shard_map(path)
    raise DataError(
        f"{ours}: no such file, nor {published.name}. Make the shards of split {split!r} with"
        " scripts/video_feature_extractor/shard_feature.py, or correct dataset.vfeat_dir."
    )


def _read_shard_map(path: str | os.PathLike[str]) -> ShardMap:
    found = safe_pickle.load(path) if os.fspath(path).endswith(".pkl") else read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds a {type(found).__name__}, expected a map of shard number to video ids")
    shards = {_shard_number(key, path): ids for key, ids in found.items()}
    for shard_id, ids in shards.items():
        if not isinstance(ids, (list, tuple)) or not set(map(type, ids)) <= {str}:
            raise DataError(f"{path}: shard {shard_id} is not a list of video ids")
    return ShardMap({shard_id: list(shards[shard_id]) for shard_id in sorted(shards)})


_shard_map = OpenedOnce(_read_shard_map, file_state)


def _shard_number(key: Any, path: str | os.PathLike[str]) -> int:
    try:
        if 0 <= int(key) < 2**63 and str(int(key)) == str(key):
            return int(key)
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(f"{path}: {shown(key)} is not a shard number")


class ShardedFeatureStore:
    """Shards ``<vfeat_dir>/<split>_<k>`` and their map; each shard is opened once per process.

    A pickled store carries only its folder, split and map, so that spawned workers open
    the shards themselves.
    """

    def __init__(self, vfeat_dir: str | os.PathLike[str], split: str) -> None:
        self.vfeat_dir = Path(vfeat_dir)
        self.split = split
        self.shards = read_shard_map(vfeat_dir, split)
        self._opened: dict[int, ShardedTensor] = {}

    def __getitem__(self, video_id: str) -> np.ndarray:
        """Map the features ``(seconds, dim)`` of a video.

        Raises:
            DataError: if no shard has it, or its bytes were changed; names the video.
        """
        index = self.shards.index
        place = index.get(video_id)
        if place is None:
            raise DataError(
                f"video {video_id!r}: not in the shards of split {self.split!r} in {self.vfeat_dir}."
                f"{nearest(str(video_id), index) if len(index) < 10_000 else ''} Shard its features, or"
                " take it off the list."
            )
        shard, number = self.shards.locate(place)
        return self.read(int(shard), int(number))

    def read(self, shard_id: int, index: int) -> np.ndarray:
        """Map the features ``(seconds, dim)`` of video number ``index`` of a shard.

        Raises:
            DataError: if there is no such shard, or it is damaged or does not fit the map.
            IndexError: if the shard has fewer videos.
        """
        shard = self._opened.get(shard_id)
        if shard is None:
            shard = self._opened[shard_id] = self._open(shard_id)
        return shard[index]

    def __contains__(self, video_id: object) -> bool:
        return video_id in self.shards.index

    def ids(self) -> list[str]:
        """Return the ids of all videos, shard by shard in the shard's order."""
        return list(self.shards.index)

    def _open(self, shard_id: int) -> ShardedTensor:
        if shard_id not in self.shards:
            raise DataError(f"{self.vfeat_dir}: the map of split {self.split!r} has no shard {shard_id}")
        prefix = shard_prefix(self.vfeat_dir, self.split, shard_id)
        ids = self.shards[shard_id]
        shard = open_shared(prefix, expected_ids=ids)
        if len(shard) != len(ids) or (shard.ids is not None and shard.ids != ids):
            raise DataError(
                f"{prefix}: the shard's {len(shard)} videos are not the {len(ids)} videos that the map of split"
                f" {self.split!r} lists for it. Make the shards again."
            )
        if shard.data.ndim != 2 or shard.data.dtype.kind not in "fiu":
            raise DataError(f"{prefix}: holds {shard.data.dtype} {shard.data.shape}, expected features (seconds, dim)")
        return shard

    def __getstate__(self) -> dict[str, Any]:
        return {"vfeat_dir": self.vfeat_dir, "split": self.split, "shards": self.shards, "_opened": {}}


def check_feature_width(feature: np.ndarray, video_id: str, expected_dim: int) -> np.ndarray:
    """Return ``feature`` ``(seconds, dim)`` if it is ``expected_dim`` wide.

    Raises:
        DataError: names the video, the width found and the key to change.
    """
    if feature.shape[-1] != expected_dim:
        raise DataError(
            f"features of video {video_id!r} are {feature.shape[-1]} wide, the model expects {expected_dim}. Set"
            f" model.input_dim: {feature.shape[-1]}, or extract the features with the model's encoder."
        )
    return feature


def check_width(store: Features, expected_dim: int, video_ids: Iterable[str] | None = None) -> None:
    """Check the width of the first video of a store, or of all of ``video_ids``.

    Raises:
        DataError: as :func:`check_feature_width`; also if the store is empty.
    """
    chosen: Iterator[str] = iter(store.ids()[:1] if video_ids is None else video_ids)
    empty = True
    for video_id in chosen:
        check_feature_width(store[video_id], video_id, expected_dim)
        empty = False
    if empty:
        raise DataError("no video to check the feature width of: the feature store or list is empty")
