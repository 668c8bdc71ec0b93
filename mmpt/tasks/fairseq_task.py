"""fairseq's task ``mmtask``: a thin wrapper of :class:`mmpt.tasks.task.Task`."""

import logging
import math
import os
import warnings
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from fairseq.data import FairseqDataset
from fairseq.tasks import register_task

import mmpt.losses.fairseq_loss
import mmpt.models.fairseq_model
import mmpt.optim.fairseq_adamw
import mmpt.optim.fairseq_compact_adam
import mmpt.optim.fairseq_half
import mmpt.optim.fairseq_warmup_decay  # noqa: F401  these modules register what MMPT adds to fairseq
from mmpt.datasets.fairseq_dataset import FairseqMMDataset
from mmpt.optim.fairseq_linear_warmup import LinearWarmup
from mmpt.tasks.fairseq_batches import EpochBatches
from mmpt.tasks.fairseq_checkpoints import make_checkpoints_safe
from mmpt.tasks.fairseq_leaving import agree, leave_when_asked, note_request
from mmpt.tasks.fairseq_nonfinite import StopsAtNonFinite
from mmpt.tasks.fairseq_switches import check_switches, prepare_ema
from mmpt.tasks.task import config_task
from mmpt.utils.allocator import keep_freed_memory
from mmpt.utils.config import load_config, save_config
from mmpt.utils.distributed import is_main_process, world
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.signals import LeaveRequest, die_with_torchrun
from mmpt.utils.weight_files import LAST_CHECKPOINT, checkpoint_file

__all__ = ["FairseqMMTask"]

logger = logging.getLogger(__name__)


@register_task("mmtask")
class FairseqMMTask(StopsAtNonFinite):
    """``fairseq-train CONFIG.yaml --user-dir mmpt --task mmtask --arch mmarch --criterion mmloss …``."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the one positional argument: the YAML of the job."""
        parser.add_argument("taskconfig", metavar="FILE", help="the YAML of one training job")

    def __init__(self, args: Namespace) -> None:
        super().__init__(args)
        keep_freed_memory()
        self.train_batches: EpochBatches | None = None
        self.leave_request = LeaveRequest()
        _check_world()
        check_switches(args)
        make_checkpoints_safe()
        prepare_ema(args)
        LinearWarmup.planned = None  # that of an earlier training in this process
        leave_when_asked()
        # fairseq pins memory everywhere; without a GPU torch says at every epoch that it does not.
        warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true")
        _check_restore_file(args)
        self.config = load_config(args.taskconfig)
        self.mmtask = config_task(self.config, seed=args.seed)
        self.mmtask.build_dataset()
        self.mmtask.build_loss()
        model = self.mmtask.build_model()
        _warn_of_parted_negatives(args, self.mmtask.loss_fn, model)

    def save_settings(self) -> None:
        """Write ``config.yaml`` to the folder of the training, which must be this one's own by then.

        Raises:
            StorageError: if the disk is full or refuses.
        """
        save_config(
            self.config,
            Path(self.args.save_dir) / "config.yaml",
            f"The settings of {self.args.taskconfig}, resolved.",
        )

    def load_dataset(self, split: str, **kwargs: Any) -> None:
        """Make the dataset of ``train``, ``valid`` or ``test`` known to fairseq.

        Raises:
            DataError: if the config has no such split.
        """
        known = {"train": self.mmtask.train_data, "valid": self.mmtask.val_data, "test": self.mmtask.test_data}
        dataset = known.get(split)
        if dataset is None:
            key = {"train": "train_path", "valid": "val_path"}.get(split, "test_path")
            raise DataError(f"{self.args.taskconfig}: there is no {split!r} data; set dataset.{key}")
        self.datasets[split] = FairseqMMDataset(dataset)

    def get_batch_iterator(self, dataset: FairseqDataset, *args: Any, epoch: int = 1, **kwargs: Any) -> Any:
        """Return fairseq's iterator; before an epoch of training let the task prepare it (retrieved batches)."""
        prepare = getattr(self.mmtask, "prepare_epoch", None)
        last = self.args.max_epoch or 0
        # fairseq asks for one iterator more than there are epochs; retrieving for that would be wasted.
        if prepare is not None and dataset is self.datasets.get("train") and not 0 < last < epoch:
            prepare(self.mmtask.model, epoch, Path(self.args.save_dir) / "retri")
        if kwargs.get("num_workers"):
            kwargs["data_buffer_size"] = 0  # data workers read ahead themselves; the buffer's thread hides their end
        batches = EpochBatches(super().get_batch_iterator(dataset, *args, epoch=epoch, **kwargs))
        if dataset is self.datasets.get("train"):
            frequencies = getattr(self.args, "update_freq", None) or [1]
            batches.group = frequencies[min(epoch, len(frequencies)) - 1]
            if self.train_batches is None:
                LinearWarmup.planned = _planned_updates(self.args, len(batches))
                _warn_of_warm_up(self.args, LinearWarmup.planned)
            self.train_batches = batches
        return batches

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """Listen to signals from the first epoch on: there is something to save."""
        super().begin_epoch(epoch, model)
        self.leave_request.listen()

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run forward and backward pass; tell the other workers whether this one was asked to leave."""
        loss, sample_size, logging_output = super().train_step(*args, **kwargs)
        note_request(logging_output, self.leave_request)
        return loss, sample_size, logging_output

    def valid_step(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the loss of a validation batch; tell the other workers whether this one was asked to leave."""
        loss, sample_size, logging_output = super().valid_step(*args, **kwargs)
        note_request(logging_output, self.leave_request)
        return loss, sample_size, logging_output

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Log what fairseq has added up over the workers, and learn whether one of them was asked to leave."""
        super().reduce_metrics(logging_outputs, criterion)
        agree(logging_outputs, self.leave_request)

    @property
    def source_dictionary(self) -> None:
        """None: the tokenizer belongs to the text processor."""
        return None

    @property
    def target_dictionary(self) -> None:
        """None: the tokenizer belongs to the text processor."""
        return None


def _planned_updates(args: Namespace, batches: int) -> float:
    """Return how many updates a training makes at most; infinity where nothing limits it.

    Args:
        batches: those of one epoch that each process trains on; ``--update-freq`` of them make one update.
    """
    epochs, limit = getattr(args, "max_epoch", 0) or 0, getattr(args, "max_update", 0) or math.inf
    if not epochs:
        return limit
    frequencies = getattr(args, "update_freq", None) or [1]
    # the last frequency goes on to the end
    listed = [math.ceil(batches / every) for every in frequencies[:epochs]]
    return min(limit, sum(listed) + listed[-1] * (epochs - len(listed)))


def _warn_of_warm_up(args: Namespace, updates: float) -> None:
    """Warn of a training of so many updates that ends before its learning rate is reached."""
    warm_up = getattr(args, "warmup_updates", 0) or 0
    if warm_up > 0 and updates <= warm_up and is_main_process():
        logger.warning(
            "this training ends within its warm-up: %d updates, warmup_updates %d. Its learning rate never stays at "
            "lr: lower fairseq.optimization.warmup_updates or fairseq.dataset.batch_size, or raise max_epoch",
            updates,
            warm_up,
        )


def _check_world() -> None:
    """Refuse to train alone where several workers were started, and see to it that they end with their agent.

    fairseq leaves torchrun's environment aside where there is no GPU: each worker would train on all of the data.

    Raises:
        ConfigError: if the environment speaks of more workers than there are in this one's process group.
    """
    asked = int(os.environ.get("WORLD_SIZE") or 1)
    if asked > 1 and world()[1] != asked:
        raise ConfigError(
            f"WORLD_SIZE is {asked}, but this worker is in a world of {world()[1]}: the workers would not train "
            "together. Start them by locallaunch.py, or have torchrun run mmpt_cli/fairseq_worker.py"
        )
    die_with_torchrun()


def _warn_of_parted_negatives(args: Namespace, loss_fn: Any, model: Any) -> None:
    """Warn of negatives that ``--update-freq`` does not bring together, where all of them are asked for."""
    frequencies = getattr(args, "update_freq", None) or [1]
    if max(frequencies) > 1 and getattr(loss_fn, "global_negatives", False) and is_main_process():
        way_out = "Larger batches, or more workers, have more of them"
        if hasattr(model, "grad_cache_rows"):
            way_out = (
                "One batch as large as all of them, encoded model.grad_cache_rows rows at a time, takes the same "
                "memory and keeps all negatives"
            )
        logger.warning(
            "loss.global_negatives with fairseq.optimization.update_freq: %s: each of the batches of an update has its "
            "own negatives, of all workers but of this batch alone. %s",
            frequencies,
            way_out,
        )


def _check_restore_file(args: Namespace) -> None:
    """Refuse a starting checkpoint that does not exist: fairseq would log a line and train from scratch."""
    path = getattr(args, "restore_file", LAST_CHECKPOINT)
    if path != LAST_CHECKPOINT and not checkpoint_file(path).exists():
        raise DataError(f"--restore-file {path}: no such checkpoint")
