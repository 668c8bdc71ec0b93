"""Annotation files of the short clips, in the public layouts of VIOLET and LAVENDER.

Every file holds all splits: ``{"train": [..], "val": [..], "test": [..]}``.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.files import atomic_open, write_json
from scripts.demo_corpus.annotations import CHOICES, question_groups
from scripts.demo_corpus.narration import progressive
from scripts.demo_corpus.plan import VideoPlan
from scripts.demo_corpus.splits import ACTIONS, COLOURS, SHAPES, Triple

__all__ = ["PROMPT_WORDS", "answer_words", "write_action_questions", "write_caption_questions"]
__all__ += ["write_captions", "write_open_questions", "write_pretraining", "write_retrieval"]

_SPLITS = {"train": "short_train", "val": "short_val", "test": "short_test"}
#: What the systems add to texts: numbers of options, answers of matching, prompts (LAVENDER, section 3).
PROMPT_WORDS = (
    *("0", "1", "2", "3", "4", "option", "true", "false", "answer", "correct", "which", "from", "video", "paired"),
    *("matched", "question", "about", "fill", "in", "mask", "to", "complete", "sentence", "write", "description", "a"),
    *("text", "is", "the", "or", ":", "?", ",", ".", "[", "]", "-", "what", "colour", "shape", "does", "do", "doing"),
)
# Three things to ask: the question, and what the clip's triple answers.
_ASKED: tuple[tuple[str, Callable[[Triple], str]], ...] = (
    ("what colour is the {s}?", lambda triple: triple.colour),
    ("what shape is {c}?", lambda triple: triple.shape),
    ("what is the {c} {s} doing?", lambda triple: _doing(triple.action)),
)


def _doing(action: str) -> str:
    """Return one word for an action: both slides are sliding."""
    return progressive(action).split()[0]


def _ask(question: str, triple: Triple) -> str:
    return question.format(c=triple.colour, s=triple.shape)


def answer_words() -> list[str]:
    """Return every answer of the open-ended questions, sorted; each is one word."""
    return sorted({*COLOURS, *SHAPES, *(_doing(action) for action in ACTIONS)})


def write_pretraining(path: Path, plans: Sequence[VideoPlan]) -> None:
    """Write ``{"train": {video: [caption, ..]}, "val": {..}}``."""
    named = {"train": "short_pretrain", "val": "short_val"}
    texts = {
        split: {plan.name: list(plan.captions) for plan in plans if plan.split == own} for split, own in named.items()
    }
    write_json(path, texts, indent=None)


def write_retrieval(path: Path, plans: Sequence[VideoPlan]) -> None:
    """Write ``{"video", "caption"}`` items: each caption of a training clip is one of its own."""
    _write(path, plans, lambda plan: [{"video": plan.name, "caption": caption} for caption in plan.captions])


def write_open_questions(path: Path, plans: Sequence[VideoPlan]) -> None:
    """Write ``{"video", "question", "answer", "answer_text"}`` items and the ``vocab`` that ``answer`` counts in.

    Each clip is asked for its colour, its shape and its action, so a question says nothing of its answer.
    """
    vocabulary = answer_words()

    def items(plan: VideoPlan) -> list[dict[str, Any]]:
        triple = plan.segments[0].triple
        answers = [(_ask(question, triple), answer(triple)) for question, answer in _ASKED]
        return [
            {"video": plan.name, "question": question, "answer": vocabulary.index(word), "answer_text": word}
            for question, word in answers
        ]

    _write(path, plans, items, vocab=vocabulary)


def write_action_questions(path: Path, plans: Sequence[VideoPlan], seed: int) -> None:
    """Write what the shape of a clip is doing, with five actions to choose from, as TGIF-Action's questions."""
    rng = np.random.default_rng([seed, 8])

    def items(plan: VideoPlan) -> list[dict[str, Any]]:
        triple = plan.segments[0].triple
        others = [action for action in ACTIONS if action != triple.action]
        chosen = [triple.action, *(others[row] for row in rng.permutation(len(others))[: CHOICES - 1])]
        order = rng.permutation(CHOICES)
        options = {f"option_{number}": progressive(chosen[row]) for number, row in enumerate(order)}
        answer = int(np.flatnonzero(order == 0)[0])
        question = f"what is the {triple.colour} {triple.shape} doing?"
        return [{"video": plan.name, "question": question, **options, "answer": answer}]

    _write(path, plans, items)


def write_caption_questions(path: Path, plans: Sequence[VideoPlan], seed: int) -> None:
    """Write which of five captions is that of a test clip, as MSRVTT-MC's questions; there is no training split.

    All clips of a group, alike in colours, shapes and actions, have the same five captions to choose from.
    """
    rng = np.random.default_rng([seed, 9])
    clips = [plan for plan in plans if plan.split == "short_test"]
    groups = question_groups([plan.segments[0].triple for plan in clips])
    rows: dict[int, dict[str, Any]] = {}
    for group in groups:
        others = [row for row in range(len(clips)) if row not in group]
        fill = [others[row] for row in rng.permutation(len(others))[: CHOICES - len(group)]]
        offered = [*group, *fill]
        for row in group:
            order = rng.permutation(len(offered))
            options = {f"option_{place}": clips[offered[chosen]].captions[0] for place, chosen in enumerate(order)}
            answer = int(np.flatnonzero(order == offered.index(row))[0])
            rows[row] = {"video": clips[row].name, "question": "", **options, "answer": answer}
    write_json(path, {"train": [], "val": [], "test": [rows[row] for row in sorted(rows)]}, indent=None)


def write_captions(folder: Path, plans: Sequence[VideoPlan]) -> None:
    """Write SwinBERT's caption files: ``<split>.caption.tsv``, the list of its items, and the YAML that names both."""
    for split, own in _SPLITS.items():
        shown = [plan for plan in plans if plan.split == own]
        with atomic_open(folder / f"{split}.caption.tsv") as file:
            for plan in shown:
                file.write(f"{plan.name}\t{json.dumps([{'caption': caption} for caption in plan.captions])}\n")
        with atomic_open(folder / f"{split}.caption.linelist.tsv") as file:
            pairs = ((row, number) for row, plan in enumerate(shown) for number in range(len(plan.captions)))
            file.writelines(f"{row}\t{number}\n" for row, number in pairs)
        with atomic_open(folder / f"{split}.yaml") as file:
            file.write(f"caption: {split}.caption.tsv\ncaption_linelist: {split}.caption.linelist.tsv\n")


def _write(
    path: Path, plans: Sequence[VideoPlan], items: Callable[[VideoPlan], list[dict[str, Any]]], **more: Any
) -> None:
    texts = {
        split: [item for plan in plans if plan.split == own for item in items(plan)] for split, own in _SPLITS.items()
    }
    write_json(path, {**texts, **more}, indent=None)
