"""VCR as its authors give it: ``{train,val,test}.jsonl``, images, and for each the boxes and outlines of its objects.

Texts are lists of words, in which a list of numbers stands for objects of the image. How they are called, and how they
are drawn into the image, is what MERLOT and MERLOT Reserve do differently.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.store.drawn_objects import DrawnObject, draw_objects, hashed_colour, person_colour
from mmpt.store.images import decode_image, encode_jpeg
from mmpt.store.question_writer import Entry, Imported
from mmpt.utils.errors import DataError, shown
from mmpt.utils.files import read_json
from mmpt.utils.json_lines import read_lines
from mmpt.utils.safe_paths import path_below

__all__ = ["STYLES", "object_names", "vcr_items", "written"]

STYLES = ("merlot", "reserve")
#: How MERLOT calls persons: names that say nothing of who bears them.
# fmt: off
_NAMES = (
    "Adrian", "Alex", "Ari", "Ashton", "Avery", "Bailey", "Blake", "Briar", "Cameron", "Casey", "Charlie", "Dakota",
    "Devon", "Drew", "Eden", "Elliot", "Ellis", "Emerson", "Finley", "Frankie", "Harley", "Harper", "Hayden",
    "Hollis", "Indigo", "Jamie", "Jessie", "Jordan", "Jules", "Kai", "Kendall", "Lane", "Lee", "Logan", "Marlow",
    "Morgan", "Noel", "Parker", "Pat", "Peyton", "Quinn", "Reese", "Riley", "River", "Robin", "Rowan", "Sage",
    "Skyler", "Taylor", "Wren",
)
# fmt: on
_CHOICES, _QUALITY = 4, 95

Words = Sequence[str | list[int]]


def vcr_items(
    annotations: str | Path, images: str | Path, style: str, boxes: bool = False, mirrored: bool = False
) -> Iterator[tuple[str, Callable[[], Imported]]]:
    """Yield the questions of a file for :func:`mmpt.store.question_writer.write_questions`.

    Rationales have a context for each answer, so that a test can predict all that the leaderboard asks for.

    Args:
        annotations: a ``.jsonl`` of VCR.
        images: the folder that ``img_fn`` and ``metadata_fn`` are below.
        style: whose texts and drawings, ``merlot`` or ``reserve``.
        boxes: of ``merlot``, draw boxes instead of outlines.
        mirrored: of ``reserve``, also store the mirror image, objects and all, for training.

    Raises:
        DataError: if there is no such style, an option is not of that style, or a line is no JSON.
    """
    if style not in STYLES:
        raise DataError(f"--style {style}: none of {', '.join(STYLES)}")
    if (boxes and style != "merlot") or (mirrored and style != "reserve"):
        raise DataError(f"--{'boxes' if boxes else 'mirrored'}: of no effect with --style {style}; leave it out")
    folder = Path(images)
    for place, record in read_lines(annotations):
        yield place, partial(_imported, record, place, folder, style, boxes, mirrored)


def object_names(objects: Sequence[str], style: str) -> list[str]:
    """Return what each object of an image is called.

    MERLOT: persons by one of fifty names, by their place among all objects, others by their class. Reserve: "the dog"
    where there is only one of a class, else "Person 1", "Person 2" and so on.
    """
    if style == "merlot":
        return [_NAMES[place % len(_NAMES)] if name == "person" else name for place, name in enumerate(objects)]
    named, seen = [], dict.fromkeys(objects, 0)
    for name in objects:
        seen[name] += 1
        alone = objects.count(name) == 1
        named.append(f"the {name}" if alone else f"{name.capitalize()} {seen[name]}")
    return named


def written(words: Words, names: Sequence[str], place: str) -> str:
    """Return words as a text in which objects have their names: ``["Is", [0, 1], "here", "?"]``, "Is A and B here?".

    Raises:
        DataError: if a word is neither text nor numbers of objects; names the place.
    """
    parts = []
    for word in words:
        if isinstance(word, str):
            parts.append(word)
            continue
        known = isinstance(word, list) and word and all(isinstance(one, int) and 0 <= one < len(names) for one in word)
        if not known:
            raise DataError(f"{place}: {shown(word)} is neither a word nor numbers of {len(names)} objects")
        parts.append(" and ".join(names[one] for one in word))
    text = " ".join(parts)
    text = re.sub(r"\s+([.,?!:;%)\]]|'(?:s|re|m|ll|ve|d|t)\b|n't\b|'(?=\s|$))", r"\1", text)
    return re.sub(r"([(\[$])\s+", r"\1", text).strip()


def _imported(record: Mapping[str, Any], place: str, folder: Path, style: str, boxes: bool, mirrored: bool) -> Imported:
    name = record.get("annot_id")
    objects = record.get("objects")
    if not isinstance(name, str) or not name:
        raise DataError(f"{place}: annot_id: {shown(name)} is no id")
    if not isinstance(objects, list) or not all(isinstance(one, str) for one in objects):
        raise DataError(f"{place}: objects: expected the class of each object")
    names = object_names(objects, style)
    said = {
        key: [written(words, names, f"{place}: {key}") for words in _texts(record, key, count, place)]
        for key, count in (("question", 1), ("answer_choices", _CHOICES), ("rationale_choices", _CHOICES))
    }
    question, answers = said["question"][0], said["answer_choices"]
    lead = " " if style == "merlot" else ""
    joined = [
        f"{lead}{question} {answer}" if style == "merlot" else f"{question} Answer: {answer}" for answer in answers
    ]
    line = {
        "id": name,
        "answer": {
            "context": f"{lead}{question}",
            "choices": [f"{lead}{answer}" for answer in answers],
            "label": _label(record, "answer_label", place),
        },
        "rationale": {
            "contexts": joined,
            "choices": [f"{lead}{reason}" for reason in said["rationale_choices"]],
            "label": _label(record, "rationale_label", place),
        },
    }
    entries, stored = _entries(record, place, folder, style, boxes, mirrored)
    return Imported(entries, {**line, "image": stored})


def _entries(
    record: Mapping[str, Any], place: str, folder: Path, style: str, boxes: bool, mirrored: bool
) -> tuple[list[Entry], dict[str, str]]:
    """Return what draws the images of a question with its objects, and the ids of each kind."""
    name = record["annot_id"]

    @cache
    def scene() -> tuple[np.ndarray, list[DrawnObject]]:
        return _image(record, place, folder), _shapes(record, place, folder, style)

    if style == "reserve":
        shared = str(record.get("img_id") or name)  # of all questions about the image
        entries: list[Entry] = [(shared, lambda: _boxed(*scene()))]
        stored = dict.fromkeys(("answer", "rationale"), shared)
        if mirrored:
            stored["flipped"] = f"{shared}/flipped"
            entries.append((stored["flipped"], lambda: _boxed(*_mirrored(*scene()))))
        return entries, stored
    asked = {one for key in ("question", "answer_choices") for one in _mentioned(record[key])}
    meant = {"answer": asked, "rationale": asked | set(_mentioned(record["rationale_choices"]))}
    stored = {kind: f"{name}/{kind}" for kind in meant}
    return [(stored[kind], partial(_outlined, scene, sorted(chosen), boxes)) for kind, chosen in meant.items()], stored


def _boxed(image: np.ndarray, shapes: Sequence[DrawnObject]) -> list[bytes]:
    return [encode_jpeg(draw_objects(image, shapes, boxes=True), _QUALITY)]


def _outlined(
    scene: Callable[[], tuple[np.ndarray, list[DrawnObject]]], chosen: Sequence[int], boxes: bool
) -> list[bytes]:
    image, shapes = scene()
    picked = [shapes[number] for number in chosen if 0 <= number < len(shapes)]
    return [encode_jpeg(draw_objects(image, picked, boxes), _QUALITY)]


def _image(record: Mapping[str, Any], place: str, folder: Path) -> np.ndarray:
    name = record["annot_id"]
    file = path_below(folder, str(record.get("img_fn")), place)
    try:
        return decode_image(file.read_bytes())
    except OSError as error:
        raise DataError(f"{place}: question {name}: {file}: cannot be read ({error.strerror})") from error
    except DataError as error:
        raise DataError(f"{place}: question {name}: {file}: {error}") from error


def _shapes(record: Mapping[str, Any], place: str, folder: Path, style: str) -> list[DrawnObject]:
    objects = record["objects"]
    file = path_below(folder, str(record.get("metadata_fn")), place)
    try:
        held = read_json(file)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    found, outlines = (held.get(key) if isinstance(held, dict) else None for key in ("boxes", "segms"))
    if not isinstance(found, list) or not isinstance(outlines, list) or {len(found), len(outlines)} != {len(objects)}:
        raise DataError(f"{place}: {file}: not boxes and segms of {len(objects)} objects")
    names = object_names(objects, style)
    shapes = []
    for number, (box, polygons) in enumerate(zip(found, outlines, strict=True)):
        if not isinstance(box, list) or len(box) < 4 or not all(isinstance(side, int | float) for side in box[:4]):
            raise DataError(f"{place}: {file}: box {number}: {shown(box)} is not left, top, right and bottom")
        person = objects[number] == "person"
        colour = person_colour(number if person else None) if style == "merlot" else hashed_colour(names[number])
        if not isinstance(polygons, list) or not all(isinstance(outline, list) for outline in polygons):
            raise DataError(f"{place}: {file}: outline {number}: {shown(polygons)} is no list of polygons")
        whole = [outline for outline in polygons if len(outline) >= 3]
        shapes.append(DrawnObject((box[0], box[1], box[2], box[3]), whole, colour))
    return shapes


def _mirrored(image: np.ndarray, shapes: Sequence[DrawnObject]) -> tuple[np.ndarray, list[DrawnObject]]:
    return np.ascontiguousarray(image[:, ::-1]), [_turned(shape, image.shape[1]) for shape in shapes]


def _turned(shape: DrawnObject, width: int) -> DrawnObject:
    left, top, right, bottom = shape.box
    return DrawnObject((width - 1 - right, top, width - 1 - left, bottom), (), shape.colour)


def _mentioned(texts: Any) -> Iterator[int]:
    """Yield the numbers of objects in a text, or in several."""
    for one in texts if isinstance(texts, list) else ():
        if isinstance(one, int):
            yield one
        else:
            yield from _mentioned(one)


def _texts(record: Mapping[str, Any], key: str, count: int, place: str) -> list[Any]:
    given = [record.get(key)] if count == 1 else record.get(key)
    if not isinstance(given, list) or len(given) != count or not all(isinstance(one, list) for one in given):
        raise DataError(f"{place}: {key}: expected {count} lists of words")
    return given


def _label(record: Mapping[str, Any], key: str, place: str) -> int | None:
    label = record.get(key)
    if label is not None and (not isinstance(label, int) or not 0 <= label < _CHOICES):
        raise DataError(f"{place}: {key}: {shown(label)} is none of {_CHOICES} choices")
    return label
