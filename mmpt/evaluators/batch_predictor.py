"""Predictors that take one batch after another, in one process or shared by several."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from tqdm import tqdm

from mmpt.evaluators.base import NothingEvaluated, Predictor
from mmpt.evaluators.sharing import Share
from mmpt.models.embedding import evaluating
from mmpt.utils.distributed import all_gather_objects, check_sendable, gather_items, is_main_process, world
from mmpt.utils.errors import ConfigError
from mmpt.utils.process_group import failing_together

__all__ = ["BatchPredictor", "check_same_batches", "items_of", "on_device", "with_progress"]


class BatchPredictor(Predictor):
    """Predict batch by batch, then finish with the predictions of all batches.

    In a run of several processes (:func:`mmpt.utils.process_group.process_group`) each predicts its share of the
    batches; the first gathers and finishes. What is predicted of a batch must depend on the model, the batch and the
    test set alone, not on which batches the process has seen before: then results are the same, to the last bit, for
    any number of processes.

    A subclass that predicts something once per video sets ``once_per_video``: its batches then say in
    :data:`~mmpt.evaluators.sharing.NEW_ROWS` which rows show a video that no earlier row of the test set shows.
    """

    once_per_video: ClassVar[bool] = False

    @abstractmethod
    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], Any]:
        """Return what makes the predictions of a batch: anything that can be pickled, arrays on the CPU.

        Both are called with the model in eval mode, on ``device``, without gradients.

        Raises:
            ConfigError: if the model cannot do what is asked of it.
            DataError: if data of the test are wrong.
        """

    @abstractmethod
    def finish(self, parts: Sequence[Any], dataloader: Iterable[Mapping[str, Any]], output_file: str) -> dict[str, Any]:
        """Put the predictions of all batches together, save them and return what the metric needs.

        Args:
            parts: what the batch function returned, in the order of the test set; at least one.
        """

    def can_be_shared(self) -> bool:
        """Tell whether a subclass has left :meth:`predict` as it is."""
        return type(self).predict is BatchPredictor.predict

    def predict(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device, output_file: str
    ) -> dict[str, Any]:
        """Predict all batches; the result is empty on all processes but the first."""
        share = Share(dataloader, self.once_per_video)
        with failing_together() as look_for_failures:
            parts: list[tuple[int, Any]] = []
            # A loader draws from torch's generator when its iterator is made.
            with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
                predicted = self.batch_function(model, dataloader, device)
                for number, batch in with_progress(share):
                    look_for_failures()
                    part = predicted(batch)
                    if world()[1] > 1:
                        check_sendable(part)
                    parts.append((number, part))
            if not share.total:
                raise NothingEvaluated("the test set is empty: nothing to evaluate")
        check_same_batches(share)
        gathered = gather_items(parts)
        if gathered is None:
            return {}
        by_number = dict(one for own in gathered for one in own)
        return self.finish([by_number[number] for number in range(share.total)], dataloader, output_file)


def with_progress(share: Share) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the batches of this process, on the first one under a progress bar."""
    try:
        total = len(share)
    except TypeError:
        total = None
    yield from tqdm(share, desc="test", unit="batch", total=total, disable=None if is_main_process() else True)


def check_same_batches(share: Share) -> None:
    """Raise ConfigError in all processes if they did not mean the same batches in the same order."""
    if len(set(all_gather_objects((share.total, share.order)))) > 1:
        raise ConfigError(
            "the processes see different batches, or the same in another order: the loader of a test shared by "
            "several must not shuffle, and their files must be the same"
        )


def items_of(batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the items that a batch was stacked from."""
    for row in range(len(batch["video_id"])):
        yield {key: value[row] for key, value in batch.items()}


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a batch whose tensors are on a device."""
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
