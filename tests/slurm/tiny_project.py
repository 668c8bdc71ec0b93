"""Projects to launch: a tiny VideoCLIP whose training waits for the test where told, and a chain of scripts."""

import json
import signal
from pathlib import Path
from typing import Any

from cluster import SlurmCluster
from launched import REPOSITORY, LaunchedProject

__all__ = ["FREE_UPDATES", "UPDATES", "ScriptProject", "TinyVideoClip"]

#: Updates of the whole pre-training, and those after which a run of it waits where it is held.
UPDATES, FREE_UPDATES = 20, 4
_TINY_BERT = REPOSITORY / "tests" / "data" / "tiny_bert"
# Each worker writes down where it is and what world it is in. In the update after the free ones it waits while the file
# `hold` is there, so that what a test does happens in the middle of the training on the slowest machine too.
_LOSS = f"""
import json, os, time
import torch
from mmpt.losses.contrastive import MMContraLoss
from mmpt.utils.distributed import world

class WatchedLoss(MMContraLoss):
    updates = 0

    def __call__(self, *args, **kwargs):
        if torch.is_grad_enabled():
            self.updates += 1
            if self.updates == 1:
                place = (os.environ.get("SLURMD_NODENAME"), *world())
                with open("places.jsonl", "a") as file:
                    file.write(json.dumps([os.environ.get("SLURM_RESTART_COUNT", "0"), place]) + "\\n")
            while self.updates > {FREE_UPDATES} and os.path.exists("hold"):
                time.sleep(0.05)
        return super().__call__(*args, **kwargs)
"""
_SCRIPT = """
import sys, time
print("runs", flush=True)
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[4]))
"""


class TinyVideoClip(LaunchedProject):
    """Pre-training of a tiny VideoCLIP on two nodes, its zero-shot test, fine-tuning on one node, and the test."""

    jobs = ("how2", "test_vtt_zs", "vtt_videoclip", "test_vtt_videoclip")

    def __init__(self, folder: Path, cluster: SlurmCluster, corpus: Path) -> None:
        run_dirs = ("runs/tiny", "runs/tiny/vtt_zs/eval", "runs/tiny/vtt", "runs/tiny/vtt/eval")
        super().__init__(folder, cluster, _videoclip(corpus), dict(zip(self.jobs, run_dirs, strict=True)))
        (folder / "watched.py").write_text(_LOSS)

    def hold(self) -> None:
        """Let every run of the pre-training wait in the update after its free ones."""
        (self.folder / "hold").touch()

    def release(self) -> None:
        """Let it run on."""
        (self.folder / "hold").unlink()

    def until_held(self, update: int) -> None:
        """Wait until the pre-training has saved an update and waits in the next one."""
        saved = f"(epoch {(update - 1) // 5 + 1} @ {update} updates"
        self.until(f"the checkpoint of update {update}", lambda: saved in self.log("how2"))

    def until_signalled(self, *nodes: str) -> None:
        """Wait until Slurm has sent SIGUSR2 to the worker on each node."""
        step = f"[{self.slurm_job('how2')}.0] Sent signal {signal.SIGUSR2:d} to StepId"
        for node in nodes:
            log = self.cluster.folder / f"slurmd.{node}.log"
            self.until(f"the signal on {node}", lambda log=log: step in log.read_text())

    def places(self, restart: int) -> list[tuple[str, int, int]]:
        """Return node, rank and known number of workers of each of the pre-training's workers after a restart."""
        lines = map(json.loads, (self.folder / "places.jsonl").read_text().splitlines())
        return sorted(tuple(place) for counted, place in lines if counted == str(restart))

    def account(self) -> str:
        """Return the places of the pre-training's workers, by restart, beside how the jobs stand."""
        return f"[restart, [node, rank, workers]]:\n{(self.folder / 'places.jsonl').read_text()}{super().account()}"


class ScriptProject(LaunchedProject):
    """Jobs `one`, `two` and `three`, each after the one before; a job takes seconds and ends with an exit code."""

    def __init__(
        self, folder: Path, cluster: SlurmCluster, seconds: dict[str, float] | None = None, code_of_two: int = 0
    ) -> None:
        jobs = ("one", "two", "three")
        config = {
            "project_dir": "chain", "base_dir": "base",
            "task_group": {
                job: {
                    "task_list": [f"{job}.yaml"],
                    "args": {"seconds": (seconds or {}).get(job, 0), "code": code_of_two if job == "two" else 0},
                }
                for job in jobs
            },
        }  # fmt: skip
        super().__init__(folder, cluster, config, {job: f"runs/chain/{job}" for job in jobs})
        (folder / "projects" / "base").mkdir(parents=True)
        (folder / "script.py").write_text(_SCRIPT)
        for job in jobs:
            (folder / "projects" / "base" / f"{job}.yaml").write_text("script: script.py\n")


def _videoclip(corpus: Path) -> dict[str, Any]:
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
            "save_interval_updates": 1, "keep_interval_updates": 1, "keep_last_epochs": 1,
        },
    }  # fmt: skip
    sizes = {"bert_name": str(_TINY_BERT), "max_video_len": 8, "max_len": 24}
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
            "checkpoint": {"restore_file": "runs/task/checkpoint_last.pt"},
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
