"""Time a retrieval test in one process and shared by two, one thread each, and compare what they write.

python scripts/benchmarks/bench_evaluation.py                 # half a minute on two idle cores
python scripts/benchmarks/bench_evaluation.py --pairs 4096
"""

import argparse
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmpt.evaluators import Evaluator
from mmpt.utils.distributed import is_main_process, synchronize
from mmpt.utils.files import write_json
from mmpt.utils.process_group import process_group

__all__ = ["main"]

_WIDTH, _WORDS, _SECONDS, _BATCH = 192, 24, 32, 32


class Pairs(Dataset[dict[str, Any]]):
    """Pairs of random features and random words."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng(index)
        names = {"video_id": f"v{index}", "text": f"text {index}"}
        features = rng.standard_normal((_SECONDS, _WIDTH), dtype=np.float32)
        return {"caps": rng.integers(0, 1000, _WORDS), "vfeats": features, **names}


class Towers(nn.Module):
    """Two transformers of four layers: what takes the time of a test."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(_WIDTH, 6, 4 * _WIDTH, batch_first=True)
        self.words = nn.Embedding(1000, _WIDTH)
        self.video, self.text = (nn.TransformerEncoder(layer, 4, enable_nested_tensor=False) for _ in range(2))

    def forward(self, caps: Tensor, vfeats: Tensor) -> dict[str, Tensor]:
        return {"pooled_video": self.video(vfeats).mean(1), "pooled_text": self.text(self.words(caps)).mean(1)}


def _process(rank: int, size: int, port: int, pairs: int, folder: str) -> None:
    place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if size > 1:
        os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = {"metric": "RetrievalMetric", "predictor": "RetrievalPredictor", "eval": {"save_path": folder}}
    with process_group("cpu"):
        evaluator, model = Evaluator(config), Towers()
        evaluator.evaluate(model, DataLoader(Pairs(2 * _BATCH), batch_size=_BATCH))  # warms up
        synchronize()
        begin = time.perf_counter()
        evaluator.evaluate(model, DataLoader(Pairs(pairs), batch_size=_BATCH))
        if is_main_process():
            write_json(f"{folder}/seconds.json", time.perf_counter() - begin)


def _run(size: int, pairs: int, folder: Path) -> tuple[float, dict[str, np.ndarray]]:
    """Return the seconds of a test and the arrays that it wrote."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (size, port, pairs, str(folder)), nprocs=size)
    seconds = float((folder / "seconds.json").read_text())
    print(f"{size} process{'es' * (size > 1):<3} {seconds:8.2f} s {pairs / seconds:10.1f} pairs/s")
    with np.load(folder / "embeddings.npz", allow_pickle=False) as stored:
        return seconds, dict(stored)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 if what the two ways write differs in any bit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of a video and a text (default 1,000)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        (one, alone), (two, shared) = (_run(size, options.pairs, Path(folder) / str(size)) for size in (1, 2))
    print(f"{'1 / 2':<13} {one / two:8.2f} x")
    if options.json:
        write_json(options.json, {"pairs": options.pairs, "one_seconds": one, "two_seconds": two, "ratio": one / two})
    same = alone.keys() == shared.keys() and all(np.array_equal(alone[name], shared[name]) for name in alone)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
