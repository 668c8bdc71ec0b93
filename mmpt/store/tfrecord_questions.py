"""The published records of the downstream tasks of MERLOT and Reserve: images into a store, questions into lines.

========================  =================================  ========================================================
layout                    store                              a line of the file of questions
========================  =================================  ========================================================
``vist``                  frames, five of each story         ``id``, ``images`` (the store's id), ``sentences`` (5)
``merlot_vcr``            frames, one of each kind           ``id``, ``image``, ``answer``, ``rationale`` (below)
``reserve_vcr``           frames, one                        the same
``tvqa``                  segments, seven, with their sound  ``id``, ``segments`` (the store's id), ``frames`` (how many
                                                             are real), ``query``, ``choices`` (5), ``answer``,
                                                             ``subtitles`` (7)
========================  =================================  ========================================================

A text is a string or the list of its token ids, as the record has it; with ids ``tokenizer`` says whose they are,
``merlot`` or ``reserve``. Of VCR, ``image`` is the store's id of the image
of each kind, ``answer`` is ``{"context", "choices", "label"}``, and ``rationale`` ``{"contexts", "choices", "label"}``
with the context that names the right answer, or those of each answer; a label is null where it is not known.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.store.extraction_job import ExtractionSummary
from mmpt.store.question_writer import Entry, Imported, write_questions
from mmpt.store.segment_store import MELS, SPECTROGRAM_FRAMES
from mmpt.store.segment_writer import SegmentRecord
from mmpt.store.tfrecord_pretraining import read_spectrogram
from mmpt.store.tfrecords import Example, read_examples
from mmpt.utils.errors import DataError

__all__ = ["QUESTION_LAYOUTS", "TVQA_FRAMES", "WINDOW_SECONDS", "import_questions"]

#: TVQA: seconds of a window, frames of its spectrogram, and their columns: 64 mel bands and the playback speed.
WINDOW_SECONDS, TVQA_FRAMES, TVQA_COLUMNS = 14 / 3, 180, 65
_TVQA_WINDOWS, _CHOICES, _SENTENCES = 7, {"vcr": 4, "tvqa": 5}, 5
_KINDS = ("answer", "rationale")
#: VIST: what a record says whose images are in their true order, 900000 and the number of each in five digits.
_IN_ORDER = 901234
#: The system whose tokenizer the ids of a layout's texts are of.
_TOKENIZERS = {"vist": "merlot", "merlot_vcr": "merlot", "reserve_vcr": "reserve", "tvqa": "reserve"}


def import_questions(
    files: Sequence[str | Path],
    folder: str | Path,
    questions: str | Path,
    layout: str,
    check: bool = True,
    force: bool = False,
    progress: bool = True,
    drawing: str = "segm",
    videos_per_shard: int | None = None,
) -> ExtractionSummary:
    """Read the records of files into a store and a file of questions.

    Args:
        files: TFRecords of one split, gzipped or not.
        folder: of the store; images of several splits may go into one.
        questions: JSON lines, written anew.
        layout: ``vist``, ``merlot_vcr``, ``reserve_vcr`` or ``tvqa``.
        check: verify each record's checksum.
        force: write images again that are there.
        progress: show a bar.
        drawing: of ``merlot_vcr``, which images: those with polygons (``segm``) or with boxes (``bbox``).
        videos_per_shard: entries of a shard of the store; None: see :mod:`mmpt.store.question_writer`.

    Returns:
        Counts of questions; ``failures`` are those that could not be used, with the reason.

    Raises:
        DataError: if there is no such layout, a file is damaged (names file and record), or the store was made with
            other settings.
    """
    from tqdm import tqdm

    if layout not in QUESTION_LAYOUTS:
        raise DataError(f"--layout {layout}: none of {', '.join(QUESTION_LAYOUTS)}")
    if drawing not in ("segm", "bbox"):
        raise DataError(f"--drawing {drawing}: neither segm nor bbox")
    examples = tqdm(read_examples(files, check), desc=layout, unit="record", disable=not progress)
    items = ((example.place, partial(_imported, example, layout, drawing)) for example in examples)
    settings = {"tool": "import_tfrecords", "layout": layout}
    if layout == "merlot_vcr":
        settings["drawing"] = drawing
    kind = "segments" if layout == "tvqa" else "frames"
    return write_questions(items, folder, questions, settings, kind, force, videos_per_shard)


def _imported(example: Example, layout: str, drawing: str) -> Imported:
    entries, line = QUESTION_LAYOUTS[layout](example, drawing)
    return Imported(entries, {**line, "tokenizer": _TOKENIZERS[layout]} if _holds_ids(line) else line)


def _holds_ids(value: Any) -> bool:
    """Tell whether one of the texts is a list of ids."""
    if isinstance(value, Mapping):
        return any(map(_holds_ids, value.values()))
    if not isinstance(value, list):
        return False
    return any(isinstance(one, int) for one in value) or any(map(_holds_ids, value))


def _vist(example: Example, drawing: str) -> Imported:
    name = example.text("story_id") if isinstance(example.needed("story_id"), list) else str(example.number("story_id"))
    order = int(example.number("permutation_identity_encode", _IN_ORDER))
    if order != _IN_ORDER:
        raise DataError(
            f"{example.place}: story {name}: 'permutation_identity_encode': {order} says that the images are not in"
            f" their true order ({_IN_ORDER}), which the record does not tell how to restore"
        )
    for number in range(_SENTENCES):
        if not example.number(f"image/image_{number}_is_valid", 1):
            raise DataError(f"{example.place}: story {name}: image {number} is missing")
    line: dict[str, Any] = {"id": name, "images": name}
    line["sentences"] = [_text(example, f"sentence/sentence_{number}") for number in range(_SENTENCES)]
    names = [f"image/image_{number}_encoded" for number in range(_SENTENCES)]
    return Imported([(name, partial(_images, example, *names))], line)


def _merlot_vcr(example: Example, drawing: str) -> Imported:
    name = example.text("annot_id")
    images = {kind: f"{kind}/{drawing}/image/encoded" for kind in _KINDS}
    entries = [(f"{name}/{kind}", partial(_images, example, image)) for kind, image in images.items()]
    asked = {
        kind: _asked(example, f"{kind}/ctx", f"{kind}/choice_", f"label/{kind}_label", _CHOICES["vcr"])
        for kind in _KINDS
    }
    return Imported(entries, _vcr_line(name, {kind: f"{name}/{kind}" for kind in _KINDS}, asked))


def _reserve_vcr(example: Example, drawing: str) -> Imported:
    name = example.text("id")
    entries: list[Entry] = [(name, partial(_images, example, "image"))]
    stored = dict.fromkeys(_KINDS, name)
    if "image_fliplr" in example:
        entries.append((f"{name}/flipped", partial(_images, example, "image_fliplr")))
        stored["flipped"] = f"{name}/flipped"
    asked = {
        kind: _asked(example, f"{short}_query", f"{short}_choice_", f"{short}_label", _CHOICES["vcr"])
        for kind, short in zip(_KINDS, ("qa", "qar"), strict=True)
    }
    return Imported(entries, _vcr_line(name, stored, asked))


def _images(example: Example, *names: str) -> list[bytes]:
    return [example.image(name) for name in names]


def _vcr_line(name: str, images: Mapping[str, str], asked: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    rationale = dict(asked["rationale"])
    rationale["contexts"] = [rationale.pop("context")]
    return {"id": name, "image": dict(images), "answer": asked["answer"], "rationale": rationale}


def _tvqa(example: Example, drawing: str) -> Imported:
    name = example.text("id")
    prefixes = [f"c{number:02d}" for number in range(_TVQA_WINDOWS)]
    asked = _asked(example, "qa_query", "qa_choice_", "qa_label", _CHOICES["tvqa"])
    frames = int(example.number("num_frames"))
    if not 1 <= frames <= _TVQA_WINDOWS:
        raise DataError(f"{example.place}: 'num_frames': {frames} is not 1 to {_TVQA_WINDOWS}")
    line = {"id": name, "segments": name, "frames": frames, "query": asked["context"], "choices": asked["choices"]}
    line |= {"answer": asked["label"], "subtitles": [_text(example, f"{one}/sub") for one in prefixes]}
    return Imported([(name, partial(_tvqa_segments, example, prefixes))], line)


def _tvqa_segments(example: Example, prefixes: Sequence[str]) -> SegmentRecord:
    magic, starts = example.number("magic_number"), WINDOW_SECONDS * np.arange(_TVQA_WINDOWS)
    times = np.stack([starts, starts + WINDOW_SECONDS], axis=1)
    return SegmentRecord(
        images=[example.image(f"{one}/image_encoded") for one in prefixes],
        times=times,
        mid=times.mean(axis=1),
        speed=np.ones(_TVQA_WINDOWS, np.float32),
        tokens=[np.zeros(0, np.int32)] * _TVQA_WINDOWS,
        spectrograms=[_tvqa_spectrogram(example, f"{one}/spec_encoded", magic) for one in prefixes],
    )


#: What reads a record of each layout.
QUESTION_LAYOUTS: dict[str, Callable[[Example, str], Imported]] = {
    "vist": _vist,
    "merlot_vcr": _merlot_vcr,
    "reserve_vcr": _reserve_vcr,
    "tvqa": _tvqa,
}


def _tvqa_spectrogram(example: Example, name: str, magic: float) -> np.ndarray:
    """Return the mel bands of a window, with silence behind them up to the frames that a store holds."""
    place = f"{example.place}: {name!r}"
    stored = read_spectrogram(example.bytes_of(name), magic, (TVQA_FRAMES, TVQA_COLUMNS), place)
    whole = np.zeros((SPECTROGRAM_FRAMES, MELS), np.float16)
    whole[:TVQA_FRAMES] = stored[:, :MELS]
    return whole


def _asked(example: Example, context: str, choice: str, label: str, count: int) -> dict[str, Any]:
    choices = [_text(example, f"{choice}{number}") for number in range(count)]
    if f"{choice}{count}" in example:
        raise DataError(f"{example.place}: more than {count} of {choice}0..")
    right = int(example.number(label, -1))
    if not -1 <= right < count:
        raise DataError(f"{example.place}: {label!r}: {right} is none of {count} choices")
    return {"context": _text(example, context), "choices": choices, "label": right if right >= 0 else None}


def _text(example: Example, name: str) -> str | list[int]:
    """Return a text, or the token ids that a record has for it."""
    feature = example.needed(name)
    if isinstance(feature, list):
        return example.text(name) if feature else []
    return [int(one) for one in feature]
