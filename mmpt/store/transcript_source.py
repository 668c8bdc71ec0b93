"""Where the transcripts of many videos lie: a folder of files, or one file of all."""

import contextlib
import json
import os
import re
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from mmpt.store.transcripts import TranscriptFile
from mmpt.store.word_times import SUFFIXES, SpokenText, parse_spoken, read_spoken
from mmpt.utils.errors import DataError

__all__ = ["TranscriptSource", "open_transcripts"]

#: A language as ``.en``, ``.pt-BR`` or ``.en-orig``.
_LANGUAGE = re.compile(r"\.[a-z]{2,3}(?:-[a-z0-9]{1,12})*", re.IGNORECASE)
#: What downloaders write beside transcripts: facts about the video, and its chat.
_NO_TRANSCRIPTS = (".info.json", ".live_chat.json")


class TranscriptSource(ABC):
    """Transcripts by video id."""

    @abstractmethod
    def __contains__(self, video_id: object) -> bool:
        """Tell whether there is a transcript of a video."""

    @abstractmethod
    def __getitem__(self, video_id: str) -> SpokenText:
        """Return the transcript of a video.

        Raises:
            DataError: if there is none or it is malformed; names the file, and line or word.
        """

    @abstractmethod
    def ids(self) -> list[str]:
        """Return the ids of all videos that have one."""

    @abstractmethod
    def stamp(self, video_id: str) -> str | None:
        """Return what is otherwise once the transcript of a video has changed; None where there is none."""


def open_transcripts(path: str | os.PathLike[str]) -> TranscriptSource:
    """Open transcripts of many videos.

    Args:
        path: a folder of ``<id>.json``, ``<id>.vtt`` or ``<id>.srt`` files, also with a language between
            (``<id>.en.vtt``; ``<id>.info.json`` is none); a ``.jsonl`` file of one video a line, which names its id; a
            ``.json`` file or pickle of many videos by id, as HowTo100M's; or a single ``.srt`` or ``.vtt`` file.

    Raises:
        DataError: if there is nothing there, or it is none of these; names it.
    """
    place = Path(path)
    if place.is_dir():
        return _Folder(place)
    if not place.exists():
        raise DataError(f"{path}: no such folder or file of transcripts")
    if place.suffix.lower() == ".jsonl":
        return _Lines(place)
    if place.suffix.lower() in (".srt", ".vtt"):
        return _Folder(place.parent, only=place)
    return _OneFile(place)


class _Folder(TranscriptSource):
    def __init__(self, folder: Path, only: Path | None = None) -> None:
        self.folder = folder
        self._files: dict[str, Path] = {}
        names = [only.name] if only is not None else sorted(entry.name for entry in os.scandir(folder))
        ranked = sorted((name for name in names if _may_be_transcript(name)), key=_rank)
        for name in ranked:  # what is more telling comes first
            self._files.setdefault(name[: -len(Path(name).suffix)], folder / name)
        for name in ranked:
            stem, language = os.path.splitext(name[: -len(Path(name).suffix)])
            if _LANGUAGE.fullmatch(language):
                self._files.setdefault(stem, folder / name)
        if not self._files:
            raise DataError(f"{folder}: holds no transcripts ({', '.join(SUFFIXES)})")

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._files

    def __getitem__(self, video_id: str) -> SpokenText:
        if video_id not in self._files:
            raise DataError(f"{self.folder}: no transcript of video {video_id!r} ({', '.join(SUFFIXES)})")
        return read_spoken(self._files[video_id])

    def ids(self) -> list[str]:
        return sorted({file: name for name, file in sorted(self._files.items(), reverse=True)}.values())

    def stamp(self, video_id: str) -> str | None:
        if video_id not in self._files:
            return None
        with contextlib.suppress(OSError):
            status = os.stat(self._files[video_id])
            return f"{self._files[video_id].name} {status.st_size} {status.st_mtime_ns}"
        return None


def _rank(name: str) -> tuple[int, bool, str]:
    suffix = Path(name).suffix
    english = os.path.splitext(name[: -len(suffix)])[1].lower().startswith(".en")
    return SUFFIXES.index(suffix.lower()), not english, name


def _may_be_transcript(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.lower().endswith(_NO_TRANSCRIPTS)


class _OneFile(TranscriptSource):
    def __init__(self, path: Path) -> None:
        self._file = TranscriptFile(path)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._file

    def __getitem__(self, video_id: str) -> SpokenText:
        return parse_spoken(_unpacked(self._file.raw(video_id)), f"{self._file.path}: video {video_id!r}")

    def ids(self) -> list[str]:
        return self._file.ids()

    def stamp(self, video_id: str) -> str | None:
        return f"crc32 {zlib.crc32(self._file.raw(video_id).encode()):08x}" if video_id in self else None


def _unpacked(raw: str) -> str:
    """Return the JSON of an entry that is itself a string of JSON, as pickles of captions hold them."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(raw)
        return value if isinstance(value, str) else raw
    return raw


class _Lines(TranscriptSource):
    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int, int]] = {}  # line, offset and length in bytes
        offset = 0
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    self._places.setdefault(self._id_of(line, number), (number, offset, len(line)))
                offset += len(line)
        if not self._places:
            raise DataError(f"{path}: holds no videos")

    def _id_of(self, line: bytes, number: int) -> str:
        where = f"{self.path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error})") from error
        held: dict[str, Any] = value if isinstance(value, dict) else {}
        given = held.get("info")
        info: dict[str, Any] = given if isinstance(given, dict) else held
        found = next((info[key] for key in ("id", "video_id") if isinstance(info.get(key), str)), None)
        if found is None:
            raise DataError(f'{where}: does not say which video it is of ("video_id", or "id" in "info")')
        return found

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._places

    def __getitem__(self, video_id: str) -> SpokenText:
        if video_id not in self._places:
            raise DataError(f"{self.path}: no transcript of video {video_id!r}")
        number = self._places[video_id][0]
        return parse_spoken(self._read(video_id).decode(errors="replace"), f"{self.path}, line {number}")

    def ids(self) -> list[str]:
        return list(self._places)

    def stamp(self, video_id: str) -> str | None:
        return f"crc32 {zlib.crc32(self._read(video_id)):08x}" if video_id in self._places else None

    def _read(self, video_id: str) -> bytes:
        _, offset, length = self._places[video_id]
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(length)
