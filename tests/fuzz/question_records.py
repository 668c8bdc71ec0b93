"""Files of questions and texts for the fuzz tests: VCR, TVQA and VIST as their authors give them, and random text."""

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from segment_records import tokenizer

from mmpt.processors.random_text import open_random_text
from mmpt.store.images import encode_jpeg
from mmpt.store.question_writer import Imported, write_questions
from mmpt.store.tvqa_annotations import read_clip_subtitles, tvqa_items
from mmpt.store.vcr_annotations import STYLES, vcr_items
from mmpt.store.vist_annotations import story_items
from mmpt.utils.errors import MMPTError
from mmpt.utils.json_lines import read_lines

__all__ = ["QUESTION_RECORDS"]

IMAGE = encode_jpeg(np.zeros((12, 16, 3), np.uint8))
#: Too large to be kept, so that its pixels are read.
LONG_IMAGE = encode_jpeg(np.zeros((2, 804, 3), np.uint8))
OBJECTS = {"boxes": [[1, 1, 9, 9, 0.9], [2, 2, 8, 8, 0.8]], "segms": [[[[1, 1], [9, 1], [9, 9]]], []]}
REASONING = {
    "annot_id": "val-0",
    "img_id": "val-0",
    "img_fn": "1.jpg",
    "metadata_fn": "1.json",
    "objects": ["person", "dog"],
    "question": ["Who", "is", [0], "?"],
    "answer_choices": [[[0], f"is{n}", "."] for n in range(4)],
    "answer_label": 2,
    "rationale_choices": [[[1], f"r{n}", "."] for n in range(4)],
    "rationale_label": 1,
}
ASKED = {"qid": 12, "q": "Who?", "ts": "0-1", "vid_name": "vid", "answer_idx": 3} | {f"a{n}": "A" for n in range(5)}
SAID = {"vid_name": "vid", "sub": [{"text": "hello", "start": 0.1, "end": 0.5}]}
STORY = {
    "annotations": [
        [{"story_id": "7", "photo_flickr_id": str(n), "worker_arranged_photo_order": n, "original_text": "t"}]
        for n in range(5)
    ]
}


def beside(file: Path, name: str, content: bytes | str) -> Path:
    """Write another file where the one that is tampered with lies, unless it is that one."""
    path = file.with_name(name)
    if path != file:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def imported(file: Path, items: Iterator[tuple[str, Callable[[], Imported]]], kind: str = "frames") -> None:
    """Import all questions; what is wrong with one names the file or its line, and what was written can be read."""
    store, questions = file.parent / "store", file.with_name("questions.jsonl")
    shutil.rmtree(store, ignore_errors=True)
    questions.unlink(missing_ok=True)
    try:
        summary = write_questions(items, store, questions, {}, kind)
    except MMPTError as error:
        assert file.name in str(error) or "no question could be used" in str(error), error
        return
    for place, told in summary.failures:
        assert told.startswith(place) or file.name in told, told
    assert len(list(read_lines(questions))) == summary.done


def reasoning(file: Path, _: Path) -> None:
    annotations = beside(file, "vcr.jsonl", json.dumps(REASONING))
    beside(file, "1.jpg", IMAGE)
    beside(file, "1.json", json.dumps(OBJECTS))
    for style in STYLES:
        imported(file, vcr_items(annotations, file.parent, style, mirrored=style == "reserve"))


def clips(file: Path, _: Path) -> None:
    annotations = beside(file, "tvqa.jsonl", json.dumps(ASKED))
    subtitles = beside(file, "subtitles.jsonl", json.dumps(SAID))
    (file.parent / "frames" / "vid").mkdir(parents=True, exist_ok=True)
    for number in range(1, 5):
        (file.parent / "frames" / "vid" / f"{number:05d}.jpg").write_bytes(IMAGE)
    read_clip_subtitles(subtitles)
    imported(file, tvqa_items(annotations, file.parent / "frames", subtitles), "segments")


def stories(file: Path, _: Path) -> None:
    annotations = beside(file, "vist.json", json.dumps(STORY))
    for number in range(5):
        beside(file, f"{number}.jpg", LONG_IMAGE if number == 0 else IMAGE)
    imported(file, story_items(annotations, file.parent))


@functools.cache
def words_file() -> bytes:
    return tokenizer("reserve")["lowercase_encoder.json"]


def random_text(file: Path, _: Path) -> None:
    text = open_random_text(file, str(beside(file, "encoder.json", words_file())))
    for seed in range(3):
        ids = text.sample(np.random.default_rng(seed), 5)
        assert ids.dtype == np.int64 and len(ids) <= 5


QUESTION_RECORDS: dict[str, tuple[str, Any, tuple[str, ...], Callable[[Path, Path], Any]]] = {
    "vcr": ("vcr.jsonl", REASONING, tuple(REASONING), reasoning),
    "objects of vcr": ("1.json", OBJECTS, tuple(OBJECTS), reasoning),
    "image of vcr": ("1.jpg", lambda: IMAGE, (), reasoning),
    "tvqa": ("tvqa.jsonl", ASKED, tuple(ASKED), clips),
    "subtitles of tvqa": ("subtitles.jsonl", SAID, ("vid_name", "sub", "text", "start", "end"), clips),
    "vist": ("vist.json", STORY, ("annotations", *STORY["annotations"][0][0]), stories),
    "photo of vist": ("0.jpg", lambda: LONG_IMAGE, (), stories),
    "random text": ("t.txt", "It is a few words of a text, and more words. " * 9, (), random_text),
}
