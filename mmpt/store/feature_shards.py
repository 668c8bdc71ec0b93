"""Gather per-video features into shards, resumably, one video in memory at a time.

The command is ``scripts/video_feature_extractor/shard_feature.py``. A shard remembers in its
index which feature files it was made of, so that a second run keeps what is still right.
"""

import glob
import logging
import os
import pickle
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import mmpt
from mmpt.store.extraction_manifest import read_provenance
from mmpt.store.features import FeatureStore, shard_map_paths, shard_prefix
from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open, write_json
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter
from mmpt.utils.shardedtensor_files import read_index, shard_paths

__all__ = ["Outcome", "shard_split", "write_manifest", "write_shard_map"]

TOOL = "shard_feature"

logger = logging.getLogger(__name__)

_ORIGIN = ("decoder", "encoder", "fps")
_COMPARED = ("tool", "dtype", "source", *_ORIGIN, "provenance")


@dataclass
class Outcome:
    """What became of the videos of one split."""

    shards: dict[int, list[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    repeated: int = 0
    written: int = 0
    dim: int | None = None

    def done(self) -> int:
        """Return the number of videos in shards."""
        return sum(map(len, self.shards.values()))

    def lost_fraction(self) -> float:
        """Return the share of the listed videos that is in no shard."""
        lost = len(self.skipped) + len(self.failed)
        return lost / max(1, lost + self.done())


def shard_split(
    store: FeatureStore,
    sdir: str | os.PathLike[str],
    split: str,
    video_ids: list[str],
    shard_size: int = 4096,
    dtype: str = "float16",
    dim: int | None = None,
    progress: bool = True,
    force: bool = False,
) -> Outcome:
    """Write the shards of one split, in the order of the list; complete ones are kept unless ``force``.

    A shard's index says what made the features (decoder and its version, encoder, frames per second and all other
    settings), if ``manifest.json`` in their folder does; a shard of features made otherwise is written again.

    The map of an earlier run is removed before the first shard changes; the caller writes the
    new one. One video is in memory at a time.

    Args:
        dim: width that every feature must have; None takes that of the first readable one.
    """
    outcome = Outcome(dim=dim)
    origin = _origin(store)
    present = _present(store, video_ids, outcome)
    chunks = [present[begin : begin + shard_size] for begin in range(0, len(present), shard_size)]
    with tqdm(total=len(present), desc=split, unit="video", disable=not progress) as bar:
        for shard_id, chunk in enumerate(chunks):
            prefix = shard_prefix(sdir, split, shard_id)
            plan = {
                "tool": TOOL,
                "mmpt": mmpt.__version__,
                "dtype": dtype,
                "source": _fingerprint(store, chunk),
                **origin,
            }
            if not force and _keep(prefix, plan, shard_id, outcome):
                bar.update(len(chunk))
                continue
            for outdated in shard_map_paths(sdir, split):
                outdated.unlink(missing_ok=True)
            if ids := _write_shard(store, prefix, plan, chunk, outcome, bar):
                outcome.shards[shard_id] = ids
                outcome.written += 1
    return outcome


def _origin(store: FeatureStore) -> dict[str, Any]:
    """Return what made the features, as far as their folder says."""
    provenance = read_provenance(store.vfeat_dir)
    if provenance is None:
        logger.warning(
            "%s: no manifest.json says which encoder made these features, so the shards cannot either", store.vfeat_dir
        )
        return {}
    return {**{key: provenance.get(key) for key in _ORIGIN}, "provenance": provenance}


def _present(store: FeatureStore, video_ids: list[str], outcome: Outcome) -> list[str]:
    """Return the listed videos that have features, each once; count the others."""
    unique = list(dict.fromkeys(video_ids))
    outcome.repeated = len(video_ids) - len(unique)
    present = []
    for video_id in unique:
        if video_id in store:
            present.append(video_id)
        else:
            outcome.skipped[video_id] = f"no features in {store.vfeat_dir}"
    return present


def _fingerprint(store: FeatureStore, video_ids: list[str]) -> int:
    """Return a checksum of which feature files go into a shard, and of which state of them."""
    crc = 0
    for video_id in video_ids:
        try:
            status = os.stat(store.vfeat_dir / f"{video_id}.npy")
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:  # removed since it was listed: reading it will say so
            state = "gone"
        crc = zlib.crc32(f"{video_id} {state}\n".encode("utf-8", "surrogateescape"), crc)
    return crc


def _keep(prefix: Path, plan: dict[str, Any], shard_id: int, outcome: Outcome) -> bool:
    """Take over a complete shard of an earlier run, if it was made from the same files."""
    try:
        shard = ShardedTensor.load(prefix)
        shard.verify()
    except DataError:
        return False
    producer = shard.index["producer"] if shard.index is not None else {}
    width = shard.data.shape[-1]
    if any(producer.get(key) != plan.get(key) for key in _COMPARED) or outcome.dim not in (None, width):
        return False
    outcome.dim = width
    outcome.shards[shard_id] = shard.ids or []
    outcome.failed.update(producer["failed"])
    return True


def _write_shard(
    store: FeatureStore, prefix: Path, plan: dict[str, Any], chunk: list[str], outcome: Outcome, bar: "tqdm[Any]"
) -> list[str]:
    """Write one shard of the readable videos of ``chunk``; return their ids."""
    failed: dict[str, str] = {}
    ids: list[str] = []
    with ExitStack() as stack:
        writer: ShardedTensorWriter | None = None
        for video_id in chunk:
            bar.update()
            try:
                rows = _read_rows(store, video_id, plan["dtype"], outcome.dim)
            except DataError as error:
                failed[video_id] = str(error)
                continue
            if writer is None:
                outcome.dim = rows.shape[1]
                writer = stack.enter_context(ShardedTensorWriter(prefix, rows.dtype, (outcome.dim,), plan))
            writer.append(rows, video_id)
            ids.append(video_id)
        outcome.failed.update(failed)
        if writer is not None:
            writer.producer["failed"] = failed
    return ids


def _read_rows(store: FeatureStore, video_id: str, dtype: str, dim: int | None) -> np.ndarray:
    """Read the features ``(seconds, dim)`` of a video; refuse what a training run would stumble over."""
    feature = store[video_id]
    if not feature.size:
        raise DataError(f"features of video {video_id!r} are empty: {feature.shape}")
    if dim is not None and feature.shape[1] != dim:
        raise DataError(f"features of video {video_id!r} are {feature.shape[1]} wide, expected {dim} like the others")
    with np.errstate(over="ignore", invalid="ignore"):
        rows = feature.astype(dtype)
    if not np.isfinite(rows).all():
        raise DataError(f"features of video {video_id!r} hold NaN or infinite values as {dtype}")
    return rows


def write_manifest(sdir: str | os.PathLike[str], split: str, outcome: Outcome, origin: str) -> Path:
    """Write ``<split>_manifest.json``: what is in the shards, what is not, and why; return its path."""
    path = Path(sdir) / f"{split}_manifest.json"
    write_json(
        path,
        {
            "tool": TOOL,
            "mmpt": mmpt.__version__,
            "features": os.path.abspath(origin),
            "dim": outcome.dim,
            "done": outcome.done(),
            "shards": {str(shard_id): len(ids) for shard_id, ids in outcome.shards.items()},
            "repeated": outcome.repeated,
            "skipped": outcome.skipped,
            "failed": outcome.failed,
        },
    )
    return path


def write_shard_map(sdir: str | os.PathLike[str], split: str, outcome: Outcome, also_pickle: bool = False) -> None:
    """Write the map of a split, which makes its shards readable, and remove shards it no longer names.

    Args:
        also_pickle: also write ``<split>_meta.pkl``, the map of the published layout.
    """
    ours, published = shard_map_paths(sdir, split)
    if also_pickle:
        with atomic_open(published, "wb") as file:
            pickle.dump(outcome.shards, file, protocol=4)
    else:
        published.unlink(missing_ok=True)  # of an earlier run; it may name other shards
    write_json(ours, {str(shard_id): ids for shard_id, ids in outcome.shards.items()}, indent=None)
    _remove_outdated(Path(sdir), split, outcome)


def _remove_outdated(sdir: Path, split: str, outcome: Outcome) -> None:
    """Remove shards that an earlier run of this tool wrote and that the map no longer names."""
    for index_file in sdir.glob(f"{glob.escape(split)}_*_index.json"):
        number = index_file.name[len(split) + 1 : -len("_index.json")]
        if not number.isdecimal() or int(number) in outcome.shards:
            continue
        prefix = shard_prefix(sdir, split, int(number))
        try:
            index = read_index(prefix)
        except DataError:
            continue
        if index is not None and index["producer"].get("tool") == TOOL:
            paths = shard_paths(prefix)
            for file in (paths.data, paths.starts, paths.ids, paths.index):
                file.unlink(missing_ok=True)
