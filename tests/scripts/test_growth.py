"""How cost grows: points are measured of works at other sizes, and drawn."""

import json

import pytest

from scripts.benchmarks import growth, measuring
from scripts.benchmarks.growth import CURVES, Curve, draw, main
from scripts.benchmarks.run import MODULES, entries_of

RATES = {"matmul": 1e9, "copy": 1e9, "read": 1e9}


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.setattr(growth, "MODULES", ["tests.scripts.benchmark_fakes"])
    monkeypatch.setattr(measuring.Session, "machine", lambda self, threads: RATES)
    curves = [Curve(name, name, "count", (1,), (500, 50_000), "numbers", "pass") for name in ("sum", "sum-dying")]
    monkeypatch.setattr(growth, "CURVES", {"sum": (curves[0],), "failing": (curves[1],)})


def test_points_of_both_ways_are_measured_and_drawn(fakes, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["--quick", "--clock", "processor", "sum", "--folder", str(tmp_path)]) == 0
    few, many = json.loads((tmp_path / "growth_sum.json").read_text())["sum"]
    assert few["count"] == 500 and many["count"] == 50_000
    assert many["seconds"] > 10 * few["seconds"] and few["reference_seconds"] > few["seconds"]
    assert (tmp_path / "growth_sum.png").read_bytes().startswith(b"\x89PNG")


def test_a_point_that_fails_is_told_and_left_out(fakes, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["--quick", "failing", "--folder", str(tmp_path)]) == 1
    told = json.loads((tmp_path / "growth_failing.json").read_text())["sum-dying"]
    assert [point["failed"] for point in told] == ["the process ended with exit code 7"] * 2


def test_a_figure_has_a_panel_of_time_and_one_of_memory():
    pytest.importorskip("matplotlib")
    (curve,) = CURVES["batch"]
    found = [{"samples": n, "seconds": n / 10, "bytes": n * 2**20, "reference_seconds": n / 5, "reference_bytes": 1}
             for n in (16, 32)]  # fmt: skip
    time, memory = draw([(curve, [*found, {"samples": 64, "failed": "no memory"}])]).axes
    assert [list(line.get_ydata()) for line in time.lines] == [[1.6, 3.2], [3.2, 6.4]]
    assert list(memory.lines[0].get_ydata()) == [16, 32]


def test_every_curve_is_of_a_work_that_has_the_size(capsys):
    works = {entry.work.name: entry.work for entry in entries_of(MODULES)}
    for curves in CURVES.values():
        for curve in curves:
            assert curve.size in works[curve.work].sizes
    assert main(["--list"]) == 0 and "training-videoclip over samples" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["colours"])
