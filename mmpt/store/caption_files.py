"""De-duplicate a whole caption file, with resume and a manifest that says what was done."""

import json
import logging
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmpt.store.dedup import CaptionDedup
from mmpt.store.transcripts import iter_transcripts, scan_captions
from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open, file_sha256, read_json, sole_writer, write_json, writing
from mmpt.utils.seeds import DEFAULT_SEED

__all__ = ["CaptionReport", "deduplicate_file", "write_caption_pickle"]

logger = logging.getLogger(__name__)

# Raised when the result for one input changes, so that older outputs are made again.
_ALGORITHM = "word-level longest overlap, 1"


@dataclass
class CaptionReport:
    """What became of the videos: ``done`` now, ``skipped`` because done before, ``failed``; and why."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the closing lines of a script."""
        head = f"done {self.done}, skipped {self.skipped}, failed {self.failed} videos"
        return [head, *(f"  {number} {reason}" for reason, number in sorted(self.counts.items()))]


def deduplicate_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    seed: int = DEFAULT_SEED,
    force: bool = False,
    progress: Callable[[Iterator[Any]], Iterator[Any]] = iter,
) -> CaptionReport:
    """De-duplicate the captions of ``source`` (.json or .pkl) into ``target`` (.json).

    Results go to ``.<target>.partial``, one line per video, and a killed run goes on from there.
    ``<target>.manifest.json`` names the inputs; while they and the output are unchanged nothing is redone.
    ``progress`` wraps the iterator over videos.

    Raises:
        DataError: if ``source`` is not a caption file, or another run is writing ``target``; none is left behind.
        TooManyFailuresError: if too many of its videos are malformed.
    """
    target = Path(target)
    if target.resolve() == Path(source).resolve():
        raise DataError(f"{source}: input and output are the same file")
    with sole_writer(target.with_name(f".{target.name}.lock")):
        return _deduplicate(source, target, seed, force, progress)


def _deduplicate(
    source: str | os.PathLike[str],
    target: Path,
    seed: int,
    force: bool,
    progress: Callable[[Iterator[Any]], Iterator[Any]],
) -> CaptionReport:
    manifest_path = target.with_name(target.name + ".manifest.json")
    inputs = {"source_sha256": file_sha256(source), "seed": seed, "algorithm": _ALGORITHM}
    if not force and (report := _finished(target, manifest_path, inputs)):
        return report
    with _Partial(target, inputs) as partial:
        report = CaptionReport(skipped=len(partial.done))
        dedup, faults = CaptionDedup(seed), Counter[str]()
        for video_id, transcript in progress(iter_transcripts(source, faults)):
            # Done again even where a killed run has written it: it costs little, and the counts are whole.
            result = dedup(video_id, transcript)
            if video_id not in partial.done:
                partial.append(video_id, result.to_dict())
                report.done += 1
        report.failed = faults["malformed videos"]
        report.counts = dict(faults + dedup.counts)
        partial.commit()
    manifest = {**inputs, "source": str(source), "output_sha256": file_sha256(target), "report": asdict(report)}
    write_json(manifest_path, manifest)
    return report


def write_caption_pickle(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write a caption file as a pickle of a dict from video id to JSON string, as the public configs read it."""
    entries = {video_id: json.dumps(entry) for video_id, entry in scan_captions(source)}
    with atomic_open(target, "wb") as file:
        pickle.dump(entries, file, protocol=4)


def _finished(target: Path, manifest_path: Path, inputs: dict[str, Any]) -> CaptionReport | None:
    """Return the report of a finished run if its inputs and its output are unchanged."""
    if not (target.is_file() and manifest_path.is_file()):
        return None
    manifest = read_json(manifest_path)
    before = manifest.get("report") if isinstance(manifest, dict) else None
    if not isinstance(before, dict) or not _is_report(before):
        logger.warning("%s is not a record of what was done: doing it again", manifest_path)
        return None
    if any(manifest.get(key) != value for key, value in inputs.items()):
        logger.info("%s was made from other inputs: doing it again", target)
        return None
    if manifest.get("output_sha256") != file_sha256(target):
        logger.warning("%s is not the file that was written: doing it again", target)
        return None
    return CaptionReport(0, before["done"] + before["skipped"], before["failed"], before["counts"])


def _is_report(value: dict[str, Any]) -> bool:
    counts = value.get("counts")
    numbers = [value.get(key) for key in ("done", "skipped", "failed")]
    return isinstance(counts, dict) and all(type(number) is int for number in [*numbers, *counts.values()])


class _Partial:
    """The output in the making: JSON with one video per line, so that whole lines survive a kill.

    ``.<target>.partial.inputs`` beside it says what it was made from.
    """

    def __init__(self, target: Path, inputs: dict[str, Any]) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.partial")
        self.inputs_path = target.with_name(f".{target.name}.partial.inputs")
        self.done: set[str] = set()
        self._size = 0
        if self.path.is_file() and self.inputs_path.is_file() and read_json(self.inputs_path) == inputs:
            self._read()
        write_json(self.inputs_path, inputs)

    def __enter__(self) -> "_Partial":
        with writing(self.path):
            self._file = open(self.path, "r+b" if self._size else "wb")  # closed by __exit__
        self._file.truncate(self._size)
        self._file.seek(self._size)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError) if kind else nullcontext():  # a full disk refuses what is still buffered
            self._file.close()
        # A wrong file will not be right next time; an interrupted run goes on.
        if kind is not None and issubclass(kind, DataError):
            self.path.unlink()
            self.inputs_path.unlink()

    def append(self, video_id: str, entry: dict[str, Any]) -> None:
        """Write one video."""
        line = f"{',' if self._size else '{'}{json.dumps(video_id)}: {json.dumps(entry)}\n".encode()
        with writing(self.path):
            self._file.write(line)
        self._size += len(line)

    def commit(self) -> None:
        """Close the JSON object and give the file its name."""
        with writing(self.path):
            self._file.write(b"}\n" if self._size else b"{}\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self.path, self.target)
        self.inputs_path.unlink()

    def _read(self) -> None:
        """Collect the videos on whole lines of a killed run."""
        with open(self.path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n") or line == b"}\n":
                    return
                try:
                    (video_id,) = json.loads(b"{" + line[1:] + b"}")
                except ValueError:
                    return
                self.done.add(video_id)
                self._size += len(line)
