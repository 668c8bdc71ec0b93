"""The caption files of SwinBERT (Lin et al. 2022, arXiv:2111.13196), in which LAVENDER's captioning data come.

A YAML names the files of one split, each relative to its own folder:

    img                    frames, one video a line; not read here
    label                  not read here
    caption                ``key \\t JSON list of {"caption": text, ..}``, one video a line, in the order of the frames
    caption_linelist       ``video line \\t caption number``, both from 0: one line per item of a training
    caption_coco_format    JSON ``{"images": [{"id"}, ..], "annotations": [{"image_id", "caption"}, ..]}``
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mmpt.utils.config import read_yaml
from mmpt.utils.errors import DataError
from mmpt.utils.files import read_json
from mmpt.utils.safe_paths import plain_name

__all__ = [
    "CaptionFiles",
    "CaptionRow",
    "read_caption_rows",
    "read_caption_yaml",
    "read_coco_captions",
    "read_linelist",
    "video_id_of_key",
]

#: A video's id and its captions.
CaptionRow = tuple[str, list[str]]

_NUMBER = re.compile(r"[0-9]{1,12}")
_VIDEO_SUFFIXES = {".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}


@dataclass(frozen=True)
class CaptionFiles:
    """The files that a YAML names; None where it does not."""

    source: Path
    caption: Path | None
    linelist: Path | None
    coco: Path | None


def video_id_of_key(key: Any, source: str | os.PathLike[str]) -> str:
    """Return the video id of a row's key, which may be the path of the video file.

    Raises:
        UnsafePathError: if that is no plain name; names the source.
    """
    path = PurePosixPath(str(key))
    name = path.stem if path.suffix.lower() in _VIDEO_SUFFIXES else path.name
    return plain_name(name, source)


def read_caption_yaml(path: str | os.PathLike[str]) -> CaptionFiles:
    """Read which files hold the captions of a split.

    Raises:
        ConfigError: if the file is no YAML mapping.
        DataError: if it is of SwinBERT's composite mode, names no captions, or a file that is not there.
    """
    content = read_yaml(path)
    if content.get("composite"):
        raise DataError(
            f"{path}: composite: true (lists of several TSVs) is not supported; write a YAML per TSV, or a corpus file"
        )
    found: dict[str, Path | None] = {}
    for key in ("caption", "caption_linelist", "caption_coco_format"):
        name = content.get(key)
        if name is not None and not isinstance(name, str):
            raise DataError(f"{path}: {key}: {name!r} is not the name of a file")
        found[key] = Path(path).parent / name if name else None
        if name and not os.path.isfile(Path(path).parent / name):  # Path.is_file raises for a name that is too long
            raise DataError(f"{path}: {key}: no such file: {found[key]}")
    if not found["caption"] and not found["caption_coco_format"]:
        raise DataError(f"{path}: names neither caption nor caption_coco_format")
    return CaptionFiles(Path(path), found["caption"], found["caption_linelist"], found["caption_coco_format"])


def read_caption_rows(path: str | os.PathLike[str]) -> list[CaptionRow]:
    """Read the video and the captions of every line of a caption TSV.

    Raises:
        DataError: if the file cannot be read or a line is anything else; names file and line.
    """
    rows = []
    for place, cells in _rows(path):
        try:
            entries = json.loads(cells[1])
            captions = [entry["caption"] for entry in entries]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f'{place}: not a JSON list of {{"caption": ..}} ({error!r})') from error
        if not all(isinstance(caption, str) for caption in captions):
            raise DataError(f"{place}: a caption is no text")
        rows.append((video_id_of_key(cells[0], place), captions))
    return rows


def read_linelist(path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """Read the line of the video and the number of its caption, from 0, of every line.

    Raises:
        DataError: if the file cannot be read or a line is anything else; names file and line.
    """
    pairs = []
    for place, (video, caption) in _rows(path):
        if not (_NUMBER.fullmatch(video.strip()) and _NUMBER.fullmatch(caption.strip())):
            raise DataError(f"{place}: expected the numbers of a video and a caption, not {video!r} and {caption!r}")
        pairs.append((int(video), int(caption)))
    return pairs


def read_coco_captions(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Read video id -> captions of a COCO caption file, in its order; a video of ``images`` may have none.

    Raises:
        DataError: if the file is anything else; names it.
    """
    content = read_json(path)
    captions: dict[str, list[str]] = {}
    if not isinstance(content, Mapping) or not isinstance(content.get("annotations"), list):
        raise DataError(f"{path}: not a COCO caption file: no list 'annotations'")
    try:
        for image in content.get("images") or ():
            captions.setdefault(video_id_of_key(image["id"], path), [])
        for entry in content["annotations"]:
            if not isinstance(entry["caption"], str):
                raise TypeError(f"a caption is no text: {entry['caption']!r}")
            captions.setdefault(video_id_of_key(entry["image_id"], path), []).append(entry["caption"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a COCO caption file ({error!r})") from error
    return captions


def _rows(path: str | os.PathLike[str]) -> list[tuple[str, list[str]]]:
    """Return the place and the two cells of every line; blank ones are passed over."""
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            cells = line.rstrip("\r").split("\t", 1)
            if len(cells) != 2:
                raise DataError(f"{path}: line {number}: expected two cells with a tab between them")
            rows.append((f"{path}: line {number}", cells))
    return rows
