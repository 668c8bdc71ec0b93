"""Compare the How2 sampling pipeline with the published way of doing it, on generated shards, on one core.

    python scripts/benchmarks/bench_sampling.py [--json result.json]

Both make the same items (V videos x K overlapped clip-text pairs: caps, masks, float32 features) from the same
shards, with one thread. The reference samples clip by clip in Python, opens its memory maps for every sample, keeps
tokens as lists of lists and stacks tensors.
"""

import argparse
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from mmpt.datasets.mmdataset import MMDataset
from mmpt.processors.how2 import (
    ShardedHow2VideoRetriMetaProcessor,
    VideoRetriTextProcessor,
    VideoRetriVideoProcessor,
)
from mmpt.processors.how2_aligners import ClipSamplingAligner
from mmpt.utils.files import write_json
from mmpt.utils.shardedtensor import ShardedTensor

CLS, SEP, PAD = 2, 3, 0
MAX_VIDEO, MAX_TEXT, DIM = 32, 61, 512


def write_corpus(folder: Path, videos: int, per_shard: int, seed: int) -> dict[str, Any]:
    """Write shards as HowTo100M's (1 to 10 minutes, a caption of 4 to 16 words every 4 s) and return the config."""
    rng = np.random.default_rng(seed)
    ids = [f"video{i:05d}" for i in range(videos)]
    shard_map = {}
    for shard, first in enumerate(range(0, videos, per_shard)):
        names = ids[first : first + per_shard]
        shard_map[shard] = names
        features, times, caps = [], [], []
        for _ in names:
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
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 64}')
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(59))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    return {"split": "train", "train_path": str(folder / "train.lst"), "vfeat_dir": str(folder)} | {
        "tfeat_dir": f"{folder}/", "bert_name": str(folder), "max_video_len": MAX_VIDEO, "max_len": 96,
        "sampled_min_len": 8, "sampled_max_len": 64, "sampled_video_min_len": 3, "sampled_video_max_len": 32,
    }  # fmt: skip


class NaiveDataset:
    """The published way, one clip at a time (sections 1.1 and 1.2 of the specification of the published toolkit)."""

    def __init__(self, folder: Path, groups: list[list[tuple[Any, ...]]], clips: int) -> None:
        self.folder, self.groups, self.clips = folder, groups, clips

    def __getitem__(self, index: int) -> dict[str, Any]:
        random.seed(index)
        items = [self._video(*video[-2:]) for video in self.groups[index]]
        return {key: torch.stack([item[key] for item in items]) for key in items[0]}

    def _open(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        data = np.load(self.folder / f"{name}_data.npy", mmap_mode="r")
        return data, np.load(self.folder / f"{name}_starts.npy", mmap_mode="r")

    def _read(self, name: str, index: int) -> np.ndarray:
        data, starts = self._open(name)
        return data[starts[index] : starts[index + 1]]

    def _video(self, shard: int, index: int) -> dict[str, Any]:
        feature = self._read(f"train_{shard}", index)
        times = self._read(f"train_{shard}.startends", index)
        caps = self._read(f"train_{shard}.caps_ids", index)
        text = {
            "start": times[:, 0].tolist(),
            "end": times[:, 1].tolist(),
            "cap": [[token for token in clip if token != -1] for clip in caps.tolist()],
        }
        samples = [self._sample(feature, text) for _ in range(self.clips)]
        return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}

    def _sample(self, feature: np.ndarray, text: dict[str, Any]) -> dict[str, Any]:
        run = self._grow_text(text, random.randint(8, 64))
        low, high = math.floor(text["start"][run[0]]), math.ceil(text["end"][run[-1]])
        center = random.randint(low, high) if low < high else (low + high) // 2
        start, end = self._grow_video(len(feature), random.randint(3, 32), min(max(center, 0), len(feature) - 1))
        vfeats, vmasks = self._video_seq(feature, [(start, end)])
        caps, cmasks = self._text_seq([text["cap"][i] for i in run])
        bounds = {"video_start": start, "video_end": end, "text_start": run[0], "text_end": run[-1] + 1}
        tensors = {key: torch.tensor(value) for key, value in bounds.items()}
        return {"caps": caps, "cmasks": cmasks, "vfeats": vfeats, "vmasks": vmasks, **tensors}

    def _grow_text(self, text: dict[str, Any], limit: int) -> list[int]:
        count = len(text["cap"])
        run = [random.randint(0, count - 1)]
        words = len(text["cap"][run[0]])
        span = max(text["end"][run[0]] - text["start"][run[0]], 0.0)
        while (run[0] > 0 or run[-1] < count - 1) and words < limit and span < 256:
            if random.random() > 0.5 and run[-1] < count - 1:
                run.append(run[-1] + 1)
                words += len(text["cap"][run[-1]])
            elif run[0] > 0:
                run.insert(0, run[0] - 1)
                words += len(text["cap"][run[0]])
            else:
                run.append(run[-1] + 1)
                words += len(text["cap"][run[-1]])
            span = text["end"][run[-1]] - text["start"][run[0]]
        return run

    def _grow_video(self, video_len: int, max_len: int, center: int) -> tuple[int, int]:
        start = end = center
        for _ in range(max_len):
            if start == 0 and end == video_len:
                break
            if start == 0 or (end < video_len and random.random() > 0.5):
                end += 1
            else:
                start -= 1
        return start, end

    def _video_seq(self, feature: np.ndarray, clips: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        vfeats = np.zeros((MAX_VIDEO, feature.shape[1]), dtype=np.float32)
        vmasks = torch.zeros((MAX_VIDEO,), dtype=torch.bool)
        video_len = 0
        for start, end in clips:
            clip_len = min(end - start, MAX_VIDEO - video_len)
            if clip_len > 0:
                vfeats[video_len : video_len + clip_len] = feature[start : start + clip_len]
                vmasks[video_len : video_len + clip_len] = 1
                video_len += clip_len
        return torch.from_numpy(vfeats), vmasks

    def _text_seq(self, clips: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        words = [token for clip in clips for token in clip][:MAX_TEXT]
        caps = [CLS, SEP, *words, SEP]
        pad_lens = MAX_TEXT + 3 - len(caps)
        return torch.LongTensor(caps + [PAD] * pad_lens), torch.tensor([True] * len(caps) + [False] * pad_lens)


def rates(makers: dict[str, Callable[[int], Any]], items: int, pairs: int, seconds: float) -> dict[str, float]:
    """Return pairs per second of each maker, the best of passes over all items that take turns for ``seconds``.

    The first pass, which brings files into the page cache and checks them, does not count.
    """
    best = dict.fromkeys(makers, 0.0)
    for make in makers.values():
        for index in range(items):
            make(index)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for name, make in makers.items():
            begin = time.perf_counter()
            for index in range(items):
                make(index)
            best[name] = max(best[name], pairs / (time.perf_counter() - begin))
    return best


def main() -> None:
    """Run both and print pairs per second and core."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=512, help="videos of the generated corpus")
    parser.add_argument("--group", type=int, default=32, help="videos per item")
    parser.add_argument("--clips", type=int, default=16, help="pairs per video")
    parser.add_argument("--seconds", type=float, default=10.0, help="time given to both together")
    parser.add_argument("--json", type=Path, help="write the result here, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_corpus(folder, arguments.videos, max(arguments.videos // 4, 1), seed=0)
        config |= {"num_video_per_batch": arguments.group, "clip_per_video": arguments.clips}
        meta = ShardedHow2VideoRetriMetaProcessor(config)
        aligner = ClipSamplingAligner(config, text_length="varied", video_clip="overlapped", grouped=True)
        dataset = MMDataset(meta, VideoRetriVideoProcessor(config), VideoRetriTextProcessor(config), aligner)
        naive = NaiveDataset(folder, [meta[i][0] for i in range(len(meta))], arguments.clips)
        pairs = arguments.videos * arguments.clips
        makers = {"published_way": naive.__getitem__, "mmpt": lambda i: dataset.collater([dataset[i]])}
        best = rates(makers, len(meta), pairs, arguments.seconds)
    result = {f"{name}_pairs_per_second_per_core": value for name, value in best.items()}
    result["ratio"] = best["mmpt"] / best["published_way"]
    for name, value in best.items():
        print(f"{name:14}{value:>10,.0f} pairs/s/core")
    print(f"{'ratio':14}{result['ratio']:>10.1f}")
    if arguments.json:
        settings = {key: value for key, value in vars(arguments).items() if key != "json"}
        write_json(arguments.json, {**settings, **result})


if __name__ == "__main__":
    main()
