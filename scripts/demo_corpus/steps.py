"""The step videos of the demo corpus: tasks of ordered steps, with pauses in which nothing is seen.

A step is a shape and an action; its colour changes from video to video. Steps are what one labels in action
segmentation, finds in step localisation and describes in captioning, so one set of videos serves all three.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mmpt.utils.errors import ConfigError
from scripts.demo_corpus.narration import progressive
from scripts.demo_corpus.splits import SHAPES, Splits, Triple, all_triples

__all__ = ["LABELS_PER_SHAPE", "STEPS_PER_TASK", "Step", "StepTask", "choose_steps", "choose_tasks", "colour_step"]

LABELS_PER_SHAPE = 2
STEPS_PER_TASK = 5
_TRIES = 1000


@dataclass(frozen=True, order=True)
class Step:
    """Name what a step shows: a shape and an action."""

    shape: str
    action: str

    @property
    def label(self) -> str:
        """The step in words."""
        return f"{self.shape} {progressive(self.action)}"


@dataclass(frozen=True)
class StepTask:
    """Hold an ordered list of steps; all videos of the task show them in this order."""

    number: int
    split: str
    steps: tuple[Step, ...]

    @property
    def title(self) -> str:
        """A name of the task, without commas: files of tasks separate steps by them."""
        return " then ".join(step.label for step in self.steps[:2]) + " and so on"


def choose_steps(splits: Splits, rng: np.random.Generator) -> list[Step]:
    """Choose the steps of a corpus, two for each shape, with different actions.

    Preferred are those which held-out as well as training triples show in two colours or more, and actions that
    few steps have so far.
    """
    held_out, train = {*splits.test, *splits.val}, set(splits.train)
    colours = {
        step: (_colours(step, held_out), _colours(step, train))
        for step in sorted({Step(triple.shape, triple.action) for triple in all_triples()})
    }
    chosen: list[Step] = []
    for _, shape in product(range(LABELS_PER_SHAPE), SHAPES):
        candidates = [step for step in colours if step.shape == shape and step not in chosen]
        order = rng.permutation(len(candidates))
        used = [step.action for step in chosen]
        best = min(
            order,
            key=lambda row: (
                -sum(min(number, 2) for number in colours[candidates[row]]),
                used.count(candidates[row].action),
            ),
        )
        chosen.append(candidates[best])
    return sorted(chosen)


def _colours(step: Step, triples: set[Triple]) -> int:
    return sum((triple.shape, triple.action) == (step.shape, step.action) for triple in triples)


def choose_tasks(steps: Sequence[Step], sizes: dict[str, int], rng: np.random.Generator) -> list[StepTask]:
    """Draw ``sizes[split]`` tasks for each split; no two tasks have the same steps in the same order.

    All steps occur in a split before any occurs again.

    Raises:
        ConfigError: if there are not so many tasks.
    """
    tasks: list[StepTask] = []
    for split, size in sizes.items():
        bag: list[Step] = []
        tries = 0
        while size:
            while len(bag) < STEPS_PER_TASK:
                rest = [step for step in steps if step not in bag]
                bag.extend(rest[row] for row in rng.permutation(len(rest)))
            drawn = tuple(bag[:STEPS_PER_TASK])
            bag = bag[STEPS_PER_TASK:]
            if drawn not in [task.steps for task in tasks]:
                tasks.append(StepTask(len(tasks) + 1, split, drawn))
                size -= 1
            elif (tries := tries + 1) > _TRIES:
                raise ConfigError(f"no {sum(sizes.values())} different tasks can be made of {len(steps)} steps")
    return tasks


def colour_step(step: Step, triples: Sequence[Triple], rng: np.random.Generator) -> Triple:
    """Return a triple that shows a step: one of ``triples`` if any does, else in any colour."""
    fitting = [triple for triple in triples if (triple.shape, triple.action) == (step.shape, step.action)]
    if not fitting:
        fitting = [triple for triple in all_triples() if (triple.shape, triple.action) == (step.shape, step.action)]
    return fitting[int(rng.integers(len(fitting)))]
