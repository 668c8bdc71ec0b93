"""When an old result counts, when it does not, and that nothing finished is lost by a slip."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmpt.launch import local, preparation
from mmpt.launch.commands import Command
from mmpt.launch.local import Runner
from mmpt.launch.project import Job, job_from_yaml
from mmpt.launch.state import JobFailed, JobState
from mmpt.utils.errors import ConfigError, DataError
from mmpt_cli.launch import main

TRAIN = """
dataset: {train_path: a.lst, val_path: b.lst}
fairseq:
  common: {log_interval: 10}
  optimization: {max_epoch: 3, lr: [0.1]}
  checkpoint: {save_dir: runs/t}
"""
TUNE = TRAIN.replace("save_dir: runs/t", "save_dir: runs/t/ft, restore_file: runs/t/checkpoint_best.pt")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder where a "training" is a script that notes that it ran and writes checkpoints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(
        "import pathlib, sys\n"
        "run, code = pathlib.Path(sys.argv[1]), int(pathlib.Path('exit_code').read_text())\n"
        "had = (run / 'checkpoint_last.pt').exists()\n"
        "print('resumed' if had else 'fresh', flush=True)\n"
        "if code: print('mmpt.utils.errors.DataError: v07: no features\\n  File x, line 3', flush=True)\n"
        "for name in ('best', 'last'):\n"
        "    if not pathlib.Path('silent').exists(): (run / f'checkpoint_{name}.pt').write_text(str(had))\n"
        "sys.exit(code)\n"
    )
    (tmp_path / "exit_code").write_text("0")
    (tmp_path / "t.yaml").write_text(TRAIN)
    (tmp_path / "ft.yaml").write_text(TUNE)

    def command(job: Job, *_: object) -> Command:
        if "max_epok" in job.config.fairseq.optimization:
            raise ConfigError("fairseq-train has no flag --max-epok")
        return Command([sys.executable, "train.py", str(job.run_dir)])

    monkeypatch.setattr(local, "build_command", command)
    return tmp_path


def run(name: str = "t.yaml", *overrides: str, force: bool = False, after: tuple[str, ...] = ()) -> bool:
    jobs = [job_from_yaml(other) for other in after]
    return Runner(force=force).run(job_from_yaml(name, overrides), after=jobs, overridden=bool(overrides))


def log(run_dir: str = "runs/t") -> list[str]:
    return Path(run_dir, "log.txt").read_text().split()


def test_a_wrong_setting_leaves_a_finished_training_alone(folder: Path) -> None:
    assert run()
    with pytest.raises(ConfigError, match="max-epok"):
        run("t.yaml", "fairseq.optimization.max_epok=3")
    assert Path("runs/t/checkpoint_best.pt").exists()
    assert not run()


def test_other_settings_are_refused_and_named_until_forced(folder: Path) -> None:
    assert run()
    with pytest.raises(ConfigError, match=r"other settings \(fairseq\.optimization\.lr\).*--force"):
        run("t.yaml", "fairseq.optimization.lr=[0.2]")
    assert Path("runs/t/checkpoint_best.pt").exists()
    assert run("t.yaml", "fairseq.optimization.lr=[0.2]", force=True)
    assert log() == ["fresh"], "forced: from the start, the old log gone too"


def test_an_interrupted_training_is_not_continued_with_other_settings(folder: Path) -> None:
    Path("exit_code").write_text("3")
    with pytest.raises(JobFailed):
        run()
    Path("exit_code").write_text("0")
    with pytest.raises(ConfigError, match="seed"):
        run("t.yaml", "fairseq.common.seed=7")
    assert run()
    assert log()[-1] == "resumed"


def test_harmless_settings_do_not_matter_and_more_epochs_go_on(folder: Path) -> None:
    assert run()
    assert not run("t.yaml", "fairseq.common.log_interval=7")
    assert run("t.yaml", "fairseq.optimization.max_epoch=9")
    assert log() == ["fresh", "resumed"]


def test_a_new_pretraining_makes_finetuning_begin_again_in_a_later_call_too(folder: Path) -> None:
    assert run()
    assert run("ft.yaml", after=("t.yaml",))
    assert not run("ft.yaml", after=("t.yaml",))
    assert run(force=True)
    assert run("ft.yaml", after=("t.yaml",))
    assert log("runs/t/ft") == ["fresh"]


def test_a_replaced_checkpoint_makes_what_reads_it_run_again(folder: Path) -> None:
    assert run()
    assert run("ft.yaml")
    assert not run("ft.yaml")
    Path("runs/t/checkpoint_best.pt").write_text("another one")
    assert run("ft.yaml")


def test_a_training_that_leaves_no_checkpoint_has_failed(folder: Path) -> None:
    Path("silent").touch()
    with pytest.raises(JobFailed, match="ended without a checkpoint"):
        run()
    state = JobState.read(Path("runs/t"))
    assert state is not None and state.status == "failed"


def test_the_reason_comes_before_the_log(folder: Path) -> None:
    Path("exit_code").write_text("1")
    with pytest.raises(JobFailed) as error:
        run()
    assert str(error.value) == "t.yaml failed with exit code 1 (log in runs/t/log.txt): v07: no features"


def test_a_forced_training_that_fails_at_once_loses_nothing(folder: Path) -> None:
    assert run()
    Path("runs/t/checkpoint_best.pt").write_text("the old one")
    state = Path("runs/t/job.json").read_text()
    Path("exit_code").write_text("1")
    Path("silent").touch()
    with pytest.raises(JobFailed):
        run("t.yaml", "fairseq.optimization.lr=[0.2]", force=True)
    assert Path("runs/t/checkpoint_best.pt").read_text() == "the old one"
    assert Path("runs/t/job.json").read_text() == state
    assert log()[:2] == ["fresh", "fresh"], "the new log below the old one"
    assert not Path("runs/t/replaced").exists()
    assert not run(), "still completed with the old settings"
    with pytest.raises(ConfigError, match="other settings"):
        run("t.yaml", "fairseq.optimization.lr=[0.2]")


def test_a_forced_training_that_fails_later_keeps_its_own_checkpoints(folder: Path) -> None:
    assert run()
    Path("runs/t/checkpoint3.pt").write_text("an old one")
    Path("exit_code").write_text("1")
    with pytest.raises(JobFailed):
        run(force=True)
    assert sorted(path.name for path in Path("runs/t").glob("**/*.pt")) == ["checkpoint_best.pt", "checkpoint_last.pt"]
    assert log()[0] == "fresh"


def test_what_a_killed_launcher_had_set_aside_comes_back(folder: Path) -> None:
    assert run()
    preparation._make_way(job_from_yaml("t.yaml"))
    assert not list(Path("runs/t").glob("checkpoint*.pt"))
    assert not run(), "completed before"
    assert Path("runs/t/checkpoint_best.pt").exists()


def test_two_launchers_do_not_train_in_one_folder(folder: Path) -> None:
    job = job_from_yaml("t.yaml")
    with local.locked(job.run_dir), pytest.raises(DataError, match="running already"):
        Runner().run(job)


def test_scripts_run_again_when_their_inputs_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text("open('trace.txt', 'a').write('ran ')\n")
    Path("videos").mkdir()
    Path("x.yaml").write_text("script: x.py\nargs: {videos: videos, out: trace.txt}\ninputs: [videos]\n")
    for _ in range(2):
        assert main(["x.yaml"]) == 0
    assert Path("trace.txt").read_text() == "ran "
    Path("videos/new.mp4").touch()
    assert main(["x.yaml"]) == 0
    assert Path("trace.txt").read_text() == "ran ran "


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_launcher_takes_its_job_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    Path("x.yaml").write_text("script: x.py\n")
    root = Path(__file__).parents[2]
    launcher = subprocess.Popen(
        [sys.executable, str(root / "locallaunch.py"), "x.yaml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (Path("pid").exists() and Path("pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(Path("pid").read_text())
    launcher.send_signal(number)
    launcher.wait(timeout=30)
    deadline = time.monotonic() + 30
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
