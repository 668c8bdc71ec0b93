"""Repeat the demo's training over seeds and without its two ideas, and print the table of docs/results.md.

    make demo                                           # makes the corpus and its features
    python scripts/studies/demo_ablation.py --seeds 1 2 3

Each run is the demo project with a few settings changed, in its own folder below runs/demo_ablation; runs
completed before are not repeated. Text-to-video R@1 among the held-out test clips, in percent.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.utils.files import read_json, write_json
from scripts.studies.repeat import cell, run_dir, run_seed

__all__ = ["main"]

VARIANTS = {
    "retrieved_overlapped": ("retrieved batches, overlapped clips", []),
    "random_overlapped": ("random batches, overlapped clips", ["task_group.pretrain.retri_epoch=1000000"]),
    "retrieved_exact": (
        "retrieved batches, exact clips",
        ["task_group.pretrain.dataset.aligner=VideoRetriAligner"],
    ),
    "random_exact": (
        "random batches, exact clips",
        [
            "task_group.pretrain.retri_epoch=1000000",
            "task_group.pretrain.dataset.aligner=VideoRetriAligner",
        ],
    ),
}
TESTS = {"zero-shot": "vtt_zs", "fine-tuned": "vtt"}
STAGES = "run_task=[how2.yaml, [test_vtt_zs.yaml, vtt_videoclip.yaml], test_vtt_videoclip.yaml]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args(argv)
    found: dict[str, dict[str, list[float]]] = {}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            folder = f"demo_ablation/{variant}_seed{seed}"
            code = run_seed("projects/demo.yaml", folder, seed, [STAGES, *VARIANTS[variant][1]])
            if code:
                return code
            for test, name in TESTS.items():
                metrics = read_json(run_dir(folder) / name / "eval" / "metrics.json")["metrics"]
                found.setdefault(variant, {}).setdefault(test, []).append(100 * metrics["R1"])
    print(table(found))
    if arguments.json:
        write_json(arguments.json, {"seeds": arguments.seeds, "R@1": found})
    return 0


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Return the Markdown table of mean and standard deviation over seeds, with every seed's value."""
    lines = ["| pre-training | " + " | ".join(f"{test} R@1" for test in TESTS) + " |", "|---|---|---|"]
    for variant, results in found.items():
        cells = [cell(results[test]) for test in TESTS]
        lines.append(f"| {VARIANTS[variant][0]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
