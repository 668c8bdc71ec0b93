"""The step videos of the demo corpus: tasks of ordered steps, with pauses in which nothing is seen.

A step is a shape and an action; its colour changes from video to video. Steps are what one labels in action
segmentation, finds in step localisation and describes in captioning, so one set of videos serves all three.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from mmpt.utils.errors import ConfigError
from scripts.demo_corpus.narration import progressive
from scripts.demo_corpus.splits import ACTIONS, SHAPES, Splits, Triple, all_triples

__all__ = [
    "ACTIONS_OF_STEPS",
    "SHAPES_OF_STEPS",
    "STEPS_PER_TASK",
    "Step",
    "StepTask",
    "choose_steps",
    "choose_tasks",
    "colour_step",
]

SHAPES_OF_STEPS = 4
ACTIONS_OF_STEPS = 4
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
    """Choose the steps of a corpus: all pairs of four shapes and four actions.

    Every step so has others that differ from it in one of the two alone. Of all choices, it is one of those whose
    steps are best shown by held-out as well as by training triples, in two colours each if there are.
    """
    counts = [Counter(map(_step_of, triples)) for triples in ((*splits.test, *splits.val), splits.train)]
    visible = set(map(_step_of, all_triples()))
    grids = [
        grid
        for shapes, actions in product(combinations(SHAPES, SHAPES_OF_STEPS), combinations(ACTIONS, ACTIONS_OF_STEPS))
        if visible.issuperset(grid := [Step(*pair) for pair in product(shapes, actions)])
    ]
    best = max(
        rng.permutation(len(grids)),
        key=lambda row: sum(min(count[step], 2) for step in grids[row] for count in counts),
    )
    return sorted(grids[best])


def _step_of(triple: Triple) -> Step:
    return Step(triple.shape, triple.action)


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
    fitting = [triple for triple in triples if _step_of(triple) == step]
    fitting = fitting or [triple for triple in all_triples() if _step_of(triple) == step]
    return fitting[int(rng.integers(len(fitting)))]
