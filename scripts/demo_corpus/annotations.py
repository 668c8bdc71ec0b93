"""Annotation files of the demo corpus beyond retrieval, in the layouts of the public corpora.

Multiple-choice questions as MSR-VTT's, steps as COIN's, CrossTask's and YouCook2's.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mmpt.utils.files import atomic_open, write_json
from scripts.demo_corpus.narration import describe
from scripts.demo_corpus.plan import VideoPlan
from scripts.demo_corpus.splits import Triple, all_triples
from scripts.demo_corpus.steps import StepTask

__all__ = ["question_groups", "write_coin", "write_crosstask", "write_questions", "write_youcook"]

CHOICES = 5
#: Published subsets: COIN's validation videos are testing videos; here they are training videos of their own list.
_COIN_SUBSETS = {"steps_train": "training", "steps_val": "training", "steps_test": "testing"}
_YOUCOOK_LISTS = {"steps_train": "train_list.txt", "steps_val": "dev_list.txt", "steps_test": "val_list.txt"}


def question_groups(triples: Sequence[Triple]) -> list[list[int]]:
    """Split triples into groups of five that share as many colours, shapes and actions as there are; returns rows.

    The last group may be smaller. All questions of a group have the same five answers to choose from, so that
    the answers alone do not say which is right.
    """
    left = list(range(len(triples)))
    groups = []
    while left:
        group = [left.pop(0)]
        while left and len(group) < CHOICES:
            likeness = [max(_shared(triples[row], triples[other]) for other in group) for row in left]
            group.append(left.pop(int(np.argmax(likeness))))
        groups.append(group)
    return groups


def _shared(one: Triple, other: Triple) -> int:
    return (one.colour == other.colour) + (one.shape == other.shape) + (one.action == other.action)


def write_questions(path: Path, clips: Sequence[VideoPlan], seed: int) -> None:
    """Write one question for each clip: which of five captions is its own. Tab-separated, as MSR-VTT's."""
    rng = np.random.default_rng([seed, 5])
    triples = [clip.segments[0].triple for clip in clips]
    rows: list[list[str | int]] = [[] for _ in clips]
    for group in question_groups(triples):
        captions = [clips[row].captions[0] for row in group]
        others = [triple for triple in all_triples() if triple not in [triples[row] for row in group]]
        if len(triples) >= CHOICES:
            others = [triple for triple in others if triple in triples]
        fill = [others[i] for i in rng.permutation(len(others))[: CHOICES - len(group)]]
        captions += [clips[triples.index(t)].captions[0] if t in triples else describe(t, rng) for t in fill]
        for row in group:
            order = rng.permutation(CHOICES)
            answer = int(np.flatnonzero(order == group.index(row))[0])
            rows[row] = [clips[row].name, *(captions[i] for i in order), answer]
    table = pd.DataFrame(rows, columns=["vid_key", *(f"a{number + 1}" for number in range(CHOICES)), "answer"])
    with atomic_open(path) as file:
        table.to_csv(file, sep="\t", index=False)


def write_coin(path: Path, plans: Sequence[VideoPlan]) -> None:
    """Write ``COIN.json``: per video its subset and the label, number and seconds of every step."""
    labels = sorted({step.label for task in _tasks(plans) for step in task.steps})
    database = {
        plan.name: {
            "class": _task(plan).title,
            "recipe_type": _task(plan).number,
            "duration": plan.seconds,
            "start": 0.0,
            "end": plan.seconds,
            "subset": _COIN_SUBSETS[plan.split],
            "annotation": [
                {"id": str(labels.index(label) + 1), "label": label, "segment": [segment.start, segment.end]}
                for segment, label in zip(plan.segments, _labels(plan), strict=True)
            ],
        }
        for plan in plans
    }
    write_json(path, {"database": database}, indent=None)


def write_crosstask(folder: Path, plans: Sequence[VideoPlan]) -> None:
    """Write CrossTask's files: tested are the primary tasks, trained on the related ones, which share their steps."""
    for name, splits in (
        ("videos.csv", ("steps_train", "steps_val", "steps_test")),
        ("videos_val.csv", ("steps_val",)),
    ):
        with atomic_open(folder / name) as file:
            file.writelines(
                f"{_task(plan).number},{plan.name},{plan.file_name}\n" for plan in plans if plan.split in splits
            )
    for name, primary in (("tasks_primary.txt", True), ("tasks_related.txt", False)):
        with atomic_open(folder / name) as file:
            for task in _tasks(plans):
                if (task.split == "steps_test") == primary:
                    steps = ",".join(step.label for step in task.steps)
                    file.write(f"{task.number}\n{task.title}\n-\n{len(task.steps)}\n{steps}\n\n")
    for plan in plans:
        labels = [step.label for step in _task(plan).steps]
        with atomic_open(folder / "annotations" / f"{_task(plan).number}_{plan.name}.csv") as file:
            for segment, label in zip(plan.segments, _labels(plan), strict=True):
                file.write(f"{labels.index(label) + 1},{segment.start},{segment.end}\n")


def write_youcook(folder: Path, plans: Sequence[VideoPlan]) -> None:
    """Write YouCook2's lists of videos and its annotations: whole seconds and a sentence for each step."""
    for split, name in _YOUCOOK_LISTS.items():
        with atomic_open(folder / name) as file:
            file.writelines(f"{_task(plan).number}/{plan.name}\n" for plan in plans if plan.split == split)
    database = {
        plan.name: {
            "recipe_type": str(_task(plan).number),
            "duration": plan.seconds,
            "subset": "validation" if plan.split == "steps_test" else "training",
            "annotations": [
                {"id": number, "segment": [round(segment.start), round(segment.end)], "sentence": sentence}
                for number, (segment, sentence) in enumerate(zip(plan.segments, plan.captions, strict=True))
            ],
        }
        for plan in plans
    }
    write_json(folder / "youcookii_annotations_trainval.json", {"database": database}, indent=None)


def _task(plan: VideoPlan) -> StepTask:
    assert plan.task is not None
    return plan.task


def _tasks(plans: Sequence[VideoPlan]) -> list[StepTask]:
    return sorted({_task(plan) for plan in plans}, key=lambda task: task.number)


def _labels(plan: VideoPlan) -> list[str]:
    by_triple = {(step.shape, step.action): step.label for step in _task(plan).steps}
    return [by_triple[segment.triple.shape, segment.triple.action] for segment in plan.segments]
