"""Leaderboards: intervals, grouping by training, and the terms of a comparison."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mmpt.evaluators.comparison import Comparison, build_comparison, leaderboard, leaderboard_json
from mmpt.evaluators.comparison_page import comparison_figures, comparison_sections
from mmpt.evaluators.equal_terms import terms_of, terms_table
from mmpt.evaluators.intervals import bootstrap_interval, student_quantile, t_interval
from mmpt.evaluators.results import collect_results
from mmpt.utils.errors import DataError
from mmpt_cli.report import main as report_main
from mmpt_cli.results import main as results_main

ROOT = Path(__file__).resolve().parents[2]


def _student_share(x: float, degrees: int) -> float:
    """Integrate Student's density from -x to x by Simpson's rule."""
    norm = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))
    grid = np.linspace(0, x, 20_001)
    density = norm * (1 + grid**2 / degrees) ** (-(degrees + 1) / 2)
    weights = np.ones(len(grid))
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return float(2 * (weights * density).sum() * (grid[1] - grid[0]) / 3)


@pytest.mark.parametrize("degrees", [*range(1, 31), 31, 45, 100])
def test_ninety_five_percent_lie_within_the_quantile(degrees: int) -> None:
    assert _student_share(student_quantile(degrees), degrees) == pytest.approx(0.95, abs=2e-5)


def test_interval_of_a_mean() -> None:
    low, high = t_interval([1.0, 2.0, 4.0])  # type: ignore[misc]
    half = 4.302653 * math.sqrt(7 / 3) / math.sqrt(3)  # t of 2 degrees, the textbook's; the variance is 7/3
    assert (low, high) == pytest.approx((7 / 3 - half, 7 / 3 + half), rel=1e-4)
    assert t_interval([1.0]) is None
    assert t_interval([0.1, 0.9], (0.0, 1.0)) == (0.0, 1.0)  # a share
    with pytest.raises(ValueError, match="degrees"):
        student_quantile(0)


def test_bootstrap_covers_as_the_normal_approximation_does() -> None:
    values = np.r_[np.ones(60), np.zeros(140)]
    low, high = bootstrap_interval(values)  # type: ignore[misc]
    half = 1.96 * math.sqrt(0.3 * 0.7 / 200)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.006)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(np.ones(9)) == (1.0, 1.0)
    assert bootstrap_interval(np.zeros(0)) is None


#: Right answers (of 4) and ranks (of 4 queries) of two seeds.
RIGHT = {("one", 1): [1, 1, 0, 1], ("one", 2): [1, 0, 0, 1], ("two", 1): [0, 0, 1, 0], ("two", 2): [0, 0, 0, 0]}
PARAMETERS = {"one": 7, "two": 12}


def _write_run(root: Path, system: str, seed: int, **settings: Any) -> None:
    folder = root / f"seed{seed}" / system
    folder.mkdir(parents=True)
    optimization = {"max_update": 300, "lr": [0.001], "optimizer": "mmadamw", **settings}
    config = {
        "dataset": {
            "train_path": str(root / ("train.lst" if system == "one" else "rows.jsonl")),
            "aligner": "DSAligner",
        },
        "model": {"model_cls": system.upper(), "hidden_size": 8, "num_layers": 2},
        "fairseq": {"common": {"seed": seed}, "dataset": {"batch_size": 60}, "optimization": optimization},
    }
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    (folder / "job.json").write_text(json.dumps({"seconds": 20.0, "processor_seconds": 10.0 * seed}))
    (folder / "log.txt").write_text('{"epoch": 1, "update": 0.1, "loss": "2.0", "num_updates": "300"}\n')
    shared = torch.zeros(PARAMETERS[system])
    torch.save({"model": {"a": shared, "tied": shared}}, folder / "checkpoint_last.pt")
    right = RIGHT[system, seed]
    checkpoint = {"path": str(folder / "checkpoint_last.pt")}
    record = {"metric": "QAMetric", "checkpoint": checkpoint, "config": {"dataset": {"test_path": "q.jsonl"}}}
    _write_test(folder / "choice", {**record, "metrics": {"acc": sum(right) / 4, "chance": 0.25, "count": 4}})
    answers = [
        {
            "video_id": str(row),
            "question": "",
            "options": ["a", "b"],
            "answer": 0,
            "prediction": 1 - hit,
            "correct": bool(hit),
            "scores": [hit, 0.5],
        }
        for row, hit in enumerate(right)
    ]
    (folder / "choice/predictions.json").write_text(json.dumps(answers))
    metrics = {"R1": sum(right) / 4, "R5": 1.0, "MR": 2.0, "count": 4, "candidates": 4}
    _write_test(folder / "retrieval", {**record, "metric": "RetrievalMetric", "metrics": metrics})
    # a query that is right has the highest score at its own video
    video, text = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
    for row, hit in enumerate(right):
        text[row] = text[row] if hit else np.roll(text[row], 1)
    names = np.array([str(row) for row in range(4)])
    np.savez(folder / "retrieval/embeddings.npz", text=text, video=video, target=np.arange(4), ids=names, texts=names)


def _write_test(folder: Path, record: dict[str, Any]) -> None:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(record))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    (tmp_path / "train.lst").write_text("b\na\n")
    rows = [
        {"video": name, "split": split}
        for name, split in (("a", "train"), ("a", "train"), ("b", "train"), ("c", "valid"))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for system, seed in RIGHT:
        _write_run(tmp_path, system, seed)
    return tmp_path


def _compare(runs: Path) -> Comparison:
    return build_comparison(collect_results([runs])[0])


def test_numbers_of_a_leaderboard_are_means_over_seeds_with_both_intervals(runs: Path) -> None:
    comparison = _compare(runs)
    assert comparison.systems == ["one", "two"]
    for column in (("choice", "acc"), ("retrieval", "R1")):
        for system in ("one", "two"):
            values = [np.mean(RIGHT[system, seed]) for seed in (1, 2)]
            cell = comparison.cells[system][column]
            assert sorted(cell.values) == sorted(values)
            half = 12.7062 * np.std(values, ddof=1) / math.sqrt(2)
            low, high = max(0.0, np.mean(values) - half), min(1.0, np.mean(values) + half)
            assert cell.over_seeds == pytest.approx((low, high))
            of_items = np.mean([RIGHT[system, 1], RIGHT[system, 2]], axis=0)
            assert cell.over_items == bootstrap_interval(of_items)
    assert comparison.chance == {
        ("choice", "acc"): 0.25, ("retrieval", "R1"): 0.25, ("retrieval", "R5"): 1.0, ("retrieval", "MR"): 2.5
    }  # fmt: skip
    assert comparison.cells["one"]["retrieval", "MR"].over_items is None


def test_no_interval_of_ranks_begins_below_the_first(runs: Path) -> None:
    path = runs / "seed2/one/retrieval/metrics.json"
    record = json.loads(path.read_text())
    record["metrics"]["MR"] = 3.0
    path.write_text(json.dumps(record))
    assert _compare(runs).cells["one"]["retrieval", "MR"].over_seeds == (1.0, pytest.approx(2.5 + 12.7062 * 0.5))


def test_costs(runs: Path) -> None:
    comparison = _compare(runs)
    found = leaderboard_json(comparison)
    assert found["systems"]["one"]["parameters"] == 7  # tied weights count once
    assert found["systems"]["two"]["processor_seconds"] == [10.0, 20.0]
    text = leaderboard(comparison)
    # 15 s for a mean R@1 of 62.5 %, of which 25 by chance
    first = comparison.columns
    assert next(iter(first))[0] in ("retrieval", "choice")
    assert "0.4" in next(line for line in text.splitlines() if line.startswith("one") and " 15 " in line)


def test_a_missing_result_is_named_and_its_cell_empty(runs: Path) -> None:
    for name in ("seed1", "seed2"):
        (runs / name / "two/choice/metrics.json").unlink()
    comparison = _compare(runs)
    assert ("choice", "acc") not in comparison.cells["two"]
    assert "two: 0 of 2 trainings have a result in choice" in comparison.reasons
    assert "two: 0 of 2" in leaderboard(comparison)


def test_predictions_that_are_gone_leave_the_interval_over_items_out(runs: Path) -> None:
    (runs / "seed1/one/choice/predictions.json").unlink()
    comparison = _compare(runs)
    assert comparison.cells["one"]["choice", "acc"].over_items is None
    assert any("no interval over items" in reason for reason in comparison.reasons)


def test_results_without_their_training_are_refused(tmp_path: Path) -> None:
    _write_test(tmp_path / "t", {"metric": "QAMetric", "metrics": {"acc": 1.0}})
    with pytest.raises(DataError, match="nothing to compare"):
        _compare(tmp_path)


def test_equal_trainings_are_found_equal_whatever_form_their_lists_have(runs: Path) -> None:
    terms = {term.name: term for term in terms_of(_compare(runs))}
    assert not [name for name, term in terms.items() if term.broken]
    assert terms["training videos"].values["one"].startswith("2 videos")
    assert terms["pairs of clip and text per update"].values == {"one": "60", "two": "60"}
    assert terms["updates made"].values == {"one": "300", "two": "300"}
    assert not terms["model"].equal
    assert not terms["model"].expected


@pytest.mark.parametrize(
    ("what", "value", "name"),
    [
        ("fairseq.optimization.max_update", 301, "updates allowed"),
        ("fairseq.optimization.lr", [0.002], "optimizer"),
        ("fairseq.optimization.stop_time_hours", 0.1, "hours allowed"),
        ("fairseq.dataset.batch_size", 61, "pairs of clip and text per update"),
        ("fairseq.common.fp16", True, "precision"),
        ("fairseq.common.seed", 5, "seeds"),
        ("optim.freeze", ["a"], "not trained, or at another rate"),
        ("model.hidden_size", 16, "width"),
        ("model.num_layers", 3, "layers of the (joint) transformer"),
    ],
)
def test_an_unequal_setting_of_one_training_is_said_loudly(runs: Path, what: str, value: Any, name: str) -> None:
    path = runs / "seed2/two/config.yaml"
    config = OmegaConf.load(path)
    OmegaConf.update(config, what, value, force_add=True)
    OmegaConf.save(config, path)
    comparison = _compare(runs)
    terms = terms_of(comparison)
    assert [term.name for term in terms if term.broken] == [name]
    row = next(row for row in terms_table(terms, comparison.systems) if row[0] == name)
    assert row[1] == "NO, AND SHOULD BE"
    assert "two: " in row[2]


def _timed(runs: Path, walls: dict[str, tuple[float, float]]) -> list[str]:
    """Give the systems unequal updates and the seconds of their logs; return what is said to be broken."""
    for path in runs.glob("seed*/*/config.yaml"):
        system = path.parent.name
        config = OmegaConf.load(path)
        config.fairseq.optimization.max_update = 300 if system == "one" else 450
        OmegaConf.save(config, path)
        wall = walls[system][int(config.fairseq.common.seed) - 1]
        line = {"epoch": 1, "loss": "2.0", "num_updates": "300", "wall": str(wall)}
        (path.parent / "log.txt").write_text(json.dumps(line) + "\n")
    return [term.name for term in terms_of(_compare(runs)) if term.broken]


def test_unequal_updates_are_a_budget_if_they_take_the_same_time(runs: Path) -> None:
    assert _timed(runs, {"one": (200.0, 164.0), "two": (171.0, 171.0)}) == []
    terms = {term.name: term for term in terms_of(_compare(runs))}
    assert set(terms["seconds of training"].values.values()) == {"171 to 182"}  # means over the seeds
    assert terms["seconds of training"].expected
    assert terms["updates allowed"].values == {"one": "300", "two": "450"}


def test_neither_the_same_updates_nor_the_same_time_is_said_loudly(runs: Path) -> None:
    walls = {"one": (182.0, 182.0), "two": (163.0, 163.0)}
    assert _timed(runs, walls) == ["updates allowed", "seconds of training"]


def test_pairs_of_all_workers_count(runs: Path) -> None:
    for seed in (1, 2):
        folder = runs / f"seed{seed}/two"
        (folder / "job.json").write_text(json.dumps({"seconds": 20.0, "workers": 2}))
        config = OmegaConf.load(folder / "config.yaml")
        config.fairseq.dataset.batch_size = 30
        OmegaConf.save(config, folder / "config.yaml")
    terms = {term.name: term for term in terms_of(_compare(runs))}
    assert terms["pairs of clip and text per update"].values == {"one": "60", "two": "60"}


def test_what_a_system_without_sound_sees_has_no_sound(runs: Path) -> None:
    for seed, sound in ((1, True), (2, False)):
        path = runs / f"seed{seed}/two/config.yaml"
        config = OmegaConf.load(path)
        config.dataset.update({"aligner": "ReserveAligner", "num_segments": 15, "use_audio": sound})
        OmegaConf.save(config, path)
    terms = {term.name: term for term in terms_of(_compare(runs))}
    first, second = terms["input"].values["two"].split(" / ")
    assert first == second + ", and its sound"


def test_other_training_videos_or_test_items_are_said_loudly(runs: Path) -> None:
    (runs / "train.lst").write_text("a\nc\n")
    path = runs / "seed1/one/choice/metrics.json"
    record = json.loads(path.read_text())
    record["config"]["dataset"]["test_path"] = "other.jsonl"
    path.write_text(json.dumps(record))
    broken = [term.name for term in terms_of(_compare(runs)) if term.broken]
    assert broken == ["training videos", "test choice: file"]


def test_the_page_has_numbers_terms_and_the_verdict(runs: Path) -> None:
    page = "".join(comparison_sections(_compare(runs)))
    assert "All of it is equal." in page
    assert "62.5" in page
    path = runs / "seed2/two/config.yaml"
    config = OmegaConf.load(path)
    config.fairseq.optimization.max_update = 9
    OmegaConf.save(config, path)
    comparison = _compare(runs)
    assert "NOT EQUAL, though it should be: updates allowed" in "".join(comparison_sections(comparison))
    assert list(comparison_figures(comparison)) == ["leaderboard"]


def test_the_command_prints_the_leaderboard_and_writes_the_page(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results_main(["--runs", str(runs), "--compare"]) == 0
    printed = capsys.readouterr().out
    assert "95% over seeds (t)" in printed and "training videos" in printed
    assert "no result yet" not in printed
    (runs / "empty").mkdir()
    assert results_main(["--runs", str(runs), str(runs / "empty"), "--compare"]) == 0
    assert f"note: no result yet: {runs / 'empty'}" in capsys.readouterr().out
    assert results_main(["--runs", str(runs), "--compare", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document["systems"]) == ["one", "two"]
    assert {term["name"] for term in document["terms"] if term["to_be_equal"] and not term["equal"]} == set()
    assert report_main(["--runs", str(runs), "--compare", "--output", str(tmp_path / "page.html")]) == 0
    assert "On what terms" in (tmp_path / "page.html").read_text()
