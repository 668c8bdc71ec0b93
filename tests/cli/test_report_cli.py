"""The commands that show results: report.py and results.py."""

import json

import pytest

from mmpt.utils.files import write_json
from mmpt_cli import report, results

DIDEMO = {"rank1": 0.25, "rank5": 0.5, "mIoU": 0.3, "count": 8, "rank1_ci": [0.1, 0.6], "rank5_ci": [0.2, 0.8]}
TEST = """\
task_type: local_predict
dataset: {split: test, test_path: data/test.json, meta_processor: DiDeMoMetaProcessor}
fairseq: {common_eval: {path: runs/mine/checkpoint_best.pt}}
eval: {save_path: RUNS/didemo_zs/eval}
metric: DiDeMoMetric
predictor: DiDeMoPredictor
"""


@pytest.fixture
def runs(tmp_path):
    pytest.importorskip("matplotlib")
    record = {"metrics": DIDEMO, "metric": "DiDeMoMetric", "setting": "zero-shot"}
    write_json(tmp_path / "runs" / "didemo_zs" / "eval" / "metrics.json", record)
    return tmp_path / "runs"


@pytest.fixture
def project(runs, tmp_path, monkeypatch):
    """A project of one test, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "projects" / "task"
    folder.mkdir(parents=True)
    (folder / "test_didemo_zs.yaml").write_text(TEST.replace("RUNS", "runs/task"))
    tests = "{task_list: [test_didemo_zs.yaml]}"
    (tmp_path / "projects" / "mine.yaml").write_text(
        f"project_dir: mine\nbase_dir: task\ntask_group: {{test: {tests}}}\n"
    )
    runs.rename(tmp_path / "moved")
    (tmp_path / "runs").mkdir()
    (tmp_path / "moved").rename(tmp_path / "runs" / "mine")
    return "projects/mine.yaml"


def test_results_of_run_folders(runs, capsys):
    assert results.main(["--runs", str(runs)]) == 0
    assert "25.0 [10.0, 60.0]" in capsys.readouterr().out
    assert results.main(["--runs", str(runs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["metrics"] == DIDEMO


def test_results_of_a_project(project, capsys):
    assert results.main([project, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["name"], entry["setting"]) == ("test_didemo_zs", "zero-shot")


def test_project_without_results_yet(project, capsys, tmp_path):
    (tmp_path / "runs" / "mine" / "didemo_zs" / "eval" / "metrics.json").unlink()
    assert results.main([project]) == 1
    assert "no result yet: runs/mine/didemo_zs/eval" in capsys.readouterr().out
    assert report.main([project, "--output", "report.html"]) == 1
    assert "run the project first" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_report_of_a_project(project, capsys, tmp_path):
    assert report.main([project, "--output", "out/report.html", "--figures", "out/figures"]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h1>mine</h1>" in page
    assert "test_didemo_zs" in page
    assert "wrote out/report.html" in capsys.readouterr().out


def test_report_as_json(project, capsys, tmp_path):
    assert report.main([project, "--output", "report.html", "--figures", "figures", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["wrote"] == "report.html" and (tmp_path / "report.html").is_file()
    assert [entry["metrics"] for entry in document["results"]] == [DIDEMO]
    assert all((tmp_path / figure).is_file() for figure in document["figures"])


def test_faults(runs, capsys, tmp_path):
    assert results.main(["--runs", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    arguments = ["--runs", str(runs), "--output", str(tmp_path / "r.html"), "--videos", str(tmp_path / "nowhere")]
    assert report.main(arguments) == 2
    assert "no folder of videos" in capsys.readouterr().err
    (tmp_path / "file").touch()
    for target in (tmp_path, tmp_path / "file" / "report.html"):
        assert report.main(["--runs", str(runs), "--output", str(target)]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    for command in (results.main, report.main):
        with pytest.raises(SystemExit) as stop:
            command([])
        assert stop.value.code == 2
