"""The start of a training on a store of a million videos: seconds from making the data set to its first batch.

    python scripts/benchmarks/bench_start.py
    python scripts/benchmarks/bench_start.py -o videos=100000

The store is made up and its items are tiny: what counts is how many there are. Each turn is a fresh process; what it
imports before is a figure below the table, as are the parts of the start, and the processor seconds of all parts and of
the worker, which other users of the machine change less. Files are in the page cache.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mmpt.store.frame_store import FRAME_LAYOUT, frames_prefix, videos_prefix
from mmpt.store.images import encode_jpeg
from mmpt.store.video_shards import STORE_VERSION
from mmpt.utils.files import write_json
from mmpt.utils.shardedtensor_writer import ShardedTensorWriter
from scripts.benchmarks.child import call_in_child, peak_bytes, resident_bytes
from scripts.benchmarks.run import run_module
from scripts.benchmarks.work import Run, Work

__all__ = ["START_MEMORY", "WORKS", "first_batch", "write_many_clips", "write_many_frames"]

BATCH, PER_SHARD, GROUP = 8, 4096, 32
_WORDS = 5
#: A figure of these works: what the process that starts holds at most.
START_MEMORY = "memory beyond the imports, MiB"


def _shards(videos: int) -> list[list[str]]:
    ids = [f"video{number:08d}" for number in range(videos)]
    return [ids[first : first + PER_SHARD] for first in range(0, videos, PER_SHARD)]


def _save(
    prefix: str, data: np.ndarray, each: int, ids: list[str] | None, producer: dict[str, Any] | None = None
) -> str:
    """Write ``each`` rows of data per item; return the generation of the shard."""
    starts = np.arange(len(data) // each + 1) * each
    with ShardedTensorWriter(prefix, data.dtype, data.shape[1:], producer or {}) as writer:
        writer.append_all(data, starts, ids)
    return str(json.loads(Path(f"{prefix}_index.json").read_text())["generation"])


def _vocabulary(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 64}')
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(59))])
    )


def write_many_clips(folder: Path, videos: int) -> None:
    """Write features and captions of videos of one caption and four seconds each, in shards."""
    shards = _shards(videos)
    for number, names in enumerate(shards):
        count, prefix = len(names), f"{folder}/train_{number}"
        _save(prefix, np.ones((4 * count, 2), np.float16), 4, names)
        _save(f"{prefix}.startends", np.tile(np.float32([[0, 3]]), (count, 1)), 1, names)
        _save(f"{prefix}.caps_ids", np.tile(np.int32([[7] * _WORDS]), (count, 1)), 1, names)
    write_json(folder / "train_meta.json", dict(enumerate(shards)))
    (folder / "train.lst").write_text("\n".join(name for names in shards for name in names) + "\n")
    _vocabulary(folder)


def write_many_frames(folder: Path, videos: int) -> None:
    """Write a frame store of videos of one small picture each, and a caption of each."""
    shards, image = _shards(videos), np.frombuffer(encode_jpeg(np.zeros((8, 8, 3), np.uint8)), np.uint8)
    store, entries = folder / "store", []
    store.mkdir()
    for number, names in enumerate(shards):
        name = f"shard_{number:05d}"
        made = _save(str(frames_prefix(store, name)), np.tile(image, len(names)), len(image), None)
        _save(str(videos_prefix(store, name)), np.zeros(len(names)), 1, names, {"frames_generation": made})
        entries.append({"name": name, "videos": len(names)})
    write_json(store / FRAME_LAYOUT.file, {"version": STORE_VERSION, "shards": entries})
    write_json(folder / "captions.json", {"train": {name: ["w1 w2 w3"] for names in shards for name in names}})
    _vocabulary(folder)


def _clips(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    section = {"split": "train", "train_path": str(folder / "train.lst"), "vfeat_dir": str(folder)} | {
        "tfeat_dir": f"{folder}/", "bert_name": str(folder), "max_video_len": 32, "max_len": 96,
        "num_video_per_batch": GROUP, "clip_per_video": 2, "sampled_min_len": 8, "sampled_max_len": 64,
        "sampled_video_min_len": 3, "sampled_video_max_len": 32,
    }  # fmt: skip
    names = (
        *("ShardedHow2VideoRetriMetaProcessor", "ShardedVideoRetriVideoProcessor"),
        "ShardedVideoRetriTextProcessor",
    )
    return section, (*names, "VideoRetriOverlappedAligner")


def _frames(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    section = {"split": "train", "train_path": str(folder / "captions.json"), "frame_path": str(folder / "store")}
    section |= {"bert_name": str(folder), "num_frames": 1, "image_size": 32, "max_text_len": 8}
    return section, ("ClipPretrainingMetaProcessor", "FrameVideoProcessor", "TextProcessor", "FrameAligner")


STORES: dict[str, tuple[Callable[..., None], Callable[[Path], Any]]] = {
    "clips": (write_many_clips, _clips),
    "frames": (write_many_frames, _frames),
}


def first_batch(kind: str, folder: str) -> dict[str, float]:
    """Return the seconds of imports, of making the data set, of its order, and until a loader gives a batch.

    And :data:`START_MEMORY`, and how many videos there are. ``processor`` are the processor seconds of all but the
    imports, those of the loader's worker among them.
    """
    began = time.perf_counter()
    from torch.utils.data import DataLoader

    from mmpt.datasets.mmdataset import MMDataset
    from mmpt.utils.registry import build, resolve_class
    from mmpt.utils.tokenizers import load_tokenizer

    section, names = STORES[kind][1](Path(folder))
    kinds = ("meta_processor", "video_processor", "text_processor", "aligner")
    for what, name in zip(kinds, names, strict=True):
        resolve_class(what, name)
    load_tokenizer(section["bert_name"], True)  # imports transformers, which is none of the data's
    imported, busy, held = time.perf_counter(), _busy_seconds(), resident_bytes()
    data = MMDataset(*(build(what, name, section) for what, name in zip(kinds, names, strict=True)))
    made = time.perf_counter()
    batches = data.order()[: BATCH * max(1, len(data) // BATCH)].reshape(-1, min(BATCH, len(data)))
    ordered = time.perf_counter()
    # Forked, as a training's loader has it: in a spawned process, such as this one, the default is to spawn.
    how: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": "fork"}
    loader = DataLoader(data, batch_sampler=batches, collate_fn=data.collater, **how)
    batches_read = iter(loader)
    batch = next(batches_read)
    ended = time.perf_counter()
    del batches_read  # ends the worker, whose seconds are known only then
    busy = _busy_seconds() - busy
    assert len(batch["caps"])
    parts = {"imports": imported - began, "data set": made - imported, "order": ordered - made}
    told = {START_MEMORY: (peak_bytes() - held) / 2**20, "videos": float(len(data.meta_processor))}
    return parts | {"batch": ended - ordered, "processor": busy} | told


def _busy_seconds() -> float:
    """Return the processor seconds of this process and of those of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _starting(kind: str) -> Callable[..., Run]:
    def make(folder: Path, videos: int) -> Run:
        last: dict[str, float] = {}

        def call() -> float:
            last.update(call_in_child(first_batch, kind, str(folder)))
            return last["data set"] + last["order"] + last["batch"]

        def figures() -> dict[str, float]:
            seconds = {f"{name}, s": value for name, value in last.items() if name not in (START_MEMORY, "videos")}
            return seconds | {START_MEMORY: last[START_MEMORY]}

        return Run(call, 1, own_clock=True, figures=figures)

    return make


WORKS = tuple(
    Work(
        f"first-batch-{kind}",
        "starts",
        _starting(kind),
        prepare=write,
        sizes={"videos": 1_000_000},
        quick={"videos": 20_000},
        tiny={"videos": 2 * GROUP},
        most_seconds=2.0,
        group="alone",
    )
    for kind, (write, _) in STORES.items()
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
