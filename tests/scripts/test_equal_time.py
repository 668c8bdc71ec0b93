"""The project of equal wall time, from logs of equal updates."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from mmpt.launch.project import expand_project
from mmpt.utils.errors import DataError
from scripts.comparison.equal_time import main, seconds_per_update

ROOT = Path(__file__).resolve().parents[2]


def _log(runs: Path, seed: int, system: str, points: list[tuple[int, float]]) -> None:
    folder = runs / f"seed{seed}" / system
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"epoch": 1, "update": 0.1, "loss": "2.0", "num_updates": str(update), "wall": str(wall)})
        for update, wall in points
    ]
    (folder / "log.txt").write_text("".join(line + "\n" for line in lines))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    # 0.5 s an update and 8 s of start; 0.1 and 0.2 in two seeds, whose median is 0.15
    _log(tmp_path / "runs", 1, "merlot", [(10, 13.0), (100, 58.0)])
    _log(tmp_path / "runs", 1, "vlm", [(10, 1.0), (300, 30.0)])
    _log(tmp_path / "runs", 2, "vlm", [(10, 2.0), (300, 60.0)])
    return tmp_path / "runs"


def test_an_update_takes_the_median_of_the_seeds_and_the_start_does_not_count(runs: Path) -> None:
    assert seconds_per_update(runs) == pytest.approx({"merlot": 0.5, "vlm": 0.15})


def test_the_project_allows_what_fits_and_its_schedules_end_with_it(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "timed.yaml"
    command = ["--runs", str(runs), "--minutes", "3", "--output", str(output)]
    assert main([*command, "--project", str(ROOT / "projects/compare.yaml")]) == 0
    assert "1,200" in capsys.readouterr().out
    allowed = {
        job.task: int(job.config.fairseq.optimization.max_update)
        for job in expand_project(output).jobs
        if job.kind == "train"
    }
    assert allowed["compare_merlot.yaml"] == 360
    assert allowed["compare_vlm.yaml"] == 1200
    assert allowed["compare_videoclip.yaml"] == 300  # not measured: as it was
    assert f"--output {output} --project {ROOT / 'projects/compare.yaml'}\n" in output.read_text()
    written = yaml.safe_load(output.read_text())
    assert written["task_group"]["report"]["args"]["positional"] == [output.as_posix()]


def test_the_project_of_the_repository_changes_the_updates_alone() -> None:
    timed = {(job.task, job.seed): job for job in expand_project(ROOT / "projects/compare_equal_time.yaml").jobs}
    plain = {(job.task, job.seed): job for job in expand_project(ROOT / "projects/compare.yaml").jobs}
    assert set(timed) == set(plain)
    updates = set()
    for name, job in timed.items():
        if job.kind != "train":
            continue
        updates.add(job.config.fairseq.optimization.max_update)
        job.config.fairseq.optimization.max_update = plain[name].config.fairseq.optimization.max_update
        for section in ("dataset", "model", "loss"):
            assert job.config[section] == plain[name].config[section]
        assert job.config.fairseq.optimization == plain[name].config.fairseq.optimization
    assert len(updates) > 1


def test_the_project_that_tells_trains_every_system_and_nothing_else() -> None:
    path = ROOT / "projects/compare_rates.yaml"
    trained = [job for job in expand_project(path).jobs if job.kind == "train"]
    (stage,) = yaml.safe_load(path.read_text())["run_task"]
    assert sorted(job.task for job in trained) == sorted(stage)
    assert {job.config.fairseq.optimization.max_update for job in trained} == {600}
    assert {job.run_dir.parent for job in trained} == {Path("runs/compare_rates/seed1")}


def test_trainings_too_short_to_tell_and_folders_without_any_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _log(runs, 2, "merlot", [(10, 40.0), (20, 50.0), (30, 1.0), (300, 90.0)])  # resumed: the clock began anew
    with pytest.raises(DataError, match=r"seed2/merlot/log.txt: .*resumed"):
        seconds_per_update(runs)
    shutil.rmtree(runs / "seed2/merlot")
    _log(runs, 2, "merlot", [(10, 1.0), (20, 3.0)])
    with pytest.raises(DataError, match=r"seed2/merlot/log.txt: .* over 2 seconds"):
        seconds_per_update(runs)
    output = tmp_path / "none.yaml"
    assert main(["--runs", str(tmp_path / "nowhere"), "--minutes", "3", "--output", str(output)]) == 2
    assert "no seed<seed>/<system>/log.txt" in capsys.readouterr().err
    assert not output.exists()
    with pytest.raises(SystemExit):
        main(["--runs", str(runs), "--minutes", "0", "--output", str(output)])
