"""A training whose shards are damaged under it ends with the name of the file, and goes on from there."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmpt.launch.commands import build_command
from mmpt.launch.layout import Layout, Machine
from mmpt.launch.project import job_from_yaml

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
pytest.importorskip("fairseq")


def command_of(config: dict[str, Any], path: Path) -> list[str]:
    path.write_text(yaml.safe_dump(config))
    return build_command(job_from_yaml(path), path, Layout(), Machine(gpus=0)).argv


def test_shards_that_are_cut_under_a_training(
    pretraining_config: dict[str, Any], tiny_corpus: Path, tmp_path: Path
) -> None:
    config, shards = pretraining_config, tmp_path / "shards"
    shutil.copytree(tiny_corpus / "shards", shards)
    config["dataset"] |= {"vfeat_dir": str(shards)}
    config["fairseq"]["dataset"] |= {"num_workers": 1}
    config["fairseq"]["optimization"]["max_epoch"] = 200
    path, log, run = tmp_path / "job.yaml", tmp_path / "log.txt", tmp_path / "run"
    command = command_of(config, path)
    with log.open("wb") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process:
        try:
            while not (run / "checkpoint1.pt").exists() and process.poll() is None:
                time.sleep(0.01)
            for file in shards.glob("train_*_data.npy"):
                os.truncate(file, 200)
            assert process.wait(timeout=240) not in (0, -7), log.read_text()[-3000:]  # 7 is SIGBUS
        finally:
            process.kill()
    said = log.read_text()
    assert "DataError" in said and "train_" in said and any(word in said for word in ("was cut", "promises")), said[
        -3000:
    ]
    assert "Bus error" not in said
    shutil.rmtree(shards)
    shutil.copytree(tiny_corpus / "shards", shards)
    epochs = [int(file.stem[10:]) for file in run.glob("checkpoint?*.pt") if file.stem[10:].isdecimal()]
    assert max(epochs) < 200
    config["fairseq"]["optimization"]["max_epoch"] = max(epochs) + 1
    done = subprocess.run(command_of(config, path), cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0 and "Loaded checkpoint" in done.stdout + done.stderr, done.stdout[-3000:] + done.stderr
    assert (run / f"checkpoint{max(epochs) + 1}.pt").exists()
