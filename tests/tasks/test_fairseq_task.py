"""The plug-in's task and model inside one process: data workers that leave, heads that only a beginning may lack."""

import multiprocessing
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("fairseq")
pytestmark = pytest.mark.filterwarnings("ignore:.pin_memory. argument is set as true")

from fairseq.data import EpochBatchIterator

from mmpt.models.fairseq_model import FairseqMMModel
from mmpt.models.vlm import MMFusionMTM
from mmpt.tasks.fairseq_task import _ending_its_workers
from mmpt.utils.errors import CheckpointError
from mmpt.utils.registry import resolve_class


class Numbers(torch.utils.data.Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return int(index)

    def __len__(self) -> int:
        return 6


def batches(workers: int) -> EpochBatchIterator:
    return EpochBatchIterator(
        Numbers(), collate_fn=list, batch_sampler=[[0, 1], [2, 3], [4, 5]], num_workers=workers, buffer_size=0
    )


def alive() -> int:
    return len(multiprocessing.active_children())


def test_data_workers_leave_with_the_last_batch() -> None:
    before = alive()
    iterator = _ending_its_workers(batches(2)).next_epoch_itr(shuffle=False)
    assert next(iterator) == [0, 1]
    assert alive() == before + 2
    assert list(iterator) == [[2, 3], [4, 5]]
    assert alive() == before, "left to the garbage collector, each would cost five seconds"


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_fairseq(workers: int) -> None:
    plain, ours = batches(workers), _ending_its_workers(batches(workers))
    for _ in range(2):
        assert list(ours.next_epoch_itr(shuffle=True)) == list(plain.next_epoch_itr(shuffle=True))
        assert ours.end_of_epoch()


def test_a_resumed_epoch_goes_on_in_the_middle() -> None:
    first = _ending_its_workers(batches(1))
    next(first.next_epoch_itr(shuffle=False))
    state = first.state_dict()
    second = _ending_its_workers(batches(1))
    second.load_state_dict(state)
    assert list(second.next_epoch_itr(shuffle=False)) == [[2, 3], [4, 5]]


def wrapped(name: str, begins: bool) -> FairseqMMModel:
    model: Any = resolve_class("model", name)
    task = SimpleNamespace(mmtask=SimpleNamespace(model=model(model.tiny_config())))
    return FairseqMMModel.build_model(SimpleNamespace(reset_optimizer=begins), task)  # type: ignore[arg-type]


def test_a_training_that_goes_on_must_have_its_head() -> None:
    pretrained = MMFusionMTM(MMFusionMTM.tiny_config()).state_dict()
    state = {"mmmodel." + key: value for key, value in pretrained.items()}
    begun = wrapped("MMFusionActionSegmentation", begins=True)
    begun.upgrade_state_dict(filled := dict(state))
    begun.load_state_dict(filled)
    with pytest.raises(CheckpointError, match="classifier"):
        wrapped("MMFusionActionSegmentation", begins=False).upgrade_state_dict(dict(state))
