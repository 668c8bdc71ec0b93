"""A folder in which the commands and Python of the pages run: tiny videos, data and models under the pages' names."""

import base64
import contextlib
import csv
import importlib
import io
import json
import os
import pickle
import re
import runpy
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from omegaconf import OmegaConf

from mmpt.modules.feature_encoders import S3DEncoder, SmallConv3dEncoder
from mmpt.modules.s3d import random_s3d
from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.images import encode_jpeg
from mmpt.utils.files import REPOSITORY
from mmpt.utils.registry import build, resolve_class
from mmpt_cli import launch
from mmpt_cli.main import main as mmpt
from scripts.tiny_data.generate import Counts, generate
from tests.test_readme import Command, script_of

#: Folders of videos that pages name; a video of each is there.
_VIDEOS = ("my_videos", "msrvtt_videos", "howto100m_videos", "youcook_videos", "didemo_videos", "webvid")
_VIDEOS += ("data/kitchen/videos", "data/demo/videos", "data/msrvtt/videos")
#: The folder of videos that S3D itself reads; elsewhere its features are made up, for S3D takes seconds.
_REAL_S3D = "data/kitchen/videos"


def write_video(path: Path, seconds: float = 2.0, colour: tuple[int, int, int] = (200, 30, 30)) -> None:
    """Write a video of 64 x 48 pixels at 8 frames a second in which a square moves to the right."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(int(seconds * 8)):
            picture = np.full((48, 64, 3), 20, np.uint8)
            picture[16:32, number % 48 : number % 48 + 16] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))


def write_run(folder: Path, name: str, features: str) -> None:
    """Write the run folder of a training: a tiny model with random weights, and its config."""
    config = OmegaConf.merge(resolve_class("model", name).tiny_config(), {"dataset": {"vfeat_dir": features}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = build("model", name, config).state_dict()
    folder.mkdir(parents=True)
    weights = {f"mmmodel.{key}": value for key, value in state.items()}
    torch.save({"args": None, "model": weights}, folder / "checkpoint_best.pt")
    OmegaConf.save(config, folder / "config.yaml")


def fill(folder: Path) -> None:
    """Write the videos, data and models of the pages into an empty folder."""
    generate(folder, counts=Counts(crosstask_tested=31))
    for name in ("projects", "scripts"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for place in _VIDEOS:
        seconds = 6.0 if place == "my_videos" else 1.0
        write_video(folder / place / f"{'video7010' if 'msrvtt' in place else 'a'}.mp4", seconds)
    for name, seconds in (("one", 2.0), ("two", 2.0), ("long", 6.0), ("my_videos/b", 6.0)):
        write_video(folder / f"{name}.mp4", seconds, (30, 30, 200))
    for name in [line for split in ("train", "val") for line in _lines(folder / f"data/how2/how2_s3d_{split}.lst")]:
        shutil.copy(folder / "howto100m_videos/a.mp4", folder / f"howto100m_videos/{name}.mp4")
    _write_frames(folder)
    _write_jobs(folder)
    with open(folder / "youcook_clips.csv", "w", newline="") as file:
        csv.writer(file).writerows([("video_id", "path", "start", "end"), ("one_0", "one.mp4", 0, 1)])
    (folder / "my_transcripts").mkdir()
    for name in "ab":
        words = "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na red star falls\n"
        (folder / f"my_transcripts/{name}.vtt").write_text(words)
    _write_models(folder)
    _write_logs(folder)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split()


def _write_frames(folder: Path) -> None:
    """Write published files of frames, VIOLET's and LAVENDER's, and the frame store that a page reads from Python."""
    jpeg = encode_jpeg(np.full((36, 48, 3), 90, np.uint8), 90)
    picture = base64.b64encode(jpeg).decode()
    shutil.rmtree(folder / "data/msrvtt/frames")
    with FrameStoreWriter(folder / "data/msrvtt/frames") as writer:
        writer.append("video7010", [jpeg])
    (folder / "_data").mkdir()
    for place in ("_data/img_msrvtt.pkl", "img_msrvtt.pkl"):
        (folder / place).write_bytes(pickle.dumps({"video7010": [picture, picture]}))
    for number in range(2):
        (folder / f"webvid2.5m_train_{number}.tsv").write_text(f"clip{number}\t{picture}\t{picture}\n")
    (folder / "img_msvd.tsv").write_text(f"vid1\tvid1\t{picture}\t{picture}\n")
    (folder / "img_msvd.id2lineidx.pkl").write_bytes(pickle.dumps({"vid1": 0}))


def _write_jobs(folder: Path) -> None:
    """Write the jobs that the page of one's own corpus shows."""
    page = (REPOSITORY / "docs/own_corpus.md").read_text(encoding="utf-8")
    for name, text in re.findall(r"^```yaml\n# (\w+\.yaml)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE):
        (folder / name).write_text(text, encoding="utf-8")


def _write_logs(folder: Path) -> None:
    """Write the logs of trainings that tell how long an update takes."""
    for system in ("videoclip", "violet"):
        log = folder / f"runs/compare_rates/seed1/{system}/log.txt"
        log.parent.mkdir(parents=True)
        points = ({"epoch": 1, "num_updates": str(update), "wall": str(update / 10)} for update in (10, 600))
        log.write_text("".join(json.dumps(point) + "\n" for point in points))


def _write_models(folder: Path) -> None:
    (folder / "pretrained_models").mkdir(exist_ok=True)
    torch.save(random_s3d(0).state_dict(), folder / "pretrained_models/s3d_howto100m.pth")
    features = folder / "data/demo/feat_conv3d"
    features.mkdir(parents=True)
    manifest = {"version": 1, "provenance": SmallConv3dEncoder().provenance(), "videos": {}}
    (features / "manifest.json").write_text(json.dumps(manifest))
    for run in ("runs/demo", "runs/demo/vtt"):
        write_run(folder / run, "MMFusionSeparate", str(features))
    (folder / "runs/retri/videoclip").mkdir(parents=True)
    for number in range(1, 6):
        shutil.copy(folder / "runs/demo/vtt/checkpoint_best.pt", folder / f"runs/retri/videoclip/checkpoint{number}.pt")


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder, as commands that are typed there do."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with mock.patch.dict(os.environ, {"PYTHONPATH": str(REPOSITORY)}):
            yield
    finally:
        os.chdir(before)


@cache
def main_of(script: tuple[str, ...]) -> Callable[[Sequence[str]], int]:
    """Return the ``main`` of a script, ``("scripts/a.py",)``, or of a module, ``("-m", "mmpt_cli.jobs")``."""
    if script[0] == "-m":
        return importlib.import_module(script[1]).main  # type: ignore[no-any-return]
    names = runpy.run_path(str(REPOSITORY / script[0]))
    if "main" not in names and "run_module" in names:  # a file of works: all of them have one command line
        return partial(names["run_module"], script[0], "")
    return names["main"]  # type: ignore[no-any-return]


def call(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> tuple[int, str]:
    """Call a command; return its exit code and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main(list(arguments))
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
    return int(code or 0), said.getvalue()


def run(command: Command, folder: Path) -> tuple[int, str]:
    """Run a command of a page in a folder; return its exit code and what it said.

    Launches are dry runs: they write their jobs and print commands. What a script writes to is removed before, for
    several pages write to one place by different means. The web page is served at a free port, and ends when it was got
    once.
    """
    argv = [word.replace("/tmp/tiny", "tiny").replace("$OLDPWD/", "") for word in command.argv]
    if argv[0] == "cd":
        folder, argv = folder / argv[1], argv[argv.index("&&") + 1 :]
    script = script_of(Command(command.page, tuple(argv)))
    with inside(folder):
        if argv[0].endswith("mmpt") and argv[1] == "app":
            return serve_once(argv[1:])
        if argv[0].endswith("mmpt"):
            return call(mmpt, argv[1:])
        if script[0].endswith("locallaunch.py"):
            dry = [] if {"--dryrun", "--cancel"} & set(argv) else ["--dryrun"]
            return call(launch.main, [*argv[1 + len(script) :], *dry])
        if "extractor" in script[0] and "export" not in script[0]:
            for flag in {"--store", "--fdir"} & set(argv):
                if flag != "--fdir" or "--sdir" not in argv:
                    shutil.rmtree(argv[argv.index(flag) + 1], ignore_errors=True)
        with contextlib.nullcontext() if _REAL_S3D in argv else mock.patch.object(S3DEncoder, "encode", _made_up):
            return call(main_of(script), argv[1 + len(script) :])


def serve_once(words: Sequence[str]) -> tuple[int, str]:
    """Run ``mmpt app`` until the page has been got from it; fail if it is not whole, or something was not loaded."""
    import uvicorn

    serve, answered = uvicorn.Server.run, []

    def served(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        asking = threading.Thread(target=_ask, args=(self, sockets[0].getsockname()[1], answered))
        asking.start()
        serve(self, sockets)
        asking.join()

    kept = dict(os.environ)  # the page sets what gradio reads
    try:
        with mock.patch.object(uvicorn.Server, "run", served):
            code, said = call(mmpt, [*words, "--port", "0"])
    finally:
        os.environ.clear()
        os.environ.update(kept)
    whole = [status == 200 and b"<gradio-app" in content for status, content in answered] == [True]
    return (code if whole and "not loaded" not in said else 1), f"{said}\n{answered}"


def _ask(server: Any, port: int, answered: list[tuple[int, bytes]]) -> None:
    """Get the page as soon as it is served, then end it."""
    try:
        while not server.started and not server.should_exit:
            time.sleep(0.02)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as reply:
            answered.append((reply.status, reply.read()))
    finally:
        server.should_exit = True


def _made_up(self: S3DEncoder, video: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(video), 512)
