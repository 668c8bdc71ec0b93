"""The record beside a folder of features or frames: what was extracted, from what, with which settings.

``manifest.json`` holds the settings once and one entry per video. While a run is under way each
finished video is appended to ``manifest.journal``, so that a killed run loses nothing and a corpus
of a million videos is not rewritten a million times; the next run folds the journal in.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmpt.utils.errors import DataError, StorageError, shown
from mmpt.utils.files import read_json, write_json, writing

__all__ = ["Manifest", "file_identity", "read_entries", "read_provenance"]

_VERSION = 1
_ATTEMPTS = 20
_NOT_COMPARED = ("decoder",)  # a new version of the decoder may go on with an old folder


def read_provenance(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the settings that a folder's features were made with, None if it does not say.

    Raises:
        DataError: if its manifest is damaged; names it.
    """
    manifest, journal = Path(folder) / "manifest.json", Path(folder) / "manifest.journal"
    if manifest.exists():
        stored = read_json(manifest)
        found = stored.get("provenance") if isinstance(stored, dict) else None
        return found if isinstance(found, dict) else None
    if journal.exists():  # of a run that was killed, or is under way
        with open(journal, "rb") as file:
            return (_parsed(file.readline()) or {}).get("provenance")
    return None


def read_entries(folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Return the entries by video id as of the last record, without writing anything, also while a run is under way.

    Raises:
        DataError: if the manifest is damaged; names it.
    """
    manifest, journal = Path(folder) / "manifest.json", Path(folder) / "manifest.journal"
    for _ in range(_ATTEMPTS):
        before = file_identity(manifest)
        stored = read_json(manifest) if before else {}
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
        if file_identity(manifest) == before:  # else the writer has folded the journal in meanwhile
            break
    videos = stored.get("videos", {}) if isinstance(stored, dict) else None
    if not isinstance(videos, dict) or not all(map(_is_entry, videos.values())):
        raise DataError(f"{manifest}: not a manifest of version {_VERSION}, or damaged")
    return videos | _entries_of(lines)


def _entries_of(lines: list[bytes]) -> dict[str, dict[str, Any]]:
    """Return the entries on lines of a journal; the video of a damaged line is looked at again."""
    parsed = filter(None, map(_parsed, lines))
    return {line.pop("id"): line for line in parsed if isinstance(line.get("id"), str) and _is_entry(line)}


def file_identity(file: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced, None if there is none."""
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


class Manifest:
    """Entries by video id, kept on disk in a folder of features.

    Args:
        folder: of the features.
        provenance: settings that all features of the folder share.

    Raises:
        DataError: if the folder was made with other settings, or its manifest is damaged; names it.
    """

    def __init__(self, folder: str | os.PathLike[str], provenance: Mapping[str, Any]) -> None:
        self.path = Path(folder) / "manifest.json"
        self.journal = Path(folder) / "manifest.journal"
        self.provenance = json.loads(json.dumps(provenance))
        self.entries: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            stored = read_json(self.path)
            parts = [stored.get(key) for key in ("provenance", "videos")] if isinstance(stored, dict) else [None]
            if not all(isinstance(part, dict) for part in parts) or stored.get("version") != _VERSION:
                raise DataError(f"{self.path}: not a manifest of version {_VERSION}")
            self._compare(stored["provenance"])
            self.entries = stored["videos"]
            if wrong := next((video for video, entry in self.entries.items() if not _is_entry(entry)), None):
                raise DataError(f"{self.path}: the entry of video {shown(wrong)} is damaged")
        self._replay()

    def record(self, video_id: str, entry: Mapping[str, Any]) -> None:
        """Set a video's entry and append it to the journal."""
        self.entries[video_id] = dict(entry)
        if not self.journal.exists():
            self.journal.parent.mkdir(parents=True, exist_ok=True)
            self._append({"provenance": self.provenance})
        self._append({"id": video_id, **entry})

    def save(self) -> None:
        """Write ``manifest.json`` atomically and drop the journal that it now contains."""
        videos = dict(sorted(self.entries.items()))
        write_json(self.path, {"version": _VERSION, "provenance": self.provenance, "videos": videos})
        self.journal.unlink(missing_ok=True)

    @contextmanager
    def saved(self) -> Iterator[None]:
        """Save when the block ends, however it ends."""
        try:
            yield
        except BaseException:
            with suppress(StorageError):  # where there is no room for it, the journal has it all
                self.save()
            raise
        self.save()

    def _append(self, line: Mapping[str, Any]) -> None:
        with writing(self.journal), open(self.journal, "a", encoding="utf-8", opener=_not_through_a_link) as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _replay(self) -> None:
        if not self.journal.exists():
            return
        complete = self.journal.read_bytes().split(b"\n")[:-1]  # a torn last line is dropped
        for line in filter(None, map(_parsed, complete)):
            if isinstance(line.get("provenance"), dict):
                self._compare(line["provenance"])
        self.entries |= _entries_of(complete)
        self.save()

    def _compare(self, stored: Mapping[str, Any]) -> None:
        keys = [key for key in {**stored, **self.provenance} if key not in _NOT_COMPARED]
        differing = [key for key in keys if stored.get(key) != self.provenance.get(key)]
        if differing:
            told = "; ".join(f"{key} {stored.get(key)!r}, now {self.provenance.get(key)!r}" for key in differing)
            raise DataError(
                f"{self.path.parent}: what it holds was made with other settings ({told}). "
                "Use another output folder, or remove this one"
            )


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return the object on a line of the journal, None if it is damaged."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("status"), str)


def _not_through_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
