"""Checks of what stands around MMPT: paths, variables, folders, other programs."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mmpt_cli.doctor_findings import Check, Finding

__all__ = ["MACHINE_CHECKS"]

_SCARCE_GB = 5
#: Larger files take longer to read than one waits for a doctor.
_QUICK_BYTES = 200e6
_SLURM = ("sbatch", "squeue", "scontrol", "scancel")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def copies_of_mmpt() -> Iterator[Finding]:
    """Only one mmpt is on the path: fairseq's --user-dir and installed commands would take different ones."""
    import mmpt

    used = Path(mmpt.__file__).resolve().parent
    places = [Path(entry or ".", "mmpt").resolve() for entry in sys.path]
    others = sorted({str(place) for place in places if (place / "__init__.py").is_file()} - {str(used)})
    yield Finding("ok", f"mmpt {mmpt.__version__} at {used}")
    for other in others:
        fix = f"{sys.executable} -m pip uninstall -y mmpt, or run in the folder of the copy you mean"
        yield Finding("warning", f"another mmpt is on the path: {other}", fix)


def thread_variables() -> Iterator[Finding]:
    """MKL and OpenMP agree on their threads."""
    layer = os.environ.get("MKL_THREADING_LAYER", "")
    if layer.upper() not in ("", "GNU"):
        fix = "export MKL_THREADING_LAYER=GNU"
        yield Finding("warning", f"MKL_THREADING_LAYER is {layer}: incompatible with libgomp, workers may die", fix)
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads and (not threads.replace(",", "").isdigit() or int(threads.split(",")[0]) > (os.cpu_count() or 1)):
        what = f"OMP_NUM_THREADS is {threads}, and there are {os.cpu_count()} cores"
        yield Finding("warning", what, f"export OMP_NUM_THREADS={os.cpu_count()}")
    elif layer.upper() in ("", "GNU"):
        yield Finding("ok", f"{os.cpu_count()} cores; MKL_THREADING_LAYER and OMP_NUM_THREADS are no obstacle")


def folders() -> Iterator[Finding]:
    """There is room, and one may write, where runs and temporary files go."""
    for folder in dict.fromkeys([os.getcwd(), tempfile.gettempdir()]):
        free = shutil.disk_usage(folder).free / 1e9
        if not os.access(folder, os.W_OK):
            yield Finding("error", f"{folder}: cannot be written to", f"chmod u+w {folder}")
        elif free < _SCARCE_GB:
            yield Finding("warning", f"{folder}: {free:.1f} GB are free", f"du -h {folder} | sort -h | tail")
        else:
            yield Finding("ok", f"{folder}: writable, {free:.0f} GB are free")


def hubs() -> Iterator[Finding]:
    """Whether the hubs' clients may go online."""
    for name in _OFFLINE:
        if os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON"):
            yield Finding("note", f"{name} is set: models come from local files only", f"unset {name}")


def slurm() -> Iterator[Finding]:
    """Slurm's commands are there, all or none."""
    missing = [name for name in _SLURM if not shutil.which(name)]
    if len(missing) == len(_SLURM):
        yield Finding("note", "no Slurm here: jobs run on this machine")
    elif missing:
        yield Finding("warning", f"Slurm without {', '.join(missing)}", "sudo apt-get install -y slurm-client")
    else:
        yield Finding("ok", "Slurm's commands are there")


def java() -> Iterator[Finding]:
    """METEOR and the tokenizer of caption metrics are Java programs."""
    if shutil.which("java"):
        yield Finding("ok", "java is there, for METEOR")
    else:
        yield Finding(
            "note", "no java: captions are scored without METEOR", "sudo apt-get install -y default-jre-headless"
        )


def repository() -> Iterator[Finding]:
    """The projects and scripts of the repository are there, with git or without."""
    from mmpt.utils.files import REPOSITORY

    if not (REPOSITORY / "projects").is_dir():
        what = "mmpt is installed without its repository: models can be used, projects/ and scripts/ are not here"
        yield Finding("note", what, "unpack the repository, and in it: make install")
        return
    revision = _revision(REPOSITORY)
    yield Finding("ok", f"repository at {REPOSITORY}, {f'revision {revision}' if revision else 'without git'}")


def _revision(folder: Path) -> str:
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return ""
    command = [git, "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def published_weights() -> Iterator[Finding]:
    """The published files that are here can be read, and are what they should be; large ones are only counted."""
    from mmpt.api.weights import DEFAULT_ROOT, check_file, files_there, published

    names, large = set(), 0
    for entry, number, path in files_there(DEFAULT_ROOT, published()):
        names.add(entry.name)
        if path.stat().st_size > _QUICK_BYTES:
            large += 1
            continue
        checked = check_file(entry, path, number)
        if checked.fault:
            yield Finding(
                "error",
                f"{path} ({entry.name}): {checked.fault}",
                f"mmpt weights fetch {entry.name} --force --mirror URL",
            )
    rest = f"; {large} large files were not read: mmpt weights verify" if large else ""
    if names:
        yield Finding("ok", f"published weights in {DEFAULT_ROOT}: {', '.join(sorted(names))}{rest}")
    else:
        yield Finding("note", f"no published weights in {DEFAULT_ROOT}: models of your own need none", "mmpt weights")


MACHINE_CHECKS: tuple[Check, ...] = (
    copies_of_mmpt,
    repository,
    thread_variables,
    folders,
    published_weights,
    hubs,
    slurm,
    java,
)
