"""Training through fairseq-train with two workers on the CPU."""

import math
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmpt.launch.commands import build_command
from mmpt.launch.layout import Layout, Machine
from mmpt.launch.project import job_from_yaml
from tests.tasks.conftest import plain

ROOT = Path(__file__).parents[2]
# What torchrun does, without its agent: one command for each rank.
WORKER = [
    "--distributed-world-size",
    "2",
    "--distributed-backend",
    "gloo",
    "--distributed-no-spawn",
    "--device-id",
    "0",
]
pytestmark = pytest.mark.slow
pytest.importorskip("fairseq")


def train_with_two(config: dict[str, Any], folder: Path) -> str:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(config))
    argv = build_command(job_from_yaml(path), path, Layout(), Machine(gpus=0)).argv
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    workers = [
        subprocess.Popen(
            [*argv, *WORKER, "--distributed-init-method", meeting, "--distributed-rank", str(rank)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(outputs)[-6000:]
    return outputs[0]


def test_global_negatives_with_a_batch_too_few_for_the_last_step(
    pretraining_config: dict[str, Any], tmp_path: Path
) -> None:
    config = plain(pretraining_config)
    config["loss"] |= {"global_negatives": True, "learn_temperature": True, "temperature": 0.5}
    config["model"]["grad_cache_rows"] = 5
    config["fairseq"]["dataset"]["batch_size"] = 18  # 6 of 18 videos, 3 clips each: 3 batches for 2 workers
    config["fairseq"]["optimization"]["max_epoch"] = 1
    config["fairseq"]["distributed_training"] = {"ddp_backend": "no_c10d"}
    output = train_with_two(config, tmp_path)
    assert '"train_num_updates": "2"' in output
    assert 0 < float(re.findall(r'"train_loss": "([^"]*)"', output)[-1]) < 50
    scale = float(re.findall(r'"train_logit_scale": "([^"]*)"', output)[-1])
    assert scale == pytest.approx(2.0, abs=0.1)
    assert '"valid_logit_scale"' in output
    saved = torch.load(tmp_path / "run" / "checkpoint_last.pt", weights_only=False)["criterion"]
    learned = saved["loss_fn.log_scale"]
    assert 0 < abs(learned.item() - math.log(2)) < 0.1
