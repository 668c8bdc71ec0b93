"""A training ends at the first loss, gradient or weight that is not a finite number, and says on which batch.

By itself fairseq writes a whole checkpoint ``crash.pt``, runs the batch again in every process and prints tensors; a
NaN loss under fp16 it takes for an overflow and leaves the batch out, and after a NaN validation loss it never finds a
better checkpoint again.
"""

import itertools
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.tasks import LegacyFairseqTask
from torch import Tensor

from mmpt.utils.distributed import all_gather_objects, world
from mmpt.utils.errors import MMPTError, StorageError
from mmpt.utils.files import write_json

__all__ = ["NonFiniteError", "StopsAtNonFinite", "nonfinite_inputs"]

logger = logging.getLogger(__name__)

_SHOWN = 16


class NonFiniteError(MMPTError):
    """Report a loss, gradient or weight that is NaN or infinite; names the report with the ids of the batch."""


class StopsAtNonFinite(LegacyFairseqTask):
    """Mixin of the task: watches what the trainer computes, at no additional wait for the device.

    A gradient that is not finite is found where fairseq looks at its norm, which is the same in all processes; a loss
    that is not finite beside a finite gradient, where fairseq averages it over the processes. All processes end
    together, each with a report of its own batch. Gradients that overflow under fp16 while the losses are finite are
    left to the loss scaler.
    """

    #: The batches of the update, as they came from the data workers, and their losses so far.
    _batches: list[dict[str, Any]]
    _losses: list[Tensor]
    _update = 0
    _trainer: Any = None

    def attach(self, trainer: Any) -> None:
        """Watch the steps and the gradient norms of a trainer."""
        self._trainer, self._batches, self._losses = trainer, [], []
        step, clip = trainer.train_step, trainer.clip_grad_norm

        def train_step(samples: list[dict[str, Any]], raise_oom: bool = False) -> Any:
            self._batches, self._losses, self._update = samples, [], trainer.get_num_updates() + 1
            return step(samples, raise_oom)

        def clip_grad_norm(clip_norm: float) -> Tensor:
            try:
                norm = clip(clip_norm)
            except OverflowError:
                self._check_losses("loss")
                raise
            except FloatingPointError as error:
                self._stop("gradient", str(error))
                raise
            if not bool(torch.isfinite(norm).all()):
                if trainer.cfg.common.amp:
                    self._check_losses("loss")
                else:
                    self._stop("gradient", f"its norm is {float(norm)}")
            return norm

        trainer.train_step, trainer.clip_grad_norm = train_step, clip_grad_norm

    def train_step(self, sample: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute loss and gradient of a batch, as fairseq's task does, and remember the loss."""
        outputs = super().train_step(sample, *args, **kwargs)
        if self._trainer is not None:
            self._losses.append(outputs[0].detach())
        return outputs

    def valid_step(self, sample: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute the loss of a validation batch, as fairseq's task does, and remember both."""
        outputs = super().valid_step(sample, *args, **kwargs)
        if self._trainer is not None:
            self._batches, self._losses = [sample], [outputs[0].detach()]
        return outputs

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Log the loss of all processes, as fairseq's task does.

        Raises:
            NonFiniteError: if it is not finite.
        """
        if self._trainer is not None:
            total = float(sum(output.get("loss", 0.0) for output in logging_outputs))
            if not math.isfinite(total):
                training = self._trainer.model.training
                self._stop("loss" if training else "validation loss", f"over all processes it is {total}")
        super().reduce_metrics(logging_outputs, criterion)

    def check_weights(self, trainer: Any) -> None:
        """Refuse to save weights that are not finite: the model's, the loss's (a learned temperature), their average.

        Raises:
            NonFiniteError: if a parameter has such a value; names them.
        """
        wrong = _nonfinite(self._weights(trainer))
        if wrong:
            self._stop("weight", f"{', '.join(wrong[:_SHOWN])}: no checkpoint is written; the one before it is good")

    def _weights(self, trainer: Any) -> dict[str, Tensor]:
        """Return all that a checkpoint keeps of weights, by name."""
        modules = {"": trainer.model, "criterion.": trainer.get_criterion()}
        if getattr(self.args, "store_ema", False):
            modules["ema."] = trainer.ema.get_model()
        return {prefix + name: value for prefix, part in modules.items() for name, value in part.named_parameters()}

    def _check_losses(self, what: str) -> None:
        """End the training if the loss of any process is not finite; all must call this together."""
        if any(all_gather_objects(any(not math.isfinite(float(loss)) for loss in self._losses))):
            self._stop(what, "in a process at least")

    def _stop(self, what: str, detail: str) -> None:
        batches = [_described(*pair) for pair in itertools.zip_longest(self._batches, self._losses)]
        wrong = sorted({row["video_id"] for batch in batches for row in batch["nonfinite_inputs"]})
        cause = (
            f"The inputs of {', '.join(wrong[:_SHOWN])} are not finite: extract these again, or leave them out"
            if wrong
            else "The inputs of this process are finite: lower the learning rate, or clip_norm"
        )
        try:
            where = f"Batch: {self._report(f'{what}: {detail}', batches)}"
        except (StorageError, OSError) as error:
            where = f"There is no report of the batch: {error}"
        raise NonFiniteError(f"update {self._update}: the {what} is not finite ({detail}). {cause}. {where}")

    def _report(self, what: str, batches: list[dict[str, Any]]) -> Path:
        rank, size = world()
        args: Any = self.args
        path = Path(args.save_dir) / f"nonfinite_update{self._update}_rank{rank}.json"
        weights = self._weights(self._trainer)
        gradients = {name: value.grad for name, value in weights.items() if value.grad is not None}
        write_json(
            path,
            {
                "what": what,
                "epoch": getattr(getattr(self, "train_batches", None), "epoch", None),
                "update": self._update,
                "rank": rank,
                "processes": size,
                "seed": args.seed,
                "batches": batches,
                "nonfinite_parameters": _nonfinite(weights)[:_SHOWN],
                "nonfinite_gradients": _nonfinite(gradients)[:_SHOWN],
            },
        )
        return path


def nonfinite_inputs(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Return ``key``, ``video_id`` and ``count`` of the values of a batch that are NaN or infinite, by video."""
    ids = batch.get("video_id")
    return [
        {"key": key, "video_id": video, "count": count}
        for key, value in batch.items()
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all())
        for video, count in _by_video(value, ids)
    ]


def _by_video(values: Tensor, ids: Any) -> Iterator[tuple[str, int]]:
    """Yield the id and the number of non-finite values of each row; rows of groups have lists of ids."""
    if isinstance(ids, list) and values.dim() and len(ids) == len(values):
        for row, name in zip(values, ids, strict=True):
            yield from _by_video(row, name)
        return
    count = int((~torch.isfinite(values)).sum())
    if count:
        yield str(ids), count


def _described(batch: dict[str, Any] | None, loss: Tensor | None) -> dict[str, Any]:
    """Return what a report says of a batch and its loss, of which one may be missing."""
    batch = batch or {}
    indices = batch.get("idx")
    return {
        "loss": None if loss is None else str(float(loss)),
        "video_id": batch.get("video_id"),
        "idx": indices.tolist() if isinstance(indices, Tensor) else indices,
        "nonfinite_inputs": nonfinite_inputs(batch),
    }


def _nonfinite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of those that hold a NaN or an infinite value."""
    if not tensors:
        return []
    # One transfer from the device for all.
    largest = torch.stack([value.detach().abs().amax().float() for value in tensors.values() if value.numel()])
    names = [name for name, value in tensors.items() if value.numel()]
    finite = torch.isfinite(largest).tolist()
    return [name for name, good in zip(names, finite, strict=True) if not good]
