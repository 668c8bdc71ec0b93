"""The table of the downstream study: what it reads from run folders, and its chance levels."""

import json

import numpy as np
import pytest

from scripts.studies import downstream
from scripts.studies.repeat import cell


def write(folder, **files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def make_runs(folder, shift: float):
    write(folder / "vtt_zs" / "eval", metrics={"metrics": {"R1": 0.2 + shift, "candidates": 50}})
    write(folder / "vtt" / "eval", metrics={"metrics": {"R1": 0.5 + shift, "candidates": 50}})
    write(
        folder / "coin" / "eval",
        metrics={"metrics": {"frame_acc": 0.9, "background_share": 0.35, "frame_acc_no_bg": 0.8}},
        predictions=[{"annotated": [{"label": 1}, {"label": 3}]}, {"annotated": [{"label": 3}, {"label": 2}]}],
    )


def test_table_has_a_line_per_task_with_chance_and_the_values_of_all_seeds(tmp_path):
    for seed, shift in ((1, 0.0), (2, 0.02)):
        make_runs(tmp_path / str(seed), shift)
    runs = [downstream.read_results(tmp_path / seed) for seed in "12"]
    lines = downstream.table({"VideoCLIP": runs}).splitlines()
    assert lines[0] == "| task | chance | VideoCLIP, zero-shot | VideoCLIP, fine-tuned |"
    assert lines[2] == "| retrieval, R@1 | 2.0 (a clip drawn) | 21.0 ± 1.4 (20.0, 22.0) | 51.0 ± 1.4 (50.0, 52.0) |"
    assert lines[3] == "| segmentation, frame accuracy | 35.0 (all background) |  | 90.0 ± 0.0 (90.0, 90.0) |"
    assert lines[4].startswith("| segmentation, accuracy in steps | 33.3 (one of 3 labels drawn) |  | 80.0")
    assert len(lines) == 5


def test_captions_are_right_if_they_name_what_is_seen_in_any_words():
    targets = [["the red star is looping"], ["the blue ring is growing"], ["the blue ring is growing"]]
    said = ["a red star goes round and round", "the blue ring is shrinking", "none"]
    assert downstream.right_share(said, targets) == pytest.approx(1 / 3)
    assert downstream.right_share(*downstream.best_constant(targets)) == pytest.approx(2 / 3)


def test_chance_of_captioning_is_computed_from_the_references():
    pytest.importorskip("pycocoevalcap")
    targets = [["the blue ring is growing"], *[["the red star is looping"]] * 3]
    record = {"captions": {"targets": targets}, "metrics": {"tokenizer": "simple"}}
    # One caption for all is right three times of four, and has two of the five words the fourth time.
    order = np.random.default_rng(0).permutation(4)
    words = sum(5 if targets[row] == targets[other] else 2 for row, other in enumerate(order))
    others = f"{100 * words / 20:.1f}"
    assert downstream.without_looking(record, "Bleu_1") == (
        f"85.0 (one caption for all), {others} (captions of other clips)"
    )


def test_a_cell_shows_mean_spread_and_every_value():
    assert cell([1.0, 2.0, 3.0]) == "2.0 ± 1.0 (1.0, 2.0, 3.0)"
    assert cell([0.126], digits=2) == "0.13"
