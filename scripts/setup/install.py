#!/usr/bin/env python3
"""Create .venv beside the Makefile and install the pinned requirements and MMPT itself into it.

    python3.11 scripts/setup/install.py

`make install`, `make demo` and `make test` call this. Where everything is in place it returns at once and
installs nothing: .venv/.mmpt-installed holds a digest of the requirement files. An installation that was
interrupted is begun again from an empty .venv; a .venv that you made yourself is only added to, so that
whatever build of torch 2.13.0 you put there stays. Needs nothing but the standard library, a C++ compiler
and the headers of Python.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".mmpt-installed"
OWN = VENV / ".mmpt-created"
REQUIREMENTS = ROOT / "requirements"
FAIRSEQ = "fairseq-fixed"
SUPPORTED = ((3, 11), (3, 13))
APT_LINE = "sudo apt-get install -y git make g++ python3.11 python3.11-dev python3.11-venv"


class SetupError(Exception):
    """Report what stops the installation and what to do about it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Install what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether everything is installed (exit code 0)")
    arguments = parser.parse_args(argv)
    wanted = _wanted()
    if _installed() == wanted:
        return 0
    if arguments.check:
        print("not installed, or the requirements have changed: run make install")
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the build in the background ends too
    try:
        with _locked():
            if _installed() != wanted:  # another make may have done it while this one waited
                _install(wanted)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the next call begins again", file=sys.stderr)
        return 130
    return 0


def _wanted() -> dict[str, str]:
    """Return what the stamp of a complete installation says: where, and the content that decided it."""
    digest = hashlib.sha256()
    for path in (*sorted(REQUIREMENTS.glob("*.txt")), ROOT / "pyproject.toml", ROOT / "setup.py"):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return {"venv": str(VENV), "requirements": digest.hexdigest()}


def _installed() -> dict[str, str]:
    if not PYTHON.exists():
        return {}
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Let one installation run at a time: `make -j test demo`, or two terminals, wait for each other."""
    handle = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _install(wanted: dict[str, str]) -> None:
    began = time.monotonic()
    _check_machine()
    moved = _installed().get("venv", str(VENV)) != str(VENV)
    if OWN.exists() and (moved or not STAMP.exists() or not PYTHON.exists()):
        _say("removing an incomplete .venv")
        shutil.rmtree(VENV)
    STAMP.unlink(missing_ok=True)  # from here until the end this installation counts as interrupted
    if not PYTHON.exists():
        _say(f"creating .venv with Python {sys.version.split()[0]}")
        VENV.mkdir(exist_ok=True)
        OWN.touch()
        _run([sys.executable, "-m", "venv", str(VENV)])
    _say("installing torch, numpy and what builds fairseq")
    _pip("install", "--no-build-isolation", "-r", str(REQUIREMENTS / "build.txt"))
    with _fairseq_build() as build:
        _say("installing the other requirements" + (", while fairseq builds (about 1-3 minutes)" if build else ""))
        _pip("install", "--no-build-isolation", "-r", str(REQUIREMENTS / "main.txt"))
        if build:
            build.install()
    _say("installing MMPT itself")
    _pip("install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    temporary = STAMP.with_suffix(".part")
    temporary.write_text(json.dumps(wanted))
    os.replace(temporary, STAMP)
    _say(f"installed in {time.monotonic() - began:.0f} s")


def _check_machine() -> None:
    """Say now what would otherwise fail minutes later.

    Raises:
        SetupError: if this Python or the compiler does not do; names the packages to install.
    """
    low, high = SUPPORTED
    if not low <= sys.version_info[:2] < high:
        raise SetupError(f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}. {APT_LINE}")
    missing = []
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        missing.append(f"the headers of Python ({header})")
    if not any(shutil.which(name) for name in ("g++", "c++")):
        missing.append("a C++ compiler (g++)")
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        missing.append("Python's venv")
    if missing:
        raise SetupError(f"missing: {', '.join(missing)}. On Debian and Ubuntu: {APT_LINE}")


class _Build:
    """A wheel of fairseq being built in the background."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = VENV / "fairseq-build.log"
        options = [
            "--no-deps",
            "--no-build-isolation",
            "-v",
            "-w",
            str(folder),
            "-r",
            str(REQUIREMENTS / "fairseq.txt"),
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(PYTHON), "-m", "pip", "wheel", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_build_environment(),
                start_new_session=True,  # so that stop() reaches the compilers too
            )

    def stop(self) -> None:
        """End a build that is still going on."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()

    def install(self) -> None:
        """Wait for the wheel and install it.

        Raises:
            SetupError: if the build failed; shows the end of its log.
        """
        if self.process.wait() != 0:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
            raise SetupError(f"fairseq could not be built:\n{tail}\nThe whole log: {self.log}")
        _pip("install", "--no-deps", *map(str, self.folder.glob("*.whl")))


@contextlib.contextmanager
def _fairseq_build() -> Iterator[_Build | None]:
    """Start building fairseq unless the pinned version is installed; stop the build if anything else fails."""
    (pin,) = (line.strip() for line in (REQUIREMENTS / "fairseq.txt").open() if line.startswith(FAIRSEQ))
    query = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    found = subprocess.run([str(PYTHON), "-c", query, FAIRSEQ], capture_output=True, text=True, check=False)
    if f"{FAIRSEQ}=={found.stdout.strip()}" == pin:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        build = _Build(Path(folder))
        try:
            yield build
        finally:
            build.stop()


def _build_environment() -> dict[str, str]:
    """Return the environment of fairseq's build, made the same on every machine.

    * CUDA_HOME makes its setup.py ask for CUDA sources that the source distribution does not carry.
    * READTHEDOCS makes it leave out the compiled batching that training needs.
    * Most of the build's time goes into three extensions that include all of torch and that MMPT never
      calls; with -O1 instead of the interpreter's -O2 -g it takes half as long. The extensions that
      training does use set their own -O3 after these flags. (Building extensions in parallel would be
      faster still, but torch's build then overwrites its own ninja files now and then.)
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("CUDA_HOME", "READTHEDOCS")}
    for key in ("CFLAGS", "CXXFLAGS"):
        environment[key] = f"{environment.get(key, '')} -O1 -g0".strip()
    return environment


def _pip(*arguments: str) -> None:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    _run([str(PYTHON), "-m", "pip", arguments[0], *quiet, *arguments[1:]])


def _run(command: list[str]) -> None:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if result.returncode != 0:
        raise SetupError(f"this failed (exit code {result.returncode}): {' '.join(command)}")


def _say(message: str) -> None:
    print(f"[setup] {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
