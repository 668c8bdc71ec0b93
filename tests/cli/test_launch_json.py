"""mmpt launch --json: the plan of a dry run, and how jobs stand at the end."""

import json
from pathlib import Path

import pytest

from mmpt_cli import launch

PROJECT = """\
project_dir: mine
base_dir: task
task_group: {data: {task_list: [make.yaml]}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "projects" / "task").mkdir(parents=True)
    (tmp_path / "projects" / "task" / "make.yaml").write_text("script: make.py\nargs: {}\n")
    (tmp_path / "projects" / "mine.yaml").write_text(PROJECT)
    (tmp_path / "make.py").write_text("print('made')\n")
    return "projects/mine.yaml"


def test_plan_then_states(project, capfd):
    assert launch.main([project, "--dryrun", "--json"]) == 0
    (job,) = json.loads(capfd.readouterr().out)["jobs"]
    assert (job["job"], job["kind"], job["after"]) == ("make.yaml", "script", [])
    assert any(word.endswith("make.py") for word in job["command"])
    assert launch.main([project, "--json"]) == 0
    told = capfd.readouterr()
    document = json.loads(told.out)
    assert (document["jobs"][0]["status"], document["exit_code"]) == ("completed", 0)
    assert "made" in told.err


def test_a_failed_job_has_its_state_in_the_document(project, capfd, tmp_path):
    (tmp_path / "make.py").write_text("raise SystemExit(3)\n")
    assert launch.main([project, "--json"]) == 3
    document = json.loads(capfd.readouterr().out)
    assert (document["jobs"][0]["status"], document["jobs"][0]["returncode"], document["exit_code"]) == ("failed", 3, 3)


def test_the_plan_of_a_single_job_is_that_of_its_overrides(project, capfd):
    test = "dataset: {split: test, test_path: x}\neval: {save_path: runs/mine/eval}\ntask_type: local_predict\n"
    job = project.replace("mine.yaml", "task/test_mine.yaml")
    Path(job).write_text(test)
    assert launch.main([job, "--dryrun", "--json", "-o", "dataset.test_path=y"]) == 0
    told = capfd.readouterr()
    (plan,) = json.loads(told.out)["jobs"]
    settings = f"{plan['run_dir']}/config.yaml"
    assert settings in plan["command"] and any(settings in note for note in plan["notes"])
    assert settings in told.err.splitlines()[0]
    assert launch.main([job, "--dryrun", "--json"]) == 0
    (plan,) = json.loads(capfd.readouterr().out)["jobs"]
    assert job in plan["command"] and not plan["notes"]
