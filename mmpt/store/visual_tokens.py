"""Visual tokens on disk: for every stored frame of a video a grid of codes, one for each square of 32 x 32 pixels.

A store is a folder of shards ``tokens_<number>``, each a :class:`~mmpt.utils.shardedtensor.ShardedTensor` of uint16
(frames, h, w) per video, under its id. Where two shards hold an id, the later one counts. VIOLET's published
``vq_<data set>.pkl`` are imported (:func:`import_tokens`).
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mmpt
from mmpt.store.opened import OpenedOnce, not_among
from mmpt.utils import safe_pickle
from mmpt.utils.errors import DataError, shown
from mmpt.utils.files import file_sha256
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter

__all__ = [
    "MOST_CODES",
    "VisualTokenStore",
    "import_tokens",
    "new_shard",
    "open_tokens",
    "token_shards",
]

#: Codes are numbers below this.
MOST_CODES = 1 << 16
_VIDEOS_PER_SHARD = 16384
_NAME = re.compile(r"tokens_(\d{5,})_index\.json")


def token_shards(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the prefixes of the complete shards of a folder, in the order in which they were written."""
    found = [(int(name[1]), file) for file in Path(folder).glob("tokens_*") if (name := _NAME.fullmatch(file.name))]
    return [file.with_name(file.name.removesuffix("_index.json")) for _, file in sorted(found)]


def new_shard(folder: str | os.PathLike[str], grid: tuple[int, int], producer: dict[str, Any]) -> ShardedTensorWriter:
    """Open the next shard of a folder; it appears when the ``with`` block of the writer ends.

    Args:
        folder: of the store; made if absent.
        grid: h and w.
        producer: facts about the origin.
    """
    shards = token_shards(folder)
    number = int(shards[-1].name.removeprefix("tokens_")) + 1 if shards else 0
    facts = {"mmpt": mmpt.__version__, **producer}
    return ShardedTensorWriter(Path(folder) / f"tokens_{number:05d}", np.uint16, grid, facts)


class VisualTokenStore:
    """The visual tokens of many videos: ``store[video_id]`` is uint16 (frames, h, w), a view that is not copied.

    A pickled store is its path.

    Raises:
        DataError: if there is no shard, one is damaged, or they differ in their grids; names it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        prefixes = token_shards(path)
        if not prefixes:
            raise DataError(
                f"{self.path}: no visual tokens there (dataset.vq_path). scripts/visual_tokens makes them from a frame "
                "store, or from a published vq_*.pkl"
            )
        self._shards = [ShardedTensor.load(prefix) for prefix in prefixes]
        #: h and w.
        self.grid: tuple[int, int] = self._shards[0].data.shape[1:]
        self._places: dict[str, tuple[int, int]] = {}
        for number, (prefix, shard) in enumerate(zip(prefixes, self._shards, strict=True)):
            if shard.ids is None or shard.data.dtype != np.uint16 or shard.data.ndim != 3:
                raise DataError(f"{prefix}: holds no visual tokens (uint16 frames x h x w under ids)")
            if shard.data.shape[1:] != self.grid:
                raise DataError(
                    f"{prefix}: {shard.data.shape[1:]} tokens a frame, {prefixes[0].name} has {self.grid}: tokens of "
                    "frames of one size belong in one folder"
                )
            self._places.update((video_id, (number, item)) for item, video_id in enumerate(shard.ids))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, video_id: str) -> np.ndarray:
        """Return the tokens of a video's stored frames, uint16 (frames, h, w).

        Raises:
            DataError: if there are none, or their bytes were changed since they were written.
        """
        place = self._places.get(video_id)
        if place is None:
            told = not_among(video_id, self._places, f"visual tokens {self.path}")
            raise DataError(f"{told} Run scripts/visual_tokens/extract_vq.py again, or take it off the list.")
        try:
            return self._shards[place[0]][place[1]]
        except DataError as error:
            raise DataError(f"video {video_id!r}: {error}") from error

    def producers(self) -> list[dict[str, Any]]:
        """Return what made the tokens of each shard."""
        return [dict((shard.index or {}).get("producer") or {}) for shard in self._shards]

    def videos_of(self, key: str, value: Any) -> int:
        """Return how many videos the shards have whose producer says so."""
        made = zip(self._shards, self.producers(), strict=True)
        return sum(len(shard) for shard, producer in made if producer.get(key) == value)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_tokens, (os.fspath(self.path),)


def _state(folder: str) -> list[tuple[Path, int]] | None:
    return [(prefix, os.stat(f"{prefix}_index.json").st_mtime_ns) for prefix in token_shards(folder)] or None


_opened = OpenedOnce(VisualTokenStore, _state)


def open_tokens(path: str | os.PathLike[str]) -> VisualTokenStore:
    """Return the store, opened once per process; one whose shards are others since is opened anew.

    Raises:
        DataError: as :class:`VisualTokenStore`.
    """
    return _opened(path)


def import_tokens(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], videos_per_shard: int = _VIDEOS_PER_SHARD
) -> int:
    """Import a published ``vq_*.pkl``, without executing it, going on where an earlier import of it was killed.

    Args:
        path: a pickled mapping from video ids to codes, an array (frames, h, w) or a list of arrays (h, w).
        folder: of the store, made if absent; its videos stay.
        videos_per_shard: a shard is closed after so many videos.

    Returns:
        The number of videos that were added, 0 if all of them are there.

    Raises:
        DataError: if the file is damaged, asks to run code, holds anything else, or has another grid than the tokens
            in the folder; names file and video. Nothing is written then.
    """
    source = {"tool": "import_vq", "file": Path(path).name, "sha256": file_sha256(path)}
    done, held_grid = _imported(folder, source["sha256"])
    content = safe_pickle.load(path)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: a {type(content).__name__}, expected a mapping from video ids to their visual tokens")
    grids = {_codes(path, video_id, value).shape[1:] for video_id, value in content.items()}
    if len(grids) > 1:
        raise DataError(f"{path}: tokens of different grids ({', '.join(map(str, sorted(grids)))})")
    (grid,) = grids
    if held_grid not in (None, grid):
        raise DataError(
            f"{path}: {grid} tokens a frame, those in {folder} have {held_grid}: tokens of frames of one size belong in"
            " one folder; name another"
        )
    for part in _parts(itertools.islice(content.items(), done, None), videos_per_shard):
        with new_shard(folder, grid, source) as writer:
            for video_id, value in part:
                writer.append(_codes(path, video_id, value), str(video_id))
    return len(content) - done


def _imported(folder: str | os.PathLike[str], sha256: str) -> tuple[int, tuple[int, int] | None]:
    """Return how many videos of a file, in its order, a folder has, and the grid of what it holds; None for nothing."""
    if not token_shards(folder):
        return 0, None
    store = VisualTokenStore(folder)
    return store.videos_of("sha256", sha256), store.grid


def _parts(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(itertools.islice(rest, size)):
        yield part


def _codes(path: str | os.PathLike[str], video_id: Any, value: Any) -> np.ndarray:
    """Return the codes of one video, uint16 (frames, h, w)."""
    try:
        codes = np.stack(value) if isinstance(value, list | tuple) else np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: video {shown(video_id)}: frames of different grids ({error})") from error
    if codes.ndim != 3 or codes.dtype.kind not in "iu" or not codes.size:
        raise DataError(
            f"{path}: video {shown(video_id)}: {codes.dtype} of shape {codes.shape}, expected numbers (frames, h, w)"
        )
    if codes.min() < 0 or codes.max() >= MOST_CODES:
        raise DataError(f"{path}: video {shown(video_id)}: codes from {codes.min()} to {codes.max()}, not 0 to 65535")
    return codes.astype(np.uint16)
