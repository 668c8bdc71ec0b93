"""A retrieval test shared by two processes of one thread each, against one process; what they write is compared.

python scripts/benchmarks/bench_evaluation.py
python scripts/benchmarks/bench_evaluation.py -o pairs=4096
"""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
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
from scripts.benchmarks.run import run_module
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS"]

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


def _shared_by(processes: int) -> Callable[..., Run]:
    def make(folder: Path, pairs: int) -> Run:
        written: dict[str, np.ndarray] = {}

        def call() -> float:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            with tempfile.TemporaryDirectory(dir=folder) as place:
                torch.multiprocessing.spawn(_process, (processes, port, pairs, place), nprocs=processes)
                with np.load(f"{place}/embeddings.npz", allow_pickle=False) as stored:
                    written.update(stored)
                return float(Path(place, "seconds.json").read_text())

        return Run(call, pairs, own_clock=True, check=lambda: written)

    return make


WORKS = (
    Work(
        "evaluation-shared",
        "pairs",
        _shared_by(2),
        _shared_by(1),
        "one process",
        sizes={"pairs": 1000},
        quick={"pairs": 256},
        tiny={"pairs": 4},
        group="evaluation",
    ),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
