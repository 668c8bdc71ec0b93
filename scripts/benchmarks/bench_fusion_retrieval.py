"""Time retrieval by fusion: states encoded once, against encoding each pair anew, and a first stage of cheap scores.

python scripts/benchmarks/bench_fusion_retrieval.py              # 16 x 16 pairs of VIOLET-tiny; a minute or two
python scripts/benchmarks/bench_fusion_retrieval.py --system lavender
python scripts/benchmarks/bench_fusion_retrieval.py --size base --pairs 8

"encode-once" and "rerank" are whole tests, reading, encoding and files included; "re-encode" encodes video and text of
every pair again, in batches of the same size, as a loop over pairs does (its first batches, times all). All in one
process, after one batch that is not counted; seconds are those of the processor, whatever else the machine does.
Pairs/s are of pairs that were fused: "rerank" fuses --top-k of each text's alone. The ratio is of the times of the
whole test.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mmpt.evaluators.fusion_retrieval_predictor import FusionRetrievalPredictor
from mmpt.models.cross_modal import CrossModalModel
from mmpt.utils.files import write_json
from scripts.benchmarks.frame_step import SIZES, random_clips, violet
from scripts.benchmarks.systems import random_prompts

__all__ = ["main"]

_READ = 8
_MODELS = {"violet": "VIOLETRetrieval", "lavender": "LAVENDER"}


class Clips(Dataset[dict[str, Any]]):
    """Random clips, each with a text."""

    def __init__(self, system: str, size: str, count: int) -> None:
        batch = random_prompts(size, count) if system == "lavender" else random_clips(size, count)
        self.batch = {key: batch[key] for key in ("caps", "cmasks", "vfeats", "vmasks")}

    def __len__(self) -> int:
        return len(self.batch["caps"])

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**{key: value[row] for key, value in self.batch.items()}, "video_id": f"v{row}", "text": f"text {row}"}


def _encode_anew(model: CrossModalModel, clips: Clips, pairs_per_batch: int, most: int) -> tuple[float, np.ndarray]:
    """Return the processor seconds for all pairs, from the first ``most`` batches of them, and these scores."""
    data = clips.batch
    texts, videos = torch.cartesian_prod(torch.arange(len(clips)), torch.arange(len(clips))).T
    scores: list[np.ndarray] = []
    begin = time.process_time()
    with torch.no_grad():
        for text, video in list(zip(texts.split(pairs_per_batch), videos.split(pairs_per_batch), strict=True))[:most]:
            encoded = model.encode_text(data["caps"][text], data["cmasks"][text])
            frames = model.encode_video(data["vfeats"][video], data["vmasks"][video])
            scores.append(model.score_aligned(encoded, frames).numpy())
    found = np.concatenate(scores)
    return (time.process_time() - begin) * len(texts) / len(found), found


def _test(model: CrossModalModel, clips: Clips, **options: Any) -> tuple[float, np.ndarray]:
    """Return the processor seconds of a whole test, and the scores of all pairs."""
    with tempfile.TemporaryDirectory() as folder:
        predictor = FusionRetrievalPredictor({"eval": {"save_path": folder, **options}})
        begin = time.process_time()
        outputs = predictor(model, DataLoader(clips, batch_size=_READ), device="cpu")
        return time.process_time() - begin, np.array(outputs["outputs"])


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 if the ways score a pair differently."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=_MODELS, default="violet", help="violet (default) or lavender")
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the system (default tiny)")
    parser.add_argument("--pairs", type=int, default=16, help="texts, and videos (default 16)")
    parser.add_argument("--pairs-per-batch", type=int, default=16, help="eval.pairs_per_batch (default 16)")
    parser.add_argument("--batches", type=int, default=4, help="batches that are encoded anew (default 4)")
    parser.add_argument("--top-k", type=int, default=4, help="eval.rerank_top_k (default 4)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    model, clips = violet(given.size, _MODELS[given.system]).eval(), Clips(given.system, given.size, given.pairs)
    count, figures = given.pairs**2, {}
    settings = {"pairs_per_batch": given.pairs_per_batch}
    ways: dict[str, Callable[[], tuple[float, np.ndarray]]] = {
        "re-encode": lambda: _encode_anew(model, clips, given.pairs_per_batch, given.batches),
        "encode-once": lambda: _test(model, clips, **settings),
        "rerank": lambda: _test(model, clips, rerank_top_k=given.top_k, **settings),
    }
    scores = {}
    _encode_anew(model, clips, given.pairs_per_batch, 1)  # what the first batch takes longer is no way's own
    for name, way in ways.items():
        seconds, scores[name] = way()
        fused = given.pairs * min(given.top_k, given.pairs) if name == "rerank" else count
        figures[name] = {"seconds": seconds, "fused_pairs": fused, "pairs_per_second": fused / seconds}
        speed = figures["re-encode"]["seconds"] / seconds
        print(f"{name:<14}{seconds:>9.2f} s{fused:>8} pairs{fused / seconds:>9.1f} pairs/s{speed:>8.2f} x", flush=True)
    if given.json:
        write_json(given.json, {**vars(given), "ways": figures})
    anew = scores["re-encode"]
    return 0 if np.allclose(anew, scores["encode-once"].reshape(-1)[: len(anew)], atol=1e-4) else 1


if __name__ == "__main__":
    sys.exit(main())
