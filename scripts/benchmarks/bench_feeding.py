"""Whether a loader with one worker keeps the training of two cores fed: samples/s of both, and their ratio.

    python scripts/benchmarks/bench_feeding.py
    python scripts/benchmarks/bench_feeding.py -o workers=2

"Ours" is the loader, handing over batches of collated samples from a store on disk; the "reference" is the training
step of the same system on two threads (``bench_training.py``), on data that is in memory. A ratio above 1 means that
training never waits. MERLOT's and Reserve's frames have the published size, and the models that take them are small:
a larger model needs fewer samples.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torch.utils.data import DataLoader, Dataset

from mmpt.datasets.mmdataset import MMDataset
from mmpt.store.frame_extraction import FrameExtractionOptions, extract_frames
from mmpt.utils.registry import build
from scripts.benchmarks.bench_sampling import dataset_of, write_corpus
from scripts.benchmarks.bench_training import SIZES, training
from scripts.benchmarks.run import run_module
from scripts.benchmarks.segment_items import make_data, open_data
from scripts.benchmarks.systems import SYSTEMS
from scripts.benchmarks.videos import make_videos
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS"]

_BATCHES = 4  # of a pass


def _clips(folder: Path, videos: int) -> None:
    write_corpus(folder, videos, min(8, videos))


def _frames(folder: Path, videos: int) -> None:
    items = make_videos(folder, videos, 4.0, 320, 240, 25)
    extract_frames(items, str(folder / "store"), FrameExtractionOptions(frames=5, workers=0))
    (folder / "captions.json").write_text(json.dumps({"train": {item.video_id: ["w1 w2 w3"] for item in items}}))
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 8}')
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "w1", "w2", "w3"]))


def _segments(folder: Path, videos: int) -> None:
    make_data(folder, videos, 512, 288)


def _frame_data(folder: Path, aligner: str) -> MMDataset:
    section = {"split": "train", "train_path": str(folder / "captions.json"), "frame_path": str(folder / "store")}
    section |= {"bert_name": str(folder), "num_frames": 4, "image_size": 96, "max_text_len": 32}
    names = ("ClipPretrainingMetaProcessor", "FrameVideoProcessor", "TextProcessor", aligner)
    kinds = ("meta_processor", "video_processor", "text_processor", "aligner")
    return MMDataset(*(build(kind, name, section) for kind, name in zip(kinds, names, strict=True)))


class _Round(Dataset[dict[str, Any]]):
    """The items of a data set again and again: the start of an epoch is not what is measured."""

    def __init__(self, data: MMDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.data[index % len(self.data)]


class _Data(NamedTuple):
    """How to write and open the data of a system; items have ``each`` samples (pairs of a group), batches ``items``."""

    write: Callable[..., None]
    open: Callable[[Path], MMDataset]
    each: Callable[[int], int]
    items: int


#: Pairs that an item takes of a video.
_PAIRS = {"videoclip": 16, "vlm": 32}
_DATA = {
    "videoclip": _Data(
        _clips,
        lambda folder: dataset_of(folder, "videoclip", _PAIRS["videoclip"]),
        lambda videos: min(8, videos) * _PAIRS["videoclip"],
        1,
    ),
    "vlm": _Data(_clips, lambda folder: dataset_of(folder, "vlm", _PAIRS["vlm"]), lambda videos: _PAIRS["vlm"], 4),
    "violet": _Data(
        _frames,
        lambda folder: _frame_data(folder, "FrameAligner"),
        lambda videos: 1,
        4,
    ),
    "lavender": _Data(
        _frames,
        lambda folder: _frame_data(folder, "LAVENDERPretrainingAligner"),
        lambda videos: 1,
        4,
    ),
    "merlot": _Data(_segments, lambda folder: open_data(folder, "MERLOT"), lambda videos: 1, 2),
    "reserve": _Data(_segments, lambda folder: open_data(folder, "Reserve"), lambda videos: 1, 2),
}


def _loading(system: str) -> Callable[..., Run]:
    def make(folder: Path, videos: int, workers: int, **_: Any) -> Run:
        known = _DATA[system]
        data = known.open(folder)
        loader = DataLoader(_Round(data), batch_size=known.items, num_workers=workers, collate_fn=data.collater)
        batches: Iterator[Any] = iter(loader)
        for _number in range(2):
            next(batches)

        def call() -> None:
            for _number in range(_BATCHES):
                next(batches)

        return Run(call, _BATCHES * known.items * known.each(videos))

    return make


WORKS = tuple(
    Work(
        f"feeding-{system}",
        SYSTEMS[system].unit,
        _loading(system),
        training(system, "ours"),
        "the training step that takes them",
        known.write,
        {"videos": 32, "workers": 1, **SIZES[system]},
        quick={"videos": 8, "samples": max(2, SIZES[system]["samples"] // 8)},
        tiny={"videos": 2, "samples": 2, "size": "tiny"},
        threads=2,
        tolerance=None,
        least_ratio=1,
        group="feeding",
        reference_keeps=True,
    )
    for system, known in _DATA.items()
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
