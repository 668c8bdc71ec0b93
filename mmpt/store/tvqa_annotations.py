"""TVQA as its authors give it: ``tvqa_{train,val,test_public}.jsonl``, frames at 3 a second, subtitles, and sound.

Seven windows of 4 2/3 seconds are cut out of each clip, around the middle of what the question is about, as MERLOT
Reserve does (arXiv:2201.02639, appendix; specification B5.2).
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.store.audio import audio_windows
from mmpt.store.images import image_format
from mmpt.store.question_writer import Imported
from mmpt.store.segment_store import MELS, SPECTROGRAM_FRAMES
from mmpt.store.segment_writer import SegmentRecord
from mmpt.store.spectrogram import log_mel
from mmpt.store.tfrecord_questions import TVQA_FRAMES, WINDOW_SECONDS
from mmpt.utils.errors import DataError, shown
from mmpt.utils.json_lines import read_lines

__all__ = ["read_clip_subtitles", "tvqa_items", "window_starts"]

#: Windows, frames a second, and samples a second at which a window has 180 frames of spectrogram.
WINDOWS, FRAME_RATE, SAMPLE_RATE = 7, 3, 22620
_OPTIONS = 5
_SOUNDS = (".mp3", ".wav", ".m4a", ".flac", ".mp4", ".mkv")

Subtitle = tuple[float, float, str]


def tvqa_items(
    annotations: str | Path, frames: str | Path, subtitles: str | Path, sound: str | Path | None = None
) -> Iterator[tuple[str, Callable[[], Imported]]]:
    """Yield the questions of a file for :func:`mmpt.store.question_writer.write_questions`.

    Args:
        annotations: lines with ``qid``, ``q``, ``a0`` to ``a4``, ``ts`` ("start-end"), ``vid_name`` and maybe
            ``answer_idx``.
        frames: the folder of the clips, each a folder ``<vid_name>`` with ``00001.jpg`` and so on, 3 a second.
        subtitles: lines with ``vid_name`` and ``sub``, a list of ``text``, ``start`` and ``end``.
        sound: a folder with a sound or video file for each clip, ``<vid_name>.mp3``; None: there is silence.

    Raises:
        DataError: if a file is missing or a line is no JSON.
    """
    told = read_clip_subtitles(subtitles)
    folders = {path.name: path for path in sorted(Path(frames).glob("**/")) if path != Path(frames)}
    sounds = {path.stem: path for path in sorted(Path(sound).rglob("*")) if path.suffix in _SOUNDS} if sound else None
    for place, record in read_lines(annotations):
        yield place, partial(_imported, record, place, folders, told, sounds)


def read_clip_subtitles(path: str | Path) -> dict[str, list[Subtitle]]:
    """Read what is said in each clip, by its name; DataError names the line that is wrong."""
    found: dict[str, list[Subtitle]] = {}
    for place, record in read_lines(path):
        try:
            said = [
                (float(one["start"]), float(one["end"]), " ".join(str(one["text"]).split())) for one in record["sub"]
            ]
            found[str(record["vid_name"])] = said
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{place}: not vid_name and sub with text, start and end ({error!r})") from error
    return found


def window_starts(start: float, end: float, duration: float) -> list[float]:
    """Return where the windows of a clip begin, in order: one around the middle of ``start`` to ``end``, and others.

    They follow each other without gaps, three on either side where the clip goes on so far, else more on the other;
    fewer than seven of a short clip.

    Args:
        start: of what the question is about, in seconds; ``end`` too.
        duration: of the clip.
    """
    middle = round((max(start, 0.0) + min(end, duration)) / 2 * FRAME_RATE) / FRAME_RATE
    first = middle - WINDOW_SECONDS / 2
    starts = [first]
    for step in range(1, WINDOWS):
        for sign in (-1, 1):
            candidate = round((first + sign * step * WINDOW_SECONDS) * FRAME_RATE) / FRAME_RATE
            inside = candidate + WINDOW_SECONDS > 0 and candidate <= duration
            if inside and len(starts) < WINDOWS:
                starts.append(candidate)
    return sorted(starts)


def _imported(
    record: Mapping[str, Any],
    place: str,
    folders: Mapping[str, Path],
    told: Mapping[str, Sequence[Subtitle]],
    sounds: Mapping[str, Path] | None,
) -> Imported:
    video, number = str(record.get("vid_name")), record.get("qid")
    if not isinstance(number, int) or isinstance(number, bool):
        raise DataError(f"{place}: qid: {shown(number)} is no number")
    name = f"{number:06d}~{video}"
    texts = [record.get(key) for key in ("q", *(f"a{option}" for option in range(_OPTIONS)))]
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{place}: question {name}: not a text q and {_OPTIONS} answers a0 ..")
    if video not in folders:
        raise DataError(f"{place}: question {name}: no folder with its frames")
    if sounds is not None and video not in sounds:
        raise DataError(f"{place}: question {name}: no file with its sound")
    if video not in told:
        raise DataError(f"{place}: question {name}: no subtitles of {video}")
    images = sorted(path for path in folders[video].iterdir() if path.stem.isdecimal() and path.suffix == ".jpg")
    if not images:
        raise DataError(f"{place}: question {name}: {folders[video]}: no frame 00001.jpg ..")
    last = int(images[-1].stem)
    duration = (last - 1) / FRAME_RATE
    start, end = _span(record, place, duration)
    starts = window_starts(start, end, duration)
    middles = [min(max(round((one + WINDOW_SECONDS / 2) * FRAME_RATE) + 1, 1), last) for one in starts]
    label = record.get("answer_idx")
    if label is not None and (not isinstance(label, int) or not 0 <= label < _OPTIONS):
        raise DataError(f"{place}: question {name}: answer_idx: {shown(label)} is none of {_OPTIONS} answers")
    length = starts[-1] + WINDOW_SECONDS - starts[0]
    percent = [min(max(int(100 * (one - starts[0]) / length), 0), 100) for one in (start, end)]
    said = _said(told[video], starts)
    line = {"id": name, "segments": name, "frames": len(starts), "span": f"{percent[0]} to {percent[1]}"}
    line |= {"query": texts[0], "choices": texts[1:], "answer": label}
    line["subtitles"] = said + [""] * (WINDOWS - len(said))

    def segments() -> SegmentRecord:
        return SegmentRecord(
            images=[_frame(folders[video] / f"{one:05d}.jpg", f"{place}: question {name}") for one in middles],
            times=np.array([[one, one + WINDOW_SECONDS] for one in starts]),
            mid=np.array([(one - 1) / FRAME_RATE for one in middles]),
            speed=np.ones(len(starts)),
            tokens=[np.zeros(0, np.int32)] * len(starts),
            spectrograms=_heard(sounds[video] if sounds is not None else None, starts),
            meta={"video": video},
        )

    return Imported([(name, segments)], line)


def _span(record: Mapping[str, Any], place: str, duration: float) -> tuple[float, float]:
    """Return what the question is about, in seconds; the whole clip where that is not known ("nan-nan")."""
    match = re.fullmatch(r"\s*(nan|\d+(?:\.\d+)?)\s*-\s*(nan|\d+(?:\.\d+)?)\s*", str(record.get("ts")))
    if match is None:
        raise DataError(f"{place}: ts: {shown(record.get('ts'))} is not start-end in seconds")
    start, end = (float(one) for one in match.groups())
    if math.isnan(start) or math.isnan(end):
        return 0.0, duration
    return min(start, duration), min(max(start, end), duration)


def _said(subtitles: Sequence[Subtitle], starts: Sequence[float]) -> list[str]:
    """Return the words of each window: of all subtitles whose middle is in it."""
    bounds = np.array([*starts, starts[-1] + WINDOW_SECONDS])
    words: list[list[str]] = [[] for _ in starts]
    for start, end, text in subtitles:
        window = int(np.searchsorted(bounds, (start + end) / 2, side="right")) - 1
        if 0 <= window < len(starts):
            words[window].append(text)
    return [" ".join(one) for one in words]


def _frame(path: Path, place: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{place}: {path}: frame is missing ({error.strerror})") from error
    if image_format(content) is None:
        raise DataError(f"{place}: {path}: neither JPEG nor PNG")
    return content


def _heard(path: Path | None, starts: Sequence[float]) -> list[np.ndarray]:
    """Return the spectrogram of each window, float16 (188, 64), of which 180 frames count; zeros where it is silent."""
    found = [np.zeros((SPECTROGRAM_FRAMES, MELS), np.float16) for _ in starts]
    if path is None:
        return found
    size = round(WINDOW_SECONDS * SAMPLE_RATE)
    windows = [(max(one, 0.0), max(one, 0.0) + WINDOW_SECONDS + min(one, 0.0)) for one in starts]
    for number, wave in enumerate(audio_windows(path, windows, SAMPLE_RATE)):
        whole = np.zeros(size, np.float32)
        heard = wave[-size:]
        whole[size - len(heard) :] = heard  # what lies before the clip is silent
        found[number][:TVQA_FRAMES] = log_mel(whole)[:TVQA_FRAMES]
    return found
