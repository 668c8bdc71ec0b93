"""The published files that the systems can use: which there are, and whether what is here is what it should be.

A manifest (``weights.yaml``) holds what the papers' own code says of each. Sizes and checksums that nobody published
are not made up: what is here is told by what it holds.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.api.outputs import Plain
from mmpt.modules.visual_tokenizer import load_visual_tokenizer
from mmpt.utils.errors import CheckpointError, DataError, MMPTError, nearest
from mmpt.utils.files import file_sha256, read_json
from mmpt.utils.npy import read_npy
from mmpt.utils.weight_files import load_state_dict_file

__all__ = [
    "DEFAULT_ROOT",
    "MANIFEST",
    "Checked",
    "WeightFile",
    "check_file",
    "entry_named",
    "files_there",
    "published",
    "verify",
]

#: Where the files are looked for.
DEFAULT_ROOT = "pretrained_models"
MANIFEST = Path(__file__).with_name("weights.yaml")
_WEIGHTS = (".pt", ".pth", ".bin", ".safetensors")


@dataclass(frozen=True)
class WeightFile(Plain):
    """A published file, or files that belong together.

    Attributes:
        name: what the commands call it.
        systems: those that use it.
        what: it is.
        kind: weights, tensorflow (a checkpoint of several files), module (a pickled network), array, folder, text.
        files: paths below the folder of weights; a ``*`` stands for the rest of a name.
        read_by: the config key or the call that takes it.
        source: where this is said.
        host_gone: whether its host is reported to be gone, or taken over.
        published_as: names that the files had where they were published, if others.
        tensors: how many there are of the model, if it is known.
        parameters: how many numbers, likewise.
        size: in bytes, of each of ``files``, if it is known.
        sha256: likewise.
        licence: likewise.
    """

    name: str
    systems: list[str]
    what: str
    kind: str
    files: list[str]
    read_by: str
    source: str
    host_gone: bool = False
    published_as: list[str] | None = None
    tensors: int | None = None
    parameters: int | None = None
    size: list[int] | None = None
    sha256: list[str] | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Checked(Plain):
    """A file that is here: what it is, and what is wrong with it, if anything (``fault``)."""

    name: str
    path: str
    size: int
    sha256: str
    compared: bool
    tensors: int | None = None
    parameters: int | None = None
    fault: str = ""


def published() -> list[WeightFile]:
    """Return the manifest.

    Raises:
        DataError: if a copy of it was edited and is no longer one.
    """
    import yaml

    entries = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["files"]
    try:
        return [WeightFile(**entry) for entry in entries]
    except TypeError as error:
        raise DataError(f"{MANIFEST}: {error}") from error


def entry_named(name: str) -> WeightFile:
    """Return an entry of the manifest by its name.

    Raises:
        MMPTError: if there is none; names the nearest.
    """
    entries = {entry.name: entry for entry in published()}
    if name not in entries:
        raise MMPTError(f"{name!r} is no published file that is known here.{nearest(name, entries)} See: mmpt weights")
    return entries[name]


def verify(root: str | os.PathLike[str] = DEFAULT_ROOT, names: Sequence[str] = ()) -> Iterator[Checked]:
    """Look at what is below a folder of the manifest, file by file; ``names`` restricts it.

    Raises:
        MMPTError: if a name is unknown, or there is no such folder.
    """
    entries = [entry_named(name) for name in names] or published()
    if not Path(root).is_dir():
        raise MMPTError(f"{root}: there is no such folder; --root names the one where the weights are")
    for entry, number, path in files_there(root, entries):
        yield check_file(entry, path, number)


def files_there(root: str | os.PathLike[str], entries: Sequence[WeightFile]) -> Iterator[tuple[WeightFile, int, Path]]:
    """Yield the files of entries that are below a folder: the entry, which of its files, and the path."""
    claimed = {file for entry in entries for file in entry.files}
    for entry in entries:
        for number, pattern in enumerate(entry.files):
            for path in sorted(Path(root).glob(pattern)):
                relative = path.relative_to(root).as_posix()
                own = "*" not in pattern or relative not in claimed
                if path.is_file() and own:
                    yield entry, number, path


def check_file(entry: WeightFile, path: Path, number: int = 0, sha256: str | None = None) -> Checked:
    """Say of a file whether it is number ``number`` of an entry: its size, checksum, and whether it can be read.

    Args:
        sha256: what it must be, in place of what the manifest says.
    """
    size, found = path.stat().st_size, file_sha256(path)
    known_size = entry.size[number] if entry.size else None
    known = sha256 or (entry.sha256[number] if entry.sha256 else None)
    fault, tensors, parameters = "", None, None
    if known_size is not None and size != known_size:
        fault = f"has {size} bytes, not {known_size}"
    elif known is not None and found != known.lower():
        fault = f"its sha256 is {found}, not {known.lower()}"
    else:
        try:
            tensors, parameters = _content(entry, path)
        except (CheckpointError, DataError) as error:
            fault = str(error)
    return Checked(entry.name, str(path), size, found, known is not None, tensors, parameters, fault)


def _content(entry: WeightFile, path: Path) -> tuple[int | None, int | None]:
    """Read a file as what it should be; return its tensors and numbers where it has any."""
    if entry.kind == "tensorflow":
        # The tensors are in the data files; the index says where. Once is enough.
        if path.suffix != ".index":
            return None, None
        return _counted(entry, load_state_dict_file(path), path)
    if entry.kind == "module":
        return _counted(entry, load_visual_tokenizer(path).state_dict(), path)
    if entry.kind == "weights" or (entry.kind == "folder" and path.suffix in _WEIGHTS):
        return _counted(entry, load_state_dict_file(path), path)
    if entry.kind == "array":
        return 1, int(read_npy(path).size)
    if entry.kind == "bytes":
        return None, None
    if path.suffix == ".json":
        read_json(path)
    else:
        _read_text(path)
    return None, None


def _counted(entry: WeightFile, state: dict[str, Any], path: Path) -> tuple[int, int]:
    tensors, numbers = len(state), sum(value.numel() for value in state.values())
    if entry.tensors is not None and tensors != entry.tensors:
        raise CheckpointError(f"{path}: holds {tensors} tensors; {entry.what}, has {entry.tensors}")
    return tensors, numbers


def _read_text(path: Path) -> None:
    try:
        if not path.read_text(encoding="utf-8").strip():
            raise DataError(f"{path}: is empty")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error})") from error
