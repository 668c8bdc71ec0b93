"""What the tests of the page share: a model of known scores, videos, an index of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np

from mmpt.api.outputs import Answer, ClipVectors, Timeline
from mmpt.api.page.contents import Contents, Failure, Limits
from mmpt.api.page.shelf import Shelf
from mmpt.api.search import ClipIndex, index_folder
from mmpt.api.search.indexed_video import IndexedVideo
from mmpt.utils.errors import DataError

DIM = 8


def write_video(path: Path, seconds: int, codec: str = "libx264") -> Path:
    """Five pictures a second, 64 x 48, each second brighter than the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(5 * seconds):
            picture = np.full((48, 64, 3), min(255, 20 * (number // 5)), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


class FakePipeline:
    """Label l is that of seconds 2 l to 2 l + 2; "part N" finds the clips of second 2 N, a picture those of 12."""

    system, source, device, dim = "VideoCLIP", "runs/fake", "cpu", DIM
    model = SimpleNamespace()

    def __init__(self, *calls: str) -> None:
        self.calls = frozenset(calls or ("segment", "answer", "choose", "index"))

    def segment(self, video: str, labels: list[str]) -> Timeline:
        if labels == ["fail"]:
            raise DataError(f"{video}: cannot be decoded")
        if labels == ["crash"]:
            raise RuntimeError(video)
        scores = np.eye(len(labels), dtype=np.float32)
        return Timeline(labels, np.arange(len(labels)) * 2.0, np.arange(1, len(labels) + 1) * 2.0, scores)

    def answer(self, video: str, question: str, options: Any) -> list[Answer]:
        return [Answer(option, 1.0, 0.75) for option in options or ["open"]]

    def fingerprint(self) -> str:
        return "fake"

    def encode_clips(self, video: IndexedVideo, clip_seconds: float, stride_seconds: float) -> ClipVectors:
        list(video.stream(5, 32, 32, False, 5))  # as a model does: thumbnails are of what was read
        starts = np.arange(0, 2 * DIM if "long" in Path(video.path).name else 4, 2, dtype=np.float64)
        return ClipVectors(starts, starts + 2, np.eye(DIM, dtype=np.float32)[(starts // 2).astype(int)])

    def encode_text(self, text: str) -> np.ndarray:
        return np.eye(DIM, dtype=np.float32)[int(text.split()[-1])]

    def encode_image(self, images: Any) -> np.ndarray:
        return np.eye(DIM, dtype=np.float32)[[6] * len(images)]


def make_page(folder: Path, **limits: Any) -> Contents:
    """Two models, two videos of which browsers play one, and an index of them; uploads go to ``folder/uploads``."""
    videos, uploads = folder / "videos", folder / "uploads"
    (uploads / "copies").mkdir(parents=True)
    write_video(videos / "long.avi", 16, "mpeg4")
    write_video(videos / "short.mp4", 4)
    both: Any = {"one": FakePipeline(), "two": FakePipeline("segment", "choose")}
    index_folder(both["one"], [str(videos)], str(folder / "index"), clip_seconds=2, stride_seconds=2)
    indexes = {"mine": ClipIndex.open(folder / "index", both["one"])}
    demo = {path.name: path for path in sorted(videos.iterdir())}
    return Contents(
        both,
        Shelf(uploads, videos),
        demo,
        indexes,
        [Failure("model three: <no>", "/secret/place", "it is not there")],
        Limits(**limits),
    )
