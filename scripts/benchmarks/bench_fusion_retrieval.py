"""Retrieval by fusion: states encoded once, against encoding each pair anew.

    python scripts/benchmarks/bench_fusion_retrieval.py
    python scripts/benchmarks/bench_fusion_retrieval.py -o size=base -o pairs=8

Ours is a whole test, reading, encoding and files included. The reference encodes video and text of every pair again, in
batches of the same size, as a loop over pairs does: a pair takes it as long among few as among many, so that a quarter
of the texts are timed. All scores are compared. "fusion-rerank" fuses the ``top_k`` of each text alone.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mmpt.evaluators.fusion_retrieval_predictor import FusionRetrievalPredictor
from scripts.benchmarks.frame_step import random_clips, random_prompts, violet
from scripts.benchmarks.run import run_module
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS"]

_READ = 8
#: Of so many texts the reference's time is taken of one.
_PART = 4


class Clips(Dataset[dict[str, Any]]):
    """Random clips, each with a text."""

    def __init__(self, name: str, size: str, count: int) -> None:
        batch = random_prompts(size, count) if name.startswith("LAVENDER") else random_clips(size, count)
        self.batch = {key: batch[key] for key in ("caps", "cmasks", "vfeats", "vmasks")}

    def __len__(self) -> int:
        return len(self.batch["caps"])

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**{key: value[row] for key, value in self.batch.items()}, "video_id": f"v{row}", "text": f"text {row}"}


def _anew(name: str, whole: bool = True) -> Callable[..., Run]:
    def make(folder: Path, size: str, pairs: int, batch: int, **_: Any) -> Run:
        model, data = violet(size, name).eval(), Clips(name, size, pairs).batch
        timed = -(-pairs // _PART)

        def scores_of(texts: int) -> np.ndarray:
            scores = []
            text_rows, video_rows = torch.cartesian_prod(torch.arange(texts), torch.arange(pairs)).T
            with torch.no_grad():
                for text, video in zip(text_rows.split(batch), video_rows.split(batch), strict=True):
                    encoded = model.encode_text(data["caps"][text], data["cmasks"][text])
                    frames = model.encode_video(data["vfeats"][video], data["vmasks"][video])
                    scores.append(model.score_aligned(encoded, frames).numpy())
            return np.concatenate(scores).reshape(texts, pairs)

        return Run(lambda: scores_of(timed), timed * pairs, check=lambda: scores_of(pairs) if whole else None)

    return make


def _test(name: str, rerank: bool = False) -> Callable[..., Run]:
    def make(folder: Path, size: str, pairs: int, batch: int, top_k: int = 0) -> Run:
        model, clips = violet(size, name).eval(), Clips(name, size, pairs)
        options: dict[str, Any] = {"pairs_per_batch": batch} | ({"rerank_top_k": top_k} if rerank else {})

        def call() -> np.ndarray:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                predictor = FusionRetrievalPredictor({"eval": {"save_path": place, **options}})
                return np.array(predictor(model, DataLoader(clips, batch_size=_READ), device="cpu")["outputs"])

        return Run(call, pairs**2, counted=True)

    return make


_SIZED: dict[str, Any] = {
    "sizes": {"size": "tiny", "pairs": 12, "batch": 16},
    "quick": {"pairs": 8},
    "tiny": {"pairs": 2},
    "threads": 2,
}
_ANEW = "video and text encoded again for every pair"
WORKS = (
    *(
        Work(
            f"fusion-{system}",
            "pairs",
            _test(name),
            _anew(name),
            _ANEW,
            **_SIZED,
            tolerance=1e-4,
            least_ratio=3,
            group="evaluation",
        )
        for system, name in (("violet", "VIOLETRetrieval"), ("lavender", "LAVENDER"))
    ),
    Work(
        "fusion-rerank",
        "pairs",
        _test("VIOLETRetrieval", rerank=True),
        _anew("VIOLETRetrieval", whole=False),
        _ANEW,
        **{**_SIZED, "sizes": _SIZED["sizes"] | {"top_k": 4}},
        tolerance=None,
        least_ratio=3,
        group="evaluation",
    ),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
