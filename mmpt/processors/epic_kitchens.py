"""EPIC-KITCHENS-100 (Damen et al. 2022), action anticipation: which action follows what is seen up to a second before.

The segments of each action, what is seen before it, are stored under its ``narration_id``
(``scripts/segment_importer/cut_windows.py``).
"""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from mmpt.processors.annotations import SkipReport, missing_field
from mmpt.processors.base import MetaProcessor, SplitOptions
from mmpt.processors.corpus_files import read_delimited
from mmpt.processors.open_questions import OpenQuestion
from mmpt.processors.reserve_cloze import MASK_TEXT
from mmpt.processors.segment_base import SegmentOptions
from mmpt.store.segment_store import open_segments
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.options import read_options

__all__ = ["AnticipationMetaOptions", "AnticipationMetaProcessor", "Action", "read_actions", "seconds_of"]

#: Verb and noun of an action as its label says them.
Action = tuple[str, str]


@dataclass
class AnticipationMetaOptions(SplitOptions, SegmentOptions):
    """EPIC_100_validation.csv (``test_path``) and the list of actions.

    Attributes:
        actions_path: actions.csv with the columns ``id``, ``verb``, ``noun`` (classes) and ``action`` (their names).
        prompt: the sentence that is to be completed. As published (specification B5.1), with a space before the gap,
            which is a token of its own: the numbers to compare with were made with it. Sentences of your own are better
            without (:data:`mmpt.processors.reserve_cloze.MASK_TEXT`), as pre-training never had it there.
        max_missing: the fraction of actions whose segments the store may lack.
    """

    actions_path: str | None = None
    prompt: str = f"My next action is {MASK_TEXT}"
    max_missing: float = 0.1


class AnticipationMetaProcessor(MetaProcessor):
    """List ``(narration_id, OpenQuestion)``.

    ``labels`` are all actions, "verb noun"; ``actions`` the verb and noun of each.

    Raises:
        ConfigError: if a path is not set.
        DataError: if a file is wrong (names line and column), or the store lacks too many segments.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": AnticipationMetaOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        options = read_options(config, AnticipationMetaOptions)
        for key in ("segment_path", "actions_path"):
            if not getattr(options, key):
                raise ConfigError(f"dataset.{key}: not set")
        by_class = read_actions(str(options.actions_path))
        self.actions: list[Action] = list(by_class.values())
        self.labels = [" ".join(action) for action in self.actions]
        numbers = {classes: number for number, classes in enumerate(by_class)}
        store = open_segments(str(resolve_path(str(options.segment_path))))
        skips, listed = SkipReport(self.path, options.max_missing, "actions"), 0
        for _, row in _rows(self.path, ("narration_id", "verb_class", "noun_class")):
            listed += 1
            number = numbers.get((row["verb_class"], row["noun_class"]), -1)
            if row["narration_id"] not in store:
                skips.add("without segments", row["narration_id"])
                continue
            answer = self.labels[number] if number >= 0 else f"{row.get('verb', '')} {row.get('noun', '')}".strip()
            self.data.append((row["narration_id"], OpenQuestion(options.prompt, answer, number)))
        skips.close(listed)


def read_actions(path: str) -> dict[tuple[str, str], Action]:
    """Read the list of actions: verb and noun by their classes, in the order of the list.

    A noun "board:chopping" reads "chopping board".

    Raises:
        DataError: if a line is wrong or two actions are the same; names it.
    """
    found: dict[tuple[str, str], Action] = {}
    for place, row in _rows(path, ("verb", "noun", "action")):
        words = row["action"].split(" ", 1)
        if len(words) != 2 or not all(words):
            raise DataError(f"{place}: action: {row['action']!r} is not a verb and a noun")
        noun = " ".join(reversed(words[1].split(":")))
        if (row["verb"], row["noun"]) in found:
            raise DataError(f"{place}: verb {row['verb']} and noun {row['noun']} come twice")
        found[row["verb"], row["noun"]] = (words[0], noun)
    if not found:
        raise DataError(f"{path}: lists no actions")
    return found


def seconds_of(timestamp: str, place: str) -> float:
    """Return the seconds of "hh:mm:ss.ff"; DataError names the place."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", timestamp.strip())
    if match is None:
        raise DataError(f"{place}: {timestamp!r} is no time, hh:mm:ss.ff")
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def _rows(path: Any, columns: tuple[str, ...]) -> Any:
    for place, row in read_delimited(resolve_path(path), ","):
        for column in columns:
            if column not in row:
                raise missing_field(place, "column", column, row)
        yield place, {key: value.strip() for key, value in row.items()}
