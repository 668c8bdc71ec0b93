"""A tiny corpus as a user would describe it: one file of rows for every task (docs/own_corpus.md)."""

import json
from pathlib import Path

from scripts.tiny_data.concepts import THINGS, VERBS, World
from scripts.tiny_data.retrieval_files import save_feature, write_lines

__all__ = ["write_own"]

_CLASSES = 6


def write_own(data: Path, world: World, train: int, valid: int, test: int) -> None:
    """Write ``own/corpus.jsonl`` and the features: three segments a video, of six concepts in all."""
    chosen = world.rng.choice(len(VERBS) * len(THINGS), _CLASSES, replace=False)
    concepts = [(VERBS[number // len(THINGS)], THINGS[number % len(THINGS)]) for number in chosen]
    labels = [f"{verb} the {thing}" for verb, thing in concepts]
    rows = []
    for number, split in enumerate(["train"] * train + ["valid"] * valid + ["test"] * test):
        shown = world.rng.choice(_CLASSES, 3, replace=False).tolist()
        segments = world.timed([concepts[row] for row in shown], (4, 9), 3)
        name = f"own_{number:03d}"
        save_feature(data / "own" / "feat", name, world.features(segments))
        for segment in segments:
            others = [label for label in labels if label != segment.text]
            options = [segment.text, *world.rng.choice(others, 3, replace=False).tolist()]
            world.rng.shuffle(options)
            row = {"video": name, "start": segment.start, "end": segment.end, "text": f"someone can {segment.text}"}
            row |= {"question": "", "options": options, "answer": segment.text, "label": segment.text, "split": split}
            rows.append(json.dumps(row))
    write_lines(data / "own" / "corpus.jsonl", rows)
