"""Render the stories of the demo corpus: videos with narration word by word and a sound track that says the same.

    python scripts/demo_corpus/generate_stories.py --output data/demo_stories

Writes, below the output folder:

    videos/<id>.mp4              stories of five stages, 75 seconds, and single stages of 5 seconds, with sound
    transcripts/<id>.json        what the narrator says: {"words": [{"word", "start", "end"}, ..]}, times in seconds
    train.lst, val.lst, test.lst ids of the videos with stories; asked.lst: the files of the single stages
    stories/, stories.jsonl      the stories of the test as VIST has them: five images and five captions
    txt_asked-mc.json            questions about single stages, five options each, as TGIF-Action's
    corpus.jsonl                 a row for each stage of a story and what is said about it (docs/own_corpus.md); of the
                                 test, of each triple of colour, shape and size the first alone
    corpus_questions.jsonl       which of five sentences belongs to a stage of the test
    text.txt                     all that is ever said or asked, to train a tokenizer with
    manifest.json                what was done

A second run renders only what is missing.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.images import encode_jpeg
from mmpt.utils.extras import require
from mmpt.utils.files import atomic_open, write_json
from scripts.demo_corpus.command import corpus_command
from scripts.demo_corpus.rendering import render_corpus
from scripts.demo_corpus.splits import COLOURS, SHAPES
from scripts.demo_corpus.stories import (
    CHOICES,
    STAGE_SECONDS,
    STAGES,
    Stage,
    StoryCounts,
    StoryPlan,
    plan_stories,
)

__all__ = ["main"]

_SPLITS = {"train": "asked_train", "val": "asked_val", "test": "asked_test"}
#: What is asked of a stage: a question, the answer, and all answers to such a question.
_ASKED: tuple[tuple[str, Callable[[Stage], str], Sequence[str]], ...] = (
    ("what colour is the {shape}?", lambda stage: stage.colour, COLOURS),
    ("what shape is {colour}?", lambda stage: stage.shape, SHAPES),
    ("what size has the {shape}?", lambda stage: STAGES[stage.number], STAGES),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Render the videos and write their texts; return the exit code, 1 if a video could not be written."""
    return corpus_command(__doc__, "data/demo_stories", StoryCounts(), generate, argv)


def generate(output: Path, seed: int, counts: StoryCounts, workers: int) -> int:
    """Write a corpus to a folder; return the exit code.

    Raises:
        ConfigError: if the folder holds a corpus of another seed or size.
    """
    require("av", "video")
    plans = plan_stories(seed, counts)
    settings = {"seed": seed, **asdict(counts)}
    return render_corpus(plans, output, settings, workers, lambda: write_texts(plans, output, seed))


def write_texts(plans: Sequence[StoryPlan], output: Path, seed: int) -> None:
    """Write every annotation file, and the images of the test's stories."""
    for plan in plans:
        write_json(output / "transcripts" / f"{plan.name}.json", {"words": _words(plan)}, indent=None)
    for split in ("train", "val", "test"):
        _write_lines(output / f"{split}.lst", (plan.name for plan in plans if plan.split == f"story_{split}"))
    asked_files = (f"videos/{plan.file_name}" for plan in plans if plan.split.startswith("asked"))
    _write_lines(output / "asked.lst", asked_files)
    questions = _questions(plans, np.random.default_rng([seed, 13]))
    write_json(output / "txt_asked-mc.json", questions, indent=None)
    asked = [text for items in questions.values() for item in items for text in (item["question"], _options(item))]
    said = [" ".join(word.text for word in plan.words) for plan in plans]
    _write_lines(output / "text.txt", [*said, *dict.fromkeys(asked)])
    _write_stories([plan for plan in plans if plan.split == "story_test"], output)
    rows = _rows(plans)
    _write_lines(output / "corpus.jsonl", map(json.dumps, rows))
    questions_of_rows = _which_sentence(rows, plans, np.random.default_rng([seed, 14]))
    _write_lines(output / "corpus_questions.jsonl", map(json.dumps, questions_of_rows))


def _words(plan: StoryPlan) -> list[dict[str, Any]]:
    return [{"word": word.text, "start": word.start, "end": word.end} for word in plan.words]


def _options(item: dict[str, Any]) -> str:
    return " ".join(str(item[f"option_{number}"]) for number in range(CHOICES))


def _questions(plans: Sequence[StoryPlan], rng: np.random.Generator) -> dict[str, list[dict[str, Any]]]:
    """Return for each split the questions about its stages; options are drawn anew for each."""
    found: dict[str, list[dict[str, Any]]] = {split: [] for split in _SPLITS}
    for split, own in _SPLITS.items():
        for plan in (plan for plan in plans if plan.split == own):
            stage = plan.stages[0]
            for question, answer, known in _ASKED:
                others = [word for word in known if word != answer(stage)]
                chosen = [answer(stage), *(others[row] for row in rng.permutation(len(others))[: CHOICES - 1])]
                order = rng.permutation(CHOICES)
                options = {f"option_{place}": chosen[row] for place, row in enumerate(order)}
                asked = question.format(shape=stage.shape, colour=stage.colour)
                right = int(np.flatnonzero(order == 0)[0])
                found[split].append({"video": plan.name, "question": asked, **options, "answer": right})
    return found


def _stage_of(row: dict[str, Any], plans: dict[str, StoryPlan]) -> Stage:
    return plans[row["video"]].stages[round(row["start"] / STAGE_SECONDS)]


def _rows(plans: Sequence[StoryPlan]) -> list[dict[str, Any]]:
    """Return a row for each stage of the stories; a query of the test has a single right clip."""
    rows, asked = [], set()
    for plan in (plan for plan in plans if plan.split.startswith("story")):
        split = {"story_train": "train", "story_val": "valid", "story_test": "test"}[plan.split]
        for number, (stage, sentence) in enumerate(zip(plan.stages, _sentences(plan), strict=True)):
            triple = (stage.colour, stage.shape, stage.number)
            if split == "test" and triple in asked:
                continue
            asked |= {triple} if split == "test" else set()
            start = number * STAGE_SECONDS
            times = {"start": start, "end": start + STAGE_SECONDS}
            rows.append({"video": plan.name, **times, "text": sentence.rstrip("."), "split": split})
    return rows


def _which_sentence(
    rows: Sequence[dict[str, Any]], plans: Sequence[StoryPlan], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Return the rows of the test with five sentences; the others are of stages that are alike in something."""
    by_name = {plan.name: plan for plan in plans}
    tested = [row for row in rows if row["split"] == "test"]
    seen = [_stage_of(row, by_name) for row in tested]
    found = []
    for row, stage in zip(tested, seen, strict=True):
        alike = [
            other["text"]
            for other, shown in zip(tested, seen, strict=True)
            if other is not row
            and (shown.colour, shown.shape, shown.number) != (stage.colour, stage.shape, stage.number)
            and (shown.colour == stage.colour or shown.shape == stage.shape or shown.number == stage.number)
        ]
        chosen = [row["text"], *(alike[place] for place in rng.permutation(len(alike))[: CHOICES - 1])]
        order = rng.permutation(len(chosen)).tolist()
        options = [chosen[place] for place in order]
        found.append({**row, "question": "", "options": options, "answer": order.index(0)})
    return found


def _write_stories(plans: Sequence[StoryPlan], output: Path) -> None:
    """Write each story of the test as five images and the five sentences about them."""
    lines = []
    with FrameStoreWriter(output / "stories", producer={"tool": "generate_stories"}) as writer:
        for plan in plans:
            images: list[np.ndarray] = []
            for begin in range(0, len(plan.stages), len(STAGES)):
                name = f"{plan.name}_{begin // len(STAGES)}"
                end = begin + len(STAGES)
                if name not in writer.stored:
                    images = images or _middles(plan)
                    writer.append(name, [encode_jpeg(image) for image in images[begin:end]])
                lines.append({"id": name, "images": name, "sentences": _sentences(plan)[begin:end]})
    _write_lines(output / "stories.jsonl", map(json.dumps, lines))


def _middles(plan: StoryPlan) -> list[np.ndarray]:
    pictures = list(plan.pictures(np.random.default_rng(plan.seed)))
    return [pictures[round((number + 0.5) * STAGE_SECONDS * plan.fps)] for number in range(len(plan.stages))]


def _sentences(plan: StoryPlan) -> list[str]:
    said = " ".join(word.text for word in plan.words)
    return [f"{sentence.strip()}." for sentence in said.split(".") if sentence.strip()]


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_open(path) as file:
        file.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
