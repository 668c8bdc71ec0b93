"""Files of an index of clips, and its settings.

An index is a folder::

    index.json                 version, settings, model, roots, and the name of the folder of data
    data_00000/manifest.json   entries of videos (:class:`~mmpt.store.extraction_manifest.Manifest`), beside
    data_00000/manifest.journal  those of a run that is under way or was killed
    data_00000/vectors.f16     float16 (rows, dim): a unit vector for each clip, so that dot products are cosines
    data_00000/clips.bin       CLIP (rows,): times, and where the clip's thumbnail is
    data_00000/thumbnails.bin  JPEG files, one behind the other
    data_00000/nearest.*       the faiss index: can be made again from the vectors

The three data files only grow. What an entry does not name is not there: rows of a video under way when its writer was
killed are overwritten by the next, those of replaced and removed videos stay until a compaction. That writes another
folder of data, and ``index.json`` commits it.
"""

import os
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.errors import DataError, shown
from mmpt.utils.files import read_json, write_json

__all__ = [
    "CLIP",
    "CLIPS",
    "INDEX",
    "THUMBNAILS",
    "VECTORS",
    "IndexSettings",
    "data_name",
    "key_of",
    "mending",
    "path_in",
    "recorded_model",
]

INDEX, VECTORS, CLIPS, THUMBNAILS = "index.json", "vectors.f16", "clips.bin", "thumbnails.bin"
#: Seconds of a clip, and the bytes of its thumbnail; none has 0 bytes.
CLIP = np.dtype([("start", "<f8"), ("end", "<f8"), ("thumbnail", "<i8"), ("thumbnail_bytes", "<i8")])
VERSION = 1

_DATA = re.compile(r"data_(\d{5,9})")


@dataclass
class IndexSettings:
    """What an index was made with.

    ``model`` is its path, or its hub id as the user named it; ``fingerprint`` is that of its weights and settings;
    ``roots`` are the absolute folders that entries are below. Times are in seconds, ``thumbnail_pixels`` is a
    thumbnail's shorter side.
    """

    model: str
    system: str
    fingerprint: str
    dim: int
    clip_seconds: float
    stride_seconds: float
    thumbnail_pixels: int = 120
    roots: list[str] = field(default_factory=list)
    data: str = "data_00000"

    def compared(self) -> dict[str, Any]:
        """Return the settings that all clips of an index share."""
        left_out = ("model", "roots", "data")
        return {key: value for key, value in asdict(self).items() if key not in left_out}

    def write(self, folder: Path) -> None:
        """Write ``index.json``, atomically."""
        write_json(folder / INDEX, {"version": VERSION, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> "IndexSettings":
        """Read ``index.json``.

        Raises:
            DataError: if there is none, or it is damaged; names it.
        """
        path = folder / INDEX
        if not path.is_file():
            raise DataError(
                f"{folder}: no index of clips (no {INDEX}). Make one with: mmpt index FOLDER --output {folder}"
            )
        stored = read_json(path)
        kinds = {each.name: each.type for each in fields(cls)}
        if not isinstance(stored, dict) or stored.get("version") != VERSION:
            raise DataError(f"{path}: not an index of clips of version {VERSION}")
        values: dict[str, Any] = {name: stored.get(name) for name in kinds}
        wrong = [name for name, kind in kinds.items() if not _is(values[name], getattr(kind, "__name__", str(kind)))]
        if wrong or not _DATA.fullmatch(str(values["data"])) or values["dim"] < 1:
            raise DataError(f"{path}: damaged ({', '.join(wrong) or 'data, dim'})")
        return cls(**values)


def recorded_model(settings: IndexSettings, folder: Path) -> str:
    """Return the path of the model that an index was made with.

    What an index says is never taken for the id of a hub: whoever made it would choose what is downloaded.

    Raises:
        DataError: if it is no absolute path of what is there; says how to name the model.
    """
    if not os.path.isabs(settings.model) or not os.path.exists(settings.model):
        raise DataError(
            f"{folder}: the model that it was made with cannot be loaded ({shown(settings.model)} is not on this "
            "machine; names of a hub are not believed). Say where it is now: --model SOURCE, or pipeline="
        )
    return settings.model


def _is(value: Any, kind: str) -> bool:
    if kind == "list":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    types: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}
    return isinstance(value, types[kind]) and not isinstance(value, bool)


def data_name(settings: IndexSettings) -> str:
    """Return the name of the folder of data that comes after this one."""
    found = _DATA.fullmatch(settings.data)
    assert found is not None
    return f"data_{int(found[1]) + 1:05d}"


def mending(data: Path) -> str:
    """Return the command that mends the index of a folder of data."""
    return f"mmpt index {data.parent} --repair"


def key_of(root: int, path: str) -> str:
    """Return under which key the manifest has a video: the number of its root, and its path below that."""
    return f"{root}:{path}"


def path_in(key: str, roots: int, source: Path) -> tuple[int, str]:
    """Split a key into the number of its root and the path below it.

    Raises:
        DataError: if it is none, or there is no such root; names the source.
    """
    number, colon, path = key.partition(":")
    if not colon or not number.isdecimal() or len(number) > 6 or int(number) >= roots or not path:
        raise DataError(f"{source}: {shown(key)} is not a video below one of {roots} roots")
    return int(number), path
