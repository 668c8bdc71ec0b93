"""Checks of Python and the packages that MMPT stands on."""

import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mmpt_cli.doctor_findings import Check, Finding, import_problem, installed, pip

__all__ = ["PACKAGE_CHECKS"]

_TRAIN = "make install, or see README.md: fairseq-fixed needs --no-build-isolation --no-deps, after torch"


def python_version() -> Iterator[Finding]:
    """Python is one that MMPT is made for."""
    what = f"Python {platform.python_version()} at {sys.executable}"
    good = (3, 11) <= sys.version_info[:2] < (3, 13)
    yield (
        Finding("ok", what)
        if good
        else Finding("error", f"{what}: 3.11 or 3.12 is needed", "make PYTHON=python3.11 install")
    )


def required_packages() -> Iterator[Finding]:
    """Every package that MMPT's own metadata asks for is there, in the range that it asks for."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("mmpt") or []
    except metadata.PackageNotFoundError:
        yield Finding(
            "note", "mmpt runs from a checkout that is not installed: no mmpt command", pip("install", "-e", ".")
        )
        return
    for requirement in map(Requirement, lines):
        extra = next(iter(re.findall(r"extra == ['\"](\w+)['\"]", str(requirement.marker or ""))), "")
        if extra in ("dev", "docs"):
            continue
        yield _package(requirement.name, str(requirement.specifier), extra)


def _package(name: str, specifier: str, extra: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    version = installed(name)
    install = f"{name}{specifier}"
    fix = pip("install", f"'mmpt[{extra}]'" if extra else f"'{install}'")
    if name == "fairseq-fixed":
        fix = _TRAIN
    if not version:
        what = f"{name} is not installed" + (f" (extra [{extra}])" if extra else "")
        return Finding("note" if extra else "error", what, fix)
    if not SpecifierSet(specifier).contains(version, prereleases=True):
        return Finding("warning" if extra else "error", f"{name} {version}: {specifier} is needed", fix)
    return Finding("ok", f"{name} {version}")


def torch_build() -> Iterator[Finding]:
    """What torch computes on."""
    import torch

    threads = torch.get_num_threads()
    yield Finding("ok", f"torch {torch.__version__}, {threads} threads")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(number)
            bf16 = "bf16" if (major, minor) >= (8, 0) else "no bf16: train with fp16"
            yield Finding("ok", f"GPU {number}: {torch.cuda.get_device_name(number)}, {bf16}")
    elif torch.version.cuda:
        yield Finding("warning", f"torch is built for CUDA {torch.version.cuda} and finds no GPU", "nvidia-smi")
    else:
        yield Finding("note", "torch is a CPU build: all runs, training is slow")


def fairseq() -> Iterator[Finding]:
    """Fairseq, without which nothing is trained, can be imported."""
    if not find_spec("fairseq"):
        yield Finding("note", "fairseq is missing: no training; all else works", _TRAIN)
        return
    if installed("fairseq") and not installed("fairseq-fixed"):
        yield Finding("warning", "fairseq is not fairseq-fixed, which Python 3.11 needs", _TRAIN)
    problem = import_problem("fairseq")
    yield (
        Finding("error", f"fairseq cannot be imported ({problem})", _TRAIN)
        if problem
        else Finding("ok", "fairseq imports")
    )


def audio_and_vision() -> Iterator[Finding]:
    """Torchaudio and torchvision of another torch break transformers, which imports them where they are."""
    for name in ("torchaudio", "torchvision"):
        if installed(name):
            problem = import_problem(name)
            fix = pip("uninstall", "-y", name)
            if problem:
                yield Finding("error", f"{name} does not fit this torch ({problem}); transformers fails with it", fix)
            else:
                yield Finding("ok", f"{name} {installed(name)} imports")
    problem = import_problem("transformers.models.bert.modeling_bert")
    if problem:
        yield Finding(
            "error", f"transformers cannot import BERT ({problem})", pip("install", "--upgrade", "transformers")
        )


def apex() -> Iterator[Finding]:
    """The apex of the package registry is an unrelated package that fairseq takes for NVIDIA's."""
    if find_spec("apex") and not find_spec("apex.multi_tensor_apply"):
        yield Finding("warning", "apex is not NVIDIA's but an unrelated package", pip("uninstall", "-y", "apex"))
    else:
        yield Finding("ok", "apex is NVIDIA's" if find_spec("apex") else "no apex, none is needed")


def video_decoding() -> Iterator[Finding]:
    """PyAV writes a video and reads it back."""
    if not installed("av"):
        yield Finding("note", "av is missing: no videos can be read", pip("install", "'mmpt[video]'"))
        return
    import av
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "tiny.mp4"))
        with av.open(path, "w") as container:
            stream = container.add_stream("mpeg4", rate=4)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for _ in range(4):
                picture = np.full((32, 32, 3), 128, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        with av.open(path) as container:
            count = sum(1 for _ in container.decode(video=0))
    fix = pip("install", "--force-reinstall", "'av>=15,<19'")
    yield (
        Finding("ok", f"av {av.__version__} writes and reads videos")
        if count == 4
        else Finding("error", f"av: 4 frames written, {count} read", fix)
    )


def faiss_search() -> Iterator[Finding]:
    """Faiss adds vectors and finds them."""
    if not (installed("faiss-cpu") or find_spec("faiss")):
        return
    import faiss
    import numpy as np

    index = faiss.IndexFlatIP(4)
    index.add(np.eye(4, dtype=np.float32))
    _, found = index.search(np.eye(4, dtype=np.float32), 1)
    if found[:, 0].tolist() == [0, 1, 2, 3]:
        yield Finding("ok", "faiss adds and finds")
    else:
        yield Finding("error", "faiss does not find what was added", pip("install", "--force-reinstall", "faiss-cpu"))


PACKAGE_CHECKS: tuple[Check, ...] = (
    python_version,
    required_packages,
    torch_build,
    fairseq,
    audio_and_vision,
    apex,
    video_decoding,
    faiss_search,
)
