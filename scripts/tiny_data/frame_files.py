"""Tiny frame stores and text files of VIOLET's and LAVENDER's tasks: a clip of few frames, and what is said about it.

A frame shows a verb by the colour of its left half and a thing by that of its right half, so that a model can learn to
tell them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.images import encode_jpeg
from mmpt.store.visual_tokens import new_shard
from mmpt.utils.files import atomic_open, write_json
from scripts.tiny_data.concepts import THINGS, VERBS, World
from scripts.tiny_data.retrieval_files import write_lines

__all__ = ["TINY_CODES", "TINY_GRID", "TINY_SIDE", "frame_words", "write_frames"]

#: Pixels of a side of the stored frames, and what tests of training take them to.
TINY_SIDE = 32
#: Visual tokens of a frame, rows and columns, and their number.
TINY_GRID = (4, 4)
TINY_CODES = 8192
_SPLITS = ("train", "val", "test")
_NUMBERS = tuple(map(str, range(5)))
_PROMPTS = (
    *("is", "the", "video", "text", "paired", "matched", "true", "or", "false", "which", "answer", "correct", "from"),
    *("question", "about", "fill", "in", "mask", "to", "complete", "sentence", "write", "a", "description", "option"),
    *("-", ":", ",", ".", "?", "[", "]"),
)
Item = dict[str, Any]


def frame_words() -> set[str]:
    """Return the words of the texts and of what LAVENDER adds to them."""
    return {"someone", "can", "what", "do", "with", *VERBS, *THINGS, *_NUMBERS, *_PROMPTS}


def write_frames(data: Path, world: World, per_split: int) -> None:
    """Write every corpus of the two systems, ``per_split`` videos for each of training, validation and test."""
    _write_pretraining(data / "webvid_cc3m", world, per_split)
    for corpus, tasks in _CORPORA.items():
        folder = data / corpus
        videos = _videos(corpus, world, per_split)
        _write_store(folder / "frames", world, videos)
        for task in tasks:
            texts = _TASKS[task](world, videos)
            # What a multi-task training reads of it: here no video is in two splits, so that nothing is filtered out.
            for place in (folder, data / "multi_task"):
                write_json(place / f"txt_{task}.json", texts, indent=None)
    for corpus, name in (("msrvtt", "MSRVTT-v2"), ("msvd", "MSVD")):
        videos = _videos(f"{corpus}_cap", world, per_split)
        _write_store(data / corpus / "frames_32", world, videos, frames=8)
        _write_captions(data / corpus / name, videos)


class _Video:
    """A video: its id, split and what it shows."""

    def __init__(self, name: str, split: str, verb: int, thing: int) -> None:
        self.name, self.split, self.verb, self.thing = name, split, verb, thing

    @property
    def caption(self) -> str:
        return f"someone can {VERBS[self.verb]} the {THINGS[self.thing]}"


def _videos(prefix: str, world: World, per_split: int) -> list[_Video]:
    numbers = world.rng.permutation(len(VERBS) * len(THINGS))[: 3 * per_split].tolist()
    return [
        _Video(f"{prefix}_{split}_{row:03d}", split, *divmod(number, len(THINGS)))
        for (split, row), number in zip(
            ((split, row) for split in _SPLITS for row in range(per_split)), numbers, strict=True
        )
    ]


def _write_store(folder: Path, world: World, videos: Sequence[_Video], frames: int = 5) -> None:
    with FrameStoreWriter(folder) as store:
        for video in videos:
            store.append(video.name, [encode_jpeg(_picture(video, world)) for _ in range(frames)])


def _picture(video: _Video, world: World) -> np.ndarray:
    """Draw one frame, uint8 (rows, columns, 3)."""
    half = TINY_SIDE // 2
    image = world.rng.integers(0, 40, (TINY_SIDE, TINY_SIDE, 3))
    for number, columns in ((video.verb, slice(0, half)), (video.thing, slice(half, None))):
        image[:, columns] += 100 * np.array([number >> bit & 1 for bit in range(3)])
    return image.astype(np.uint8)


def _write_pretraining(folder: Path, world: World, per_split: int) -> None:
    videos = _videos("webvid", world, per_split)
    images = _videos("cc3m", world, per_split)
    for name, listed in (("webvid2.5m", videos), ("cc3m", images)):
        texts = {
            split: {video.name: [video.caption] for video in listed if video.split == split} for split in _SPLITS[:2]
        }
        write_json(folder / f"txt_{name}.json", texts, indent=None)
    _write_store(folder / "frames", world, videos, frames=4)
    _write_store(folder / "frames", world, images, frames=1)
    with new_shard(folder / "vq", TINY_GRID, {"tool": "scripts/tiny_data"}) as shard:
        for listed, frames in ((videos, 4), (images, 1)):
            for video in listed:
                codes = world.rng.integers(0, TINY_CODES, (frames, *TINY_GRID), dtype=np.uint16)
                shard.append(codes, video.name)


def _by_split(videos: Sequence[_Video], items: Callable[[_Video], list[Item]]) -> dict[str, Any]:
    return {split: [item for video in videos if video.split == split for item in items(video)] for split in _SPLITS}


def _retrieval(world: World, videos: Sequence[_Video]) -> dict[str, Any]:
    return _by_split(videos, lambda video: [{"video": video.name, "caption": video.caption}])


def _paragraphs(world: World, videos: Sequence[_Video]) -> dict[str, Any]:
    return _by_split(videos, lambda video: [{"video": video.name, "caption": [video.caption, video.caption]}])


def _actions(world: World, videos: Sequence[_Video]) -> dict[str, Any]:
    def items(video: _Video) -> list[Item]:
        others = [verb for verb in VERBS if verb != VERBS[video.verb]]
        return [_choice(world, video, f"what can someone do with the {THINGS[video.thing]}", VERBS[video.verb], others)]

    return _by_split(videos, items)


def _captions_to_choose(world: World, videos: Sequence[_Video]) -> dict[str, Any]:
    def items(video: _Video) -> list[Item]:
        others = [other.caption for other in videos if other.split == video.split and other is not video]
        return [_choice(world, video, "", video.caption, others)]

    return _by_split(videos, items)


def _choice(world: World, video: _Video, question: str, right: str, others: Sequence[str]) -> Item:
    options = [str(option) for option in world.rng.choice(list(others), 4, replace=False)]
    answer = int(world.rng.integers(5))
    options.insert(answer, right)
    named = {f"option_{number}": option for number, option in enumerate(options)}
    return {"video": video.name, "question": question, **named, "answer": answer}


def _questions(world: World, videos: Sequence[_Video]) -> dict[str, Any]:
    vocabulary = sorted(VERBS)

    def items(video: _Video) -> list[Item]:
        word = VERBS[video.verb]
        question = f"what can someone do with the {THINGS[video.thing]}"
        return [
            {"video": video.name, "question": question, "answer": vocabulary.index(word), "answer_text": word},
        ]

    return {**_by_split(videos, items), "vocab": vocabulary}


def _blanks(world: World, videos: Sequence[_Video]) -> dict[str, Any]:
    classes = {word: number for number, word in enumerate(sorted(THINGS))}

    def items(video: _Video) -> list[Item]:
        question = f"someone can {VERBS[video.verb]} the [MASK]"
        word = THINGS[video.thing]
        return [{"video": video.name, "question": question, "answer": classes[word], "answer_text": word}]

    return {**_by_split(videos, items), "ans2label": classes}


def _write_captions(folder: Path, videos: Sequence[_Video]) -> None:
    """Write SwinBERT's files of each split: captions, the list of items, references, and the YAML that names them."""
    for split in _SPLITS:
        shown = [video for video in videos if video.split == split]
        write_lines(
            folder / f"{split}.caption.tsv", (f'{video.name}\t[{{"caption": "{video.caption}"}}]' for video in shown)
        )
        write_lines(folder / f"{split}.caption.linelist.tsv", (f"{row}\t0" for row in range(len(shown))))
        coco = {
            "images": [{"id": video.name, "file_name": video.name} for video in shown],
            "annotations": [
                {"id": row, "image_id": video.name, "caption": video.caption} for row, video in enumerate(shown)
            ],
        }
        write_json(folder / f"{split}.caption_coco_format.json", coco, indent=None)
        named = {"caption": "caption.tsv", "caption_linelist": "caption.linelist.tsv"}
        named |= {"caption_coco_format": "caption_coco_format.json"}
        with atomic_open(folder / f"{split}_32frames.yaml") as file:
            file.write(f"img: frame_tsv/{split}_32frames.img.tsv\n")
            file.writelines(f"{key}: {split}.{name}\n" for key, name in named.items())


_TASKS: dict[str, Callable[[World, Sequence[_Video]], dict[str, Any]]] = {
    "msrvtt-retrieval": _retrieval,
    "didemo-retrieval": _paragraphs,
    "youcook2-retrieval": _retrieval,
    "lsmdc-retrieval": _retrieval,
    "msvd-retrieval": _retrieval,
    "tgif-action": _actions,
    "tgif-transition": _actions,
    "msrvtt-mc": _captions_to_choose,
    "lsmdc-mc": _captions_to_choose,
    "msvd-qa": _questions,
    "msrvtt-qa": _questions,
    "tgif-frame": _questions,
    "lsmdc-fib": _blanks,
}
_CORPORA = {
    "msrvtt": ("msrvtt-retrieval", "msrvtt-qa", "msrvtt-mc"),
    "didemo": ("didemo-retrieval",),
    "youcook": ("youcook2-retrieval",),
    "lsmdc": ("lsmdc-retrieval", "lsmdc-mc", "lsmdc-fib"),
    "msvd": ("msvd-retrieval", "msvd-qa"),
    "tgif": ("tgif-action", "tgif-transition", "tgif-frame"),
}
