"""A training that is asked to leave saves at the next update, on all workers at once, and goes.

One worker may get the signal before the others, or alone. That it did travels with what fairseq adds up over workers
after every update anyway, so that all of them learn of it at the same update and nothing is sent for it besides.
"""

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import fairseq_cli.train

from mmpt.tasks.fairseq_checkpoints import save_last
from mmpt.utils.distributed import synchronize
from mmpt.utils.signals import LEFT_EARLY, LeaveRequest

__all__ = ["agree", "leave_when_asked", "note_request"]

logger = logging.getLogger(__name__)

_KEY = "leaving"


def note_request(logging_output: dict[str, Any], request: LeaveRequest) -> None:
    """Tell the other workers, by this update's ``logging_output``, whether this one was asked to leave."""
    logging_output[_KEY] = int(request.received is not None)


def agree(logging_outputs: Sequence[Mapping[str, Any]], request: LeaveRequest) -> None:
    """Learn from the sum of all workers' outputs whether one of them was asked to leave."""
    request.agreed = request.agreed or sum(float(output.get(_KEY, 0)) for output in logging_outputs) > 0


def leave_when_asked() -> None:
    """Let fairseq's training loop save and leave after the first update at which its workers agreed to.

    It leaves by ``SystemExit`` with code :data:`~mmpt.utils.signals.LEFT_EARLY`, unless the training is finished. What
    is due at that update in any case, validation and checkpoints, is done too: the training that goes on from there is
    the uninterrupted one. ``checkpoint_last.pt`` is written before such a validation, so that no update is lost if the
    time is up during it; then that update is missing among those that ``checkpoint_best.pt`` is chosen from.
    """
    usual, validate = fairseq_cli.train.validate_and_save, fairseq_cli.train.validate
    if getattr(usual, "leaves_when_asked", False):
        return

    @functools.wraps(validate)
    def save_and_validate(cfg: Any, trainer: Any, task: Any, epoch_itr: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_leaving(task):
            save_last(cfg.checkpoint, trainer, epoch_itr)
        return validate(cfg, trainer, task, epoch_itr, *args, **kwargs)

    @functools.wraps(usual)
    def validate_and_save(cfg: Any, trainer: Any, task: Any, epoch_itr: Any, *args: Any, **kwargs: Any) -> Any:
        losses, should_stop = usual(cfg, trainer, task, epoch_itr, *args, **kwargs)
        finished = should_stop or epoch_itr.next_epoch_idx > (cfg.optimization.max_epoch or math.inf)
        if _is_leaving(task) and not finished:
            saved = save_last(cfg.checkpoint, trainer, epoch_itr)
            synchronize()  # a worker that is gone takes the others with it, one that still writes among them
            received = task.leave_request.received
            logger.warning(
                "asked to leave (%s%s at update %d)",
                f"{received.name}, " if received else "",
                "saved" if saved else "nothing is saved: fairseq.checkpoint.no_save,",
                trainer.get_num_updates(),
            )
            raise SystemExit(LEFT_EARLY)
        return losses, should_stop

    validate_and_save.leaves_when_asked = True  # type: ignore[attr-defined]
    fairseq_cli.train.validate = save_and_validate
    fairseq_cli.train.validate_and_save = validate_and_save


def _is_leaving(task: Any) -> bool:
    request = getattr(task, "leave_request", None)
    return request is not None and request.agreed
