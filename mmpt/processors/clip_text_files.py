"""The public text files of VIOLET and LAVENDER, ``txt_<task>.json``: all splits of one task, and its answers, in one.

========================  ========================================================================================
top level                 ``{"train": .., "val": .., "test": ..}``, of which a task may lack some; or one split alone
retrieval                 a list of ``{"video", "caption"}``; the caption a text, or the sentences of a paragraph
multiple choice           a list of ``{"video", "question", "option_0", .., "answer"}``, an index; no question needed
open-ended                a list of ``{"video", "question", "answer"}``, the class of the answer, and its words in
                          ``answer_text`` or in the top level's ``vocab`` or ``ans2label``
pre-training              ``{video: [caption, ..]}``
========================  ========================================================================================
"""

import itertools
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmpt.processors.annotations import missing_field
from mmpt.processors.msrvtt_qa import Choice
from mmpt.processors.open_questions import OpenQuestion
from mmpt.utils.errors import DataError, shown
from mmpt.utils.files import read_json, resolve_path

__all__ = ["READERS", "ClipTextFile", "Labels", "UnusableRecordError", "video_of"]

_SPLIT_KEYS = {"train": ("train",), "valid": ("val", "valid"), "test": ("test",)}
#: More answers than any vocabulary holds: a label beyond is damage, not a class.
_MOST_LABELS = 1_000_000
#: Records that are looked at together.
RUN = 4096


class Where(NamedTuple):
    """Where a record stands: the file and its split, and the record; put into words when a message needs them."""

    file: str
    name: str | int

    def __str__(self) -> str:
        record = f"record {self.name}" if isinstance(self.name, int) else shown(self.name)
        return f"{self.file}, {record}" if self.file else record


#: Where a record stands, for messages, and the record.
Record = tuple[Where, Mapping[str, Any]]


class UnusableRecordError(Exception):
    """Say why one record is left out."""


class ClipTextFile:
    """One file, read whole.

    Raises:
        DataError: if it is no JSON file, or holds neither an object nor a list; names it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.content = read_json(resolve_path(path))
        if not isinstance(self.content, dict | list):
            raise DataError(f"{path}: expected an object with the splits train, val and test, or a list of records")

    def has(self, split: str) -> bool:
        """Tell whether the file names a split; a list alone names none."""
        return self._key(split) is not None

    def _key(self, split: str) -> str | None:
        return next((key for key in _SPLIT_KEYS[split] if key in self.content and isinstance(self.content, dict)), None)

    def records(self, split: str) -> Iterator[Record]:
        """Yield the records of ``train``, ``valid`` or ``test``, with their places.

        ``{video: [caption, ..]}`` comes as records of ``video`` and ``captions``.

        Raises:
            DataError: if there is no such split, or it is no list of records; names file and record.
        """
        where, records = self._of(split)
        if isinstance(records, dict):
            yield from _records_of(where, records.items())
            return
        if not isinstance(records, list):
            raise DataError(f"{where}: expected a list of records, found {shown(records)}")
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                raise DataError(f"{where}, record {number}: expected an object, found {shown(record)}")
            yield Where(where, number), record

    def pretraining_runs(self, split: str) -> Iterator[tuple[bool, Sequence[Any]]]:
        """Yield ``{video: [caption, ..]}`` thousands at a time: true and items, or false and records; a list not.

        Where nothing is to be said of a run, all of its records become what ``READERS["pretraining"]`` makes of each,
        ``(video, caption)``, in a fraction of the time.
        """
        where, records = self._of(split)
        pairs = iter(records.items() if isinstance(records, dict) else ())
        while run := list(itertools.islice(pairs, RUN)):
            items = _plain_items(run)
            yield (False, list(_records_of(where, run))) if items is None else (True, items)

    def _of(self, split: str) -> tuple[str, Any]:
        """Return what the file calls a split, for messages, and what it holds of it."""
        key = self._key(split)
        if key is None and isinstance(self.content, dict):
            hint = " dataset.val_holdout takes a share of train." if split == "valid" else ""
            raise DataError(f"{missing_field(self.path, 'split', _SPLIT_KEYS[split][0], self.content)}{hint}")
        return (str(self.path), self.content) if key is None else (f"{self.path}: {key}", self.content[key])


def _records_of(where: str, pairs: Iterable[tuple[str, Any]]) -> Iterator[Record]:
    return ((Where(where, name), {"video": name, "captions": captions}) for name, captions in pairs)


def _plain_items(pairs: Sequence[tuple[str, Any]]) -> list[tuple[str, str]] | None:
    """Return video and first caption of each, if each has both and nothing has to be looked at more closely."""
    names, captions = zip(*pairs, strict=True)
    if set(map(type, captions)) != {list} or not all(captions):
        return None
    first = list(map(operator.itemgetter(0), captions))
    if set(map(type, first)) != {str} or not all(map(str.isascii, names)):
        return None
    videos, texts = list(map(str.strip, names)), list(map(str.strip, first))
    return list(zip(videos, texts, strict=True)) if all(videos) and all(texts) else None


class Labels:
    """The vocabulary of answers of a file: ``vocab``, a list, or ``ans2label``, from answer to class.

    ``names`` are the answers by class (of several answers of a class, the first; "" for a class without one), None
    where the file has no vocabulary.

    Raises:
        DataError: if the vocabulary is anything else; names the file.
    """

    def __init__(self, file: ClipTextFile) -> None:
        content = file.content if isinstance(file.content, dict) else {}
        self.names: list[str] | None = None
        self.classes: dict[str, int] = {}
        vocabulary, classes = content.get("vocab"), content.get("ans2label")
        if vocabulary is not None:
            if not isinstance(vocabulary, list) or not all(isinstance(answer, str) for answer in vocabulary):
                raise DataError(f"{file.path}: vocab: expected a list of answers, found {shown(vocabulary)}")
            classes = {answer: number for number, answer in reversed(list(enumerate(vocabulary)))}
            self.names = list(vocabulary)
        if classes is None:
            return
        if not isinstance(classes, dict):
            raise DataError(f"{file.path}: ans2label: expected an object, found {shown(classes)}")
        for answer, number in classes.items():
            if not _is_whole(number) or not 0 <= number < _MOST_LABELS:
                raise DataError(f"{file.path}: ans2label: {shown(answer)}: {shown(number)} is not a class (0, 1, ..)")
        self.classes = classes
        if self.names is None:
            self.names = [""] * (max(classes.values(), default=-1) + 1)
            for answer, number in classes.items():
                self.names[number] = self.names[number] or answer


def video_of(record: Record) -> str:
    """Return the video that a record is about; it is looked up among ids, and becomes no file name.

    Raises:
        DataError: if the record names none.
    """
    place, fields = record
    if "video" not in fields:
        raise missing_field(place, "key", "video", fields)
    video = _text(fields["video"], place, "video")
    if not video.isascii():
        try:
            video.encode()
        except UnicodeEncodeError as error:  # half of a pair of surrogates
            raise DataError(f"{place}: video: {shown(video)} is not the id of a video") from error
    if not video:
        raise DataError(f"{place}: video: is empty")
    return video


def _retrieval(record: Record, labels: Labels) -> str | list[str]:
    """Return the caption, or the sentences of a paragraph (DiDeMo)."""
    place, fields = record
    if "caption" not in fields:
        raise missing_field(place, "key", "caption", fields)
    caption = fields["caption"]
    if not isinstance(caption, list):
        return _needed(_text(caption, place, "caption"), "without a caption")
    sentences = [_text(sentence, place, f"caption {number}") for number, sentence in enumerate(caption)]
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        raise UnusableRecordError("without a caption")
    return sentences


def _pretraining(record: Record, labels: Labels) -> str:
    """Return the first caption of a video, as published."""
    place, fields = record
    captions = fields.get("captions", fields.get("caption"))
    if isinstance(captions, list):
        captions = captions[0] if captions else ""
    if captions is None:
        raise missing_field(place, "key", "caption", fields)
    return _needed(_text(captions, place, "caption"), "without a caption")


def _multiple_choice(record: Record, labels: Labels) -> Choice:
    place, fields = record
    names: list[str] = []
    while (name := f"option_{len(names)}") in fields:
        names.append(name)
    for name in ("answer", "option_0", "option_1"):
        if name not in fields:
            raise missing_field(place, "key", name, fields)
    options = tuple(_text(fields[name], place, name) for name in names)
    answer = fields["answer"]
    if not _is_whole(answer) or not 0 <= answer < len(options):
        raise DataError(f"{place}: answer: {shown(answer)} is not the index of an option, 0 to {len(options) - 1}")
    if not all(options):
        raise UnusableRecordError("with an empty option")
    return Choice(answer, options, _text(fields.get("question") or "", place, "question"))


def _open_ended(record: Record, labels: Labels) -> OpenQuestion:
    place, fields = record
    for name in ("question", *(() if "answer_text" in fields else ("answer",))):
        if name not in fields:
            raise missing_field(place, "key", name, fields)
    question = _needed(_text(fields["question"], place, "question"), "without a question")
    answer: Any = fields.get("answer")
    text = _text(fields.get("answer_text") or "", place, "answer_text")
    label = -1
    if _is_whole(answer):
        label = answer
        if label < -1 or label >= (_MOST_LABELS if labels.names is None else len(labels.names)):
            size = "" if labels.names is None else f"; the vocabulary has {len(labels.names)} answers"
            raise DataError(f"{place}: answer: {label} is not the class of an answer, nor -1 for none{size}")
        if label >= 0 and not text and labels.names is not None:
            text = labels.names[label]
    elif answer is not None:
        text = text or _text(answer, place, "answer")
    if label < 0:
        label = labels.classes.get(text, -1)
    if label < 0 and not text:
        raise UnusableRecordError("without an answer")
    return OpenQuestion(question, text, label)


#: What each kind of task reads of a record; raises UnusableRecordError, DataError.
READERS: Mapping[str, Any] = {
    "retrieval": _retrieval,
    "multiple_choice": _multiple_choice,
    "open_ended": _open_ended,
    "pretraining": _pretraining,
}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: Any, place: Where, name: str) -> str:
    """Return text without space around it; a number counts as its digits (answers such as 2)."""
    if isinstance(value, str):
        return value.strip()
    if _is_whole(value):
        return str(value)
    raise DataError(f"{place}: {name}: expected text, found {shown(value)}")


def _needed(text: str, otherwise: str) -> str:
    if not text:
        raise UnusableRecordError(otherwise)
    return text
