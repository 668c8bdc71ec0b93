"""Repeat both demo projects over training seeds and print the table of docs/results.md: every task, both systems.

    python locallaunch.py projects/demo_data.yaml       # makes the corpus and its features
    python scripts/studies/downstream.py --seeds 1 2 3

Each run is projects/demo.yaml or projects/demo_vlm.yaml in a folder of its own below runs/downstream; runs completed
before are not repeated. Numbers are percent; chance is computed from the test data.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.utils.files import read_json, write_json
from scripts.demo_corpus.narration import read_step
from scripts.studies.repeat import cell, run_dir, run_seed

__all__ = ["main"]

SYSTEMS = {"VideoCLIP": "projects/demo.yaml", "VLM": "projects/demo_vlm.yaml"}
SETTINGS = {"zero-shot": "_zs", "fine-tuned": ""}
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table: what is measured in which test, and what is reached without looking."""

    title: str
    test: str
    value: Callable[[Record], float]
    chance: Callable[[Record], str]


def metric(name: str) -> Callable[[Record], float]:
    """Return a reader of one number of metrics.json, in percent."""
    return lambda record: 100 * float(record["metrics"][name])


def percent(value: float, what: str) -> str:
    """Return a chance level in words."""
    return f"{100 * value:.1f} ({what})"


ROWS = (
    Row("retrieval, R@1", "vtt", metric("R1"), lambda r: percent(1 / r["metrics"]["candidates"], "a clip drawn")),
    Row("questions, accuracy", "vttqa", metric("acc"), lambda r: percent(r["metrics"]["chance"], "an answer drawn")),
    Row(
        "segmentation, frame accuracy",
        "coin",
        metric("frame_acc"),
        lambda r: percent(r["metrics"]["background_share"], "all background"),
    ),
    Row(
        "segmentation, accuracy in steps",
        "coin",
        metric("frame_acc_no_bg"),
        lambda r: percent(1 / len(r["labels"]), f"one of {len(r['labels'])} labels drawn"),
    ),
    Row(
        "localisation, average recall",
        "crosstask",
        metric("recall"),
        lambda r: percent(r["metrics"]["recall_chance_ordered"], "seconds drawn in order"),
    ),
    Row("captioning, BLEU-4", "youcookcap", metric("Bleu_4"), lambda r: without_looking(r, "Bleu_4")),
    Row("captioning, ROUGE-L", "youcookcap", metric("ROUGE_L"), lambda r: without_looking(r, "ROUGE_L")),
    Row("captioning, CIDEr × 100", "youcookcap", metric("CIDEr"), lambda r: without_looking(r, "CIDEr")),
    Row(
        "captioning, right colour, shape and action",
        "youcookcap",
        lambda r: 100 * right_share(r["captions"]["outputs"], r["captions"]["targets"]),
        lambda r: percent(
            right_share(*best_constant(r["captions"]["targets"])), "the caption that fits most test clips"
        ),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args(argv)
    records: dict[str, list[dict[str, Record]]] = {}
    for seed in arguments.seeds:
        for system in arguments.systems:
            folder = f"downstream/{system.lower()}_seed{seed}"
            code = run_seed(SYSTEMS[system], folder, seed)
            if code:
                return code
            records.setdefault(system, []).append(read_results(run_dir(folder)))
    print(table(records))
    if arguments.json:
        write_json(arguments.json, {"seeds": arguments.seeds, "percent": numbers(records)})
    return 0


def read_results(folder: Path) -> dict[str, Record]:
    """Return, for each test with a result, its metrics.json, with captions and labels where the test has them."""
    found: dict[str, Record] = {}
    for test in dict.fromkeys(row.test for row in ROWS):
        for suffix in SETTINGS.values():
            path = folder / (test + suffix) / "eval"
            if not (path / "metrics.json").exists():
                continue
            record = read_json(path / "metrics.json")
            if test == "youcookcap":
                record["captions"] = read_json(path / "merged.json")
            if test == "coin":
                videos = read_json(path / "predictions.json")
                record["labels"] = sorted({one["label"] for video in videos for one in video["annotated"]})
            found[test + suffix] = record
    return found


def numbers(records: Mapping[str, Sequence[Mapping[str, Record]]]) -> dict[str, dict[str, list[float]]]:
    """Return row title -> "system, setting" -> value of every seed, in percent."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in ROWS:
        for system, runs in records.items():
            for setting, suffix in SETTINGS.items():
                values = [row.value(run[row.test + suffix]) for run in runs if row.test + suffix in run]
                if values:
                    found.setdefault(row.title, {})[f"{system}, {setting}"] = values
    return found


def table(records: Mapping[str, Sequence[Mapping[str, Record]]]) -> str:
    """Return the Markdown table."""
    columns = [f"{system}, {setting}" for system in records for setting in SETTINGS]
    found = numbers(records)
    columns = [column for column in columns if any(column in values for values in found.values())]
    lines = [f"| task | chance | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for row in ROWS:
        tests = [
            run[name]
            for runs in records.values()
            for run in runs
            for name in (row.test, f"{row.test}_zs")
            if name in run
        ]
        if row.title in found:
            cells = [cell(values) if (values := found[row.title].get(column)) else "" for column in columns]
            lines.append(f"| {row.title} | {row.chance(tests[0])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def best_constant(targets: Sequence[Sequence[str]]) -> tuple[list[str], Sequence[Sequence[str]]]:
    """Return the one caption that is the reference of most clips, for every clip, and the references."""
    common = Counter(text for references in targets for text in references).most_common(1)[0][0]
    return [common] * len(targets), targets


def right_share(captions: Sequence[str], targets: Sequence[Sequence[str]]) -> float:
    """Return the share of captions that name the colour, shape and action of a reference, in whatever words."""
    right = [
        (said := read_step(caption)) is not None and said in [read_step(reference) for reference in references]
        for caption, references in zip(captions, targets, strict=True)
    ]
    return sum(right) / len(right)


def without_looking(record: Record, name: str) -> str:
    """Return a caption metric of the best constant caption, and of the references in random order."""
    from mmpt.evaluators.caption_metrics import NLGMetric

    targets = record["captions"]["targets"]
    scorer = NLGMetric({"eval": {"caption_tokenizer": record["metrics"]["tokenizer"], "caption_metrics": [name]}})
    others = [targets[row][0] for row in np.random.default_rng(0).permutation(len(targets))]
    constant, other = (
        100 * scorer.compute_metrics(outputs=outputs, targets=targets)[name]
        for outputs in (best_constant(targets)[0], others)
    )
    return f"{constant:.1f} (one caption for all), {other:.1f} (captions of other clips)"


if __name__ == "__main__":
    sys.exit(main())
