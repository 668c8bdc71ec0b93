"""The How2 sampling pipelines, from shards to batches on one core.

    python scripts/benchmarks/bench_sampling.py

VideoCLIP's items are V videos x K overlapped clip-text pairs (caps, masks, float32 features), VLM's K pairs of one
video with masked words and frames. Both ways make the same items from the same shards. The reference samples clip by
clip in Python, opens its memory maps for every sample, keeps tokens as lists of lists and stacks tensors. They draw
their own random numbers: compared are the shapes and the mean lengths of clips and texts.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from mmpt.datasets.mmdataset import MMDataset
from mmpt.utils.files import write_json
from mmpt.utils.registry import build
from mmpt.utils.shardedtensor import ShardedTensor
from scripts.benchmarks.naive_sampling import MAX_VIDEO, WORDS, NaiveDataset, NaiveMaskedDataset
from scripts.benchmarks.run import run_module
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS", "dataset_of", "write_corpus"]

DIM = 512
#: Name -> videos come in groups, the aligner, the reference.
PIPELINES = {
    "videoclip": (True, "VideoRetriOverlappedAligner", NaiveDataset),
    "vlm": (False, "MFMMLMAligner", NaiveMaskedDataset),
}


def write_corpus(folder: Path, videos: int, group: int, **_: Any) -> None:
    """Write shards as HowTo100M's: 1 to 10 minutes, a caption of 4 to 16 words every 4 s; and ``dataset.json``."""
    rng = np.random.default_rng(0)
    ids = [f"video{i:05d}" for i in range(videos)]
    shard_map = {}
    per_shard = max(videos // 4, 1)
    for shard, first in enumerate(range(0, videos, per_shard)):
        names = ids[first : first + per_shard]
        shard_map[shard] = names
        features, times, caps = [], [], []
        for _name in names:
            seconds = int(rng.integers(60, 600))
            features.append(rng.standard_normal((seconds, DIM), dtype=np.float32).astype(np.float16))
            start = np.sort(rng.uniform(0, seconds - 4, seconds // 4)).astype(np.float32)
            end = start + rng.uniform(1, 6, len(start)).astype(np.float32)
            times.append(np.stack((start, end), axis=1))
            ids_padded = rng.integers(5, 60, (len(start), 32)).astype(np.int32)
            ids_padded[np.arange(32) >= rng.integers(4, 17, len(start))[:, None]] = -1
            caps.append(ids_padded)
        for suffix, items in (("", features), (".startends", times), (".caps_ids", caps)):
            ShardedTensor.from_list(items, ids=names).save(str(folder / f"train_{shard}{suffix}"))
    write_json(folder / "train_meta.json", shard_map)
    (folder / "train.lst").write_text("\n".join(ids) + "\n")
    (folder / "config.json").write_text(f'{{"model_type": "bert", "vocab_size": {WORDS}}}')
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(WORDS - 5))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    config = {"split": "train", "train_path": str(folder / "train.lst"), "vfeat_dir": str(folder)} | {
        "tfeat_dir": f"{folder}/", "bert_name": str(folder), "max_video_len": MAX_VIDEO, "max_len": 96,
        "sampled_min_len": 8, "sampled_max_len": 64, "sampled_video_min_len": 3, "sampled_video_max_len": 32,
        "num_video_per_batch": group, "mm_prob": 0.5,
    }  # fmt: skip
    write_json(folder / "dataset.json", config)


def dataset_of(folder: Path, pipeline: str, clips: int) -> MMDataset:
    """Build the data set of a pipeline from registered names, ``clips`` pairs of each video."""
    grouped, aligner, _ = PIPELINES[pipeline]
    group = "VideoRetri" if grouped else ""
    names = {
        "meta_processor": f"ShardedHow2{group}MetaProcessor",
        "video_processor": f"Sharded{group}VideoProcessor",
        "text_processor": f"Sharded{group}TextProcessor",
        "aligner": aligner,
    }
    config = json.loads((folder / "dataset.json").read_text()) | {"clip_per_video": clips}
    return MMDataset(*(build(kind, name, config) for kind, name in names.items()))


def _run(make: Any, items: int, pairs: int) -> Run:
    """Return the run over all items; what is compared are the shapes of the first and the mean lengths of all."""
    moved = sum(value.nbytes for value in make(0).values() if isinstance(value, torch.Tensor))

    def call() -> dict[str, Any]:
        frames = words = 0
        for index in range(items):
            batch = make(index)
            frames += int(batch["vmasks"].sum())
            words += int(batch["cmasks"].sum())
        first = {key: list(batch[key].shape[-2:]) for key in ("caps", "cmasks", "vfeats", "vmasks")}
        return {"shapes": [shape[-1:] for shape in first.values()], "frames": frames / pairs, "words": words / pairs}

    return Run(call, pairs, bytes=moved * items / pairs)


def _ours(pipeline: str) -> Any:
    def make(folder: Path, videos: int, clips: int, **_: Any) -> Run:
        data = dataset_of(folder, pipeline, clips)
        return _run(lambda index: data.collater([data[index]]), len(data), videos * clips)

    return make


def _reference(pipeline: str) -> Any:
    def make(folder: Path, videos: int, clips: int, **_: Any) -> Run:
        data = dataset_of(folder, pipeline, clips)
        rows = [ids for ids, _ in (data.meta_processor[i] for i in range(len(data)))]
        grouped, _, naive = PIPELINES[pipeline]
        return _run(
            naive(folder, rows if grouped else [[row] for row in rows], clips).__getitem__, len(data), videos * clips
        )

    return make


WORKS = tuple(
    Work(
        f"sampling-{pipeline}",
        "pairs",
        _ours(pipeline),
        _reference(pipeline),
        "clip by clip in Python, files opened per sample, tokens as lists",
        write_corpus,
        {"videos": 512, "group": 32, "clips": clips},
        quick={"videos": 128},
        tiny={"videos": 8, "group": 4},
        tolerance=0.1,
        least_ratio=5,
    )
    for pipeline, clips in (("videoclip", 16), ("vlm", 32))
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
