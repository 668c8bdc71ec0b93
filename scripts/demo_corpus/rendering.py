"""Render planned videos to files, in parallel, and only those that are missing."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from mmpt.utils.errors import ConfigError
from mmpt.utils.files import read_json, write_json

__all__ = ["Renderable", "render_all", "render_corpus", "render_video"]


#: Samples per second of a sound track.
_RATE = 22050


class Renderable(Protocol):
    """What a plan of a video says to be rendered; one with sound also has ``sound(rng)``, float32 (samples,)."""

    name: str
    width: int
    height: int
    fps: int
    codec: str
    seed: tuple[int, ...]

    @property
    def seconds(self) -> float: ...  # noqa: D102

    @property
    def file_name(self) -> str: ...  # noqa: D102

    def pictures(self, rng: np.random.Generator) -> Iterator[np.ndarray]: ...  # noqa: D102


def render_corpus(
    plans: Sequence[Renderable],
    output: Path,
    settings: Mapping[str, Any],
    workers: int,
    write_texts: Callable[[], None],
) -> int:
    """Render ``videos/`` below a folder, write the texts, and ``manifest.json`` last; return the exit code.

    Raises:
        ConfigError: if the folder holds a corpus of other settings or other plans.
    """
    settings = {**settings, "plan": hashlib.sha256(repr(plans).encode()).hexdigest()}
    manifest = output / "manifest.json"
    if manifest.exists() and read_json(manifest).get("settings") != settings:
        raise ConfigError(
            f"{output} holds another corpus: of other settings, or of another version of this script."
            " Remove it or choose another --output"
        )
    write_json(manifest, {"settings": settings, "videos": {}})
    videos = output / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    missing = [plan for plan in plans if not (videos / plan.file_name).exists()]
    failed = render_all(missing, videos, workers)
    write_texts()
    state = {plan.name: failed.get(plan.name, "done") for plan in plans}
    write_json(manifest, {"settings": settings, "videos": state})
    minutes = sum(plan.seconds for plan in plans) / 60
    print(
        f"done {len(missing) - len(failed)}, skipped {len(plans) - len(missing)} (rendered before),"
        f" failed {len(failed)}; {len(plans)} videos, {minutes:.0f} minutes in {output}"
    )
    for reason, number in Counter(failed.values()).most_common():
        print(f"  failed {number}: {reason}")
    return 1 if failed else 0


def render_all(plans: Sequence[Renderable], folder: Path, workers: int) -> dict[str, str]:
    """Render videos in ``workers`` processes; return video name -> reason of those that failed."""
    failed = {}
    with ProcessPoolExecutor(max(1, workers), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(render_video, plan, folder / plan.file_name): plan for plan in plans}
        for future in tqdm(as_completed(futures), total=len(futures), desc="render", unit="video"):
            error = future.exception()
            if error is not None:
                failed[futures[future].name] = f"{type(error).__name__}: {error}"
    return failed


def render_video(plan: Renderable, path: Path) -> None:
    """Encode one video; the file appears only when it is whole."""
    import av

    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        with av.open(str(temporary), "w") as container:
            # x264's macroblock tree gives other bytes, and other pixels, from one call to the next.
            x264 = {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}
            options = x264 if plan.codec == "libx264" else {"qscale": "3"}
            stream = container.add_stream(plan.codec, rate=plan.fps, options=options)
            stream.width, stream.height, stream.pix_fmt = plan.width, plan.height, "yuv420p"
            stream.thread_count = 1
            sound = getattr(plan, "sound", None)
            track = None if sound is None else container.add_stream("aac", rate=_RATE, layout="mono")
            rng = np.random.default_rng(plan.seed)
            for image_HW3 in plan.pictures(rng):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image_HW3, format="rgb24")))
            container.mux(stream.encode())
            if track is not None and sound is not None:
                frame = av.AudioFrame.from_ndarray(sound(rng)[None], format="fltp", layout="mono")
                frame.sample_rate = _RATE
                container.mux(track.encode(frame))
                container.mux(track.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
