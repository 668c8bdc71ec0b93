"""Validation in training through fairseq's own trainer, by 1, 2 and 3 real processes: one and the same loss."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml

from mmpt.launch.commands import build_command
from mmpt.launch.layout import Layout, Machine
from mmpt.launch.project import job_from_yaml
from tests.processes import spawn

pytestmark = pytest.mark.slow
pytest.importorskip("fairseq")

PROCESSES = (1, 2, 3)
VIDEOS, CLIPS = 5, 3


def validation(argv: list[str], rank: int, size: int) -> dict[str, Any]:
    """Validate the untrained model once, as fairseq-train does; return the sums of what it logs."""
    from fairseq import distributed_utils, options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.logging import metrics
    from fairseq.trainer import Trainer

    import mmpt.tasks.fairseq_task  # noqa: F401  --user-dir does not, where mmpt is imported already

    more = ["--distributed-world-size", str(size), "--distributed-rank", str(rank), "--distributed-no-spawn"]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), [*argv, *more]))
    vars(distributed_utils.get_global_group).pop("_global_group", None)  # of the run before
    torch.manual_seed(1)  # the same weights in each process
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    task.load_dataset("valid")
    trainer = Trainer(cfg, task, model, criterion)
    trainer.begin_valid_epoch(1)
    batches = trainer.get_valid_iterator("valid").next_epoch_itr(shuffle=False, set_dataset_epoch=False)
    with metrics.aggregate(new_root=True) as meters:
        steps = [trainer.valid_step(sample) for sample in batches]
    return {"loss": float(meters["loss"].sum), "batches": float(meters["loss"].count), "steps": len(steps)}


def worker(rank: int, argv: list[str], folder: str) -> None:
    torch.set_num_threads(1)
    for size in PROCESSES:
        if rank < size:
            if size > 1:
                dist.init_process_group(
                    "gloo", init_method=f"file://{folder}/meeting{size}", rank=rank, world_size=size
                )
            torch.save(validation(argv, rank, size), f"{folder}/{rank} of {size}.pt")
            if size > 1:
                dist.barrier()
                dist.destroy_process_group()


def test_the_loss_is_that_of_one_process(pretraining_config: dict[str, Any], tiny_corpus: Path, tmp_path: Path) -> None:
    config = pretraining_config
    del config["task"], config["retri_epoch"], config["num_cands"]
    for key in ("num_video_per_batch", "clip_per_video"):
        del config["dataset"][key]
    names = (tiny_corpus / "val.lst").read_text().split()[:VIDEOS]
    (tmp_path / "valid.lst").write_text("\n".join(names))
    config["dataset"] |= {
        "meta_processor": "ShardedHow2MetaProcessor",
        "video_processor": "ShardedVideoProcessor",
        "text_processor": "ShardedTextProcessor",
        "aligner": "OverlappedAligner",
        "subsampling": CLIPS,
        "val_path": str(tmp_path / "valid.lst"),
    }
    config["fairseq"]["dataset"]["batch_size"] = CLIPS  # of one video
    config["fairseq"]["distributed_training"] = {"ddp_backend": "no_c10d"}
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(config))
    argv = build_command(job_from_yaml(path), path, Layout(), Machine(gpus=0)).argv[1:]
    spawn(worker, (argv, str(tmp_path)), nprocs=max(PROCESSES))
    alone = torch.load(tmp_path / "0 of 1.pt")
    assert alone["batches"] == alone["steps"] == VIDEOS
    for size in PROCESSES[1:]:
        for rank in range(size):
            shared = torch.load(tmp_path / f"{rank} of {size}.pt")
            assert shared["steps"] * size > VIDEOS  # one of them stands for nothing
            assert shared["batches"] == VIDEOS
            assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-6)
