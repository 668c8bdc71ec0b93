"""A project of a tiny VideoCLIP, as a user would write and launch it, whose training waits for the test where told."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from cluster import SlurmCluster, SlurmError

from mmpt.launch.state import JobState

__all__ = ["JOBS", "TinyProject"]

REPOSITORY = Path(__file__).parents[2]
TINY_BERT = REPOSITORY / "tests" / "data" / "tiny_bert"
JOBS = ("how2", "test_vtt_zs", "vtt_videoclip", "test_vtt_videoclip")
PREEMPTOR = "#!/bin/bash\nsleep 1\n"
T = TypeVar("T")

# Each worker writes down where it is and what world it is in. While the file `hold` is there, an update takes long
# enough for the test to do something in the middle of the training.
LOSS = '''
import json, os, time
import torch
from mmpt.losses.contrastive import MMContraLoss
from mmpt.utils.distributed import world

class WatchedLoss(MMContraLoss):
    said = False

    def __call__(self, *args, **kwargs):
        if not self.said:
            rank, workers = world()
            seen = {"node": os.environ["SLURMD_NODENAME"], "rank": rank, "workers": workers,
                    "restart": int(os.environ.get("SLURM_RESTART_COUNT", 0))}
            with open("trace.jsonl", "a") as file:
                file.write(json.dumps(seen) + "\\n")
            self.said = True
        if torch.is_grad_enabled() and os.path.exists("hold"):
            time.sleep(0.3)
        return super().__call__(*args, **kwargs)
'''


class TinyProject:
    """The project in ``folder``, from where it is launched on ``cluster``."""

    def __init__(self, folder: Path, cluster: SlurmCluster, corpus: Path) -> None:
        self.folder, self.cluster = folder, cluster
        (folder / "watched.py").write_text(LOSS)
        self.path = folder / "tiny.yaml"
        self.path.write_text(yaml.safe_dump(_config(corpus)))

    # -- what a user types -------------------------------------------------------------------------------------------

    def launch(self, *flags: str, yaml: str = "tiny.yaml") -> str:
        """Run locallaunch.py on the project, or the YAML of one of its jobs, and return what it says."""
        return self._python("locallaunch.py", yaml, *flags)

    def listing(self) -> dict[str, dict[str, Any]]:
        """Return what `mmpt_cli.jobs` says of each job."""
        views = json.loads(self._python("mmpt_cli/jobs.py", "tiny.yaml", "--json"))
        return {Path(view["job"]).stem: view for view in views}

    def _python(self, script: str, *arguments: str) -> str:
        path = os.pathsep.join((str(self.folder), str(REPOSITORY)))
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / script), *arguments],
            cwd=self.folder, env=self.cluster.environment | {"PYTHONPATH": path},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # -- what it left ------------------------------------------------------------------------------------------------

    def run_dir(self, job: str) -> Path:
        """Return the run folder of a job."""
        return self.folder / {
            "how2": "runs/tiny", "vtt_videoclip": "runs/tiny/vtt",
            "test_vtt_zs": "runs/tiny/vtt_zs/eval", "test_vtt_videoclip": "runs/tiny/vtt/eval",
        }[job]  # fmt: skip

    def state(self, job: str) -> JobState:
        """Return the state of a job."""
        state = JobState.read(self.run_dir(job))
        assert state is not None
        return state

    def slurm_job(self, job: str) -> str:
        """Return a job's number on the cluster."""
        return self.state(job).slurm_job

    def log(self, job: str) -> str:
        """Return the log of a job, all its runs one after the other."""
        path = self.run_dir(job) / "log.txt"
        return path.read_text() if path.exists() else ""

    def updates(self, job: str = "how2") -> list[int]:
        """Return the numbers of the updates that a training has logged, all its runs one after the other."""
        return [int(number) for number in re.findall(r'"num_updates": "(\d+)"', self.log(job))]

    def trace(self) -> list[dict[str, Any]]:
        """Return where the pre-training's workers were."""
        path = self.folder / "trace.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def checkpoints(self) -> list[str]:
        """Return the names of the pre-training's checkpoints."""
        return sorted(path.name for path in self.run_dir("how2").glob("checkpoint*.pt"))

    # -- in the middle of it -----------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Let the pre-training's updates take long."""
        (self.folder / "hold").touch()

    def release(self) -> None:
        """Let it run on as fast as it can."""
        (self.folder / "hold").unlink(missing_ok=True)

    def until(self, what: str, ready: Callable[[], T], timeout: float = 120) -> T:
        """Wait for something; the logs of the project's jobs are in the failure's message."""
        try:
            return self.cluster.until(what, ready, timeout)
        except SlurmError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def until_completed(self, *jobs: str, timeout: float = 240) -> None:
        """Wait until Slurm calls jobs completed; a job that ends otherwise is an error at once."""
        for job in jobs:
            try:
                self.cluster.wait(self.slurm_job(job), "COMPLETED", timeout=timeout)
            except SlurmError as error:
                raise AssertionError(f"{job}: {error}\n{self.logs()}") from None

    def logs(self) -> str:
        """Return the ends of all that the jobs have printed."""
        files = [*self.folder.rglob("log.txt"), *self.folder.rglob("*_log.out")]
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-2500:]}" for path in files)

    def end(self) -> None:
        """Cancel what is left, and see it go: the next test wants the nodes."""
        for job, state in self.cluster.squeue().items():
            if state in ("RUNNING", "PENDING", "COMPLETING", "SUSPENDED"):
                self.cluster.cancel(job)
        deadline = time.monotonic() + 60
        while any(state in ("RUNNING", "COMPLETING") for state in self.cluster.squeue().values()):
            assert time.monotonic() < deadline, self.cluster.describe()
            time.sleep(0.25)


def _config(corpus: Path) -> dict[str, Any]:
    """Return the project: the shipped task files, on the tiny corpus, with a network that fits it."""
    model = {
        "model_cls": "MMFusionSeparate", "mm_encoder_cls": None, "video_encoder_cls": "MMBertForEncoder",
        "text_encoder_cls": "BertModel", "num_hidden_video_layers": 1, "input_dim": 16, "init": "random",
    }  # fmt: skip
    fairseq = {
        "common": {"seed": 3, "fp16": False, "log_interval": 1, "log_format": "json", "tensorboard_logdir": None},
        "dataset": {"batch_size": 1, "num_workers": 0},
        "optimization": {"lr": [0.003], "warmup_updates": 0, "max_epoch": 4},
        "checkpoint": {
            "save_interval_updates": 1, "keep_interval_updates": 1, "keep_last_epochs": 1, "load_checkpoint_on_all_dp_ranks": True,
        },
    }  # fmt: skip
    sizes = {"bert_name": str(TINY_BERT), "max_video_len": 8, "max_len": 24}
    pretraining = {
        "task": "VideoRetriTask", "retri_epoch": 1, "num_cands": 8, "model": model,
        "vectorpool_cls": "VideoVectorPool", "retriever_cls": "VectorRetriever",
        "loss": {"loss_cls": "watched:WatchedLoss", "global_negatives": True},
        "dataset": {
            **sizes, "meta_processor": "ShardedHow2VideoRetriMetaProcessor",
            "video_processor": "ShardedVideoRetriVideoProcessor", "text_processor": "ShardedVideoRetriTextProcessor",
            "aligner": "VideoRetriOverlappedAligner", "vfeat_dir": str(corpus / "shards"),
            "tfeat_dir": str(corpus / "tokens" / "tiny."), "train_path": str(corpus / "train.lst"),
            "val_path": str(corpus / "val.lst"), "sampled_min_len": 2, "sampled_max_len": 8,
            "sampled_video_min_len": 2, "sampled_video_max_len": 6, "num_video_per_batch": 2, "clip_per_video": 3,
        },
        "fairseq": fairseq,
    }  # fmt: skip
    retrieval = {**sizes, "vfeat_dir": str(corpus / "features"), "num_iso_layer": None}
    finetuning = {
        "model": model,
        "dataset": {
            **retrieval, "train_path": str(corpus / "train.csv"), "val_path": str(corpus / "train.csv"),
            "jsfusion_path": None, "full_test_path": None, "json_path": str(corpus / "captions_vtt.json"),
            "val_holdout": 0.25, "dup": 2,
        },
        "fairseq": {
            **fairseq, "dataset": {"batch_size": 8, "num_workers": 0},
            "optimization": {**fairseq["optimization"], "max_epoch": 1},
            "checkpoint": {"restore_file": "runs/task/checkpoint_last.pt", "load_checkpoint_on_all_dp_ranks": True},
        },
    }  # fmt: skip
    testing = {
        "model": model, "dataset": {**retrieval, "test_path": str(corpus / "test.csv")},
        "fairseq": {"dataset": {"batch_size": 8, "num_workers": 0}},
    }  # fmt: skip
    zero_shot = {**testing, "fairseq": {**testing["fairseq"], "common_eval": {"path": "runs/task/checkpoint_last.pt"}}}
    return {
        "project_dir": "tiny",
        "base_dir": "task",
        "slurm": {"nodes": 2, "workers_per_node": 1, "gpus_per_node": 0, "time": "30", "partition": "low"},
        "task_group": {
            "pretrain": {"task_list": ["how2.yaml"], **pretraining},
            "zero_shot": {"task_list": ["test_vtt_zs.yaml"], **zero_shot},
            "finetune": {"task_list": ["vtt_videoclip.yaml"], "slurm": {"nodes": 1}, **finetuning},
            "test": {"task_list": ["test_vtt_videoclip.yaml"], **testing},
        },
    }
