"""The plug-in's task and model inside one process: data workers that leave, heads that only a beginning may lack."""

import logging
import multiprocessing
import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("fairseq")

from fairseq.data import EpochBatchIterator

from mmpt.losses import MMContraLoss
from mmpt.models.fairseq_model import FairseqMMModel
from mmpt.models.vlm import MMFusionMTM
from mmpt.optim.fairseq_linear_warmup import LinearWarmup
from mmpt.tasks.fairseq_batches import EpochBatches
from mmpt.tasks.fairseq_nonfinite import StopsAtNonFinite
from mmpt.tasks.fairseq_task import FairseqMMTask, _planned_updates, _warn_of_parted_negatives, _warn_of_warm_up
from mmpt.utils.errors import CheckpointError
from mmpt.utils.registry import resolve_class
from mmpt.utils.signals import LeaveRequest

pytestmark = pytest.mark.filterwarnings("ignore:.pin_memory. argument is set as true")


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
    iterator = EpochBatches(batches(2)).next_epoch_itr(shuffle=False)
    assert next(iterator) == [0, 1]
    assert alive() == before + 2
    assert list(iterator) == [[2, 3], [4, 5]]
    assert alive() == before, "left to the garbage collector, each would cost five seconds"


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_fairseq(workers: int) -> None:
    plain, ours = batches(workers), EpochBatches(batches(workers))
    for _ in range(2):
        assert list(ours.next_epoch_itr(shuffle=True)) == list(plain.next_epoch_itr(shuffle=True))
        assert ours.end_of_epoch()


def test_a_resumed_epoch_goes_on_in_the_middle() -> None:
    first = EpochBatches(batches(1))
    next(first.next_epoch_itr(shuffle=False))
    state = first.state_dict()
    second = EpochBatches(batches(1))
    second.load_state_dict(state)
    assert list(second.next_epoch_itr(shuffle=False)) == [[2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("batches", "settings", "updates"),
    [
        (1, {"warmup_updates": 122, "max_epoch": 10}, 10),
        (5, {"warmup_updates": 20, "max_epoch": 4}, 20),
        (5, {"warmup_updates": 19, "max_epoch": 4}, None),
        (5, {"warmup_updates": 12, "max_epoch": 4, "update_freq": [2]}, 12),  # three updates of 2, 2 and 1 batches
        (5, {"warmup_updates": 14, "max_epoch": 4, "update_freq": [1, 2]}, 14),  # 5 + 3 + 3 + 3
        (5, {"warmup_updates": 13, "max_epoch": 4, "update_freq": [1, 2]}, None),
        (5, {"warmup_updates": 100, "max_epoch": 1, "update_freq": [1, 2]}, 5),
        (5, {"warmup_updates": 100, "max_epoch": 0}, None),  # unlimited
        (5, {"warmup_updates": 100, "max_epoch": 0, "max_update": 90}, 90),
        (5, {"warmup_updates": 100, "max_epoch": 50, "max_update": 90}, 90),
        (5, {"max_epoch": 1}, None),  # another scheduler
        (5, {"warmup_updates": 0, "max_epoch": 1}, None),
    ],
)
def test_a_training_that_ends_within_its_warm_up_is_warned_of(caplog, batches, settings, updates) -> None:
    args: Any = SimpleNamespace(**settings)
    _warn_of_warm_up(args, _planned_updates(args, batches))
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * (updates is not None)
    if updates is not None:
        wanted = f"ends within its warm-up: {updates} updates, warmup_updates {settings['warmup_updates']}."
        assert wanted in caplog.text


def test_the_warm_up_is_checked_once_with_the_batches_of_one_process(caplog) -> None:
    from mmpt.datasets.fairseq_dataset import FairseqMMDataset

    task = FairseqMMTask.__new__(FairseqMMTask)
    task.mmtask, task.train_batches, task.dataset_to_epoch_iter = SimpleNamespace(), None, {}
    task.args = SimpleNamespace(warmup_updates=6, max_epoch=3, update_freq=[1], save_dir="runs")
    task.cfg = task.args
    items: Any = Numbers()
    items.set_epoch, items.order, items.epoch_batches = lambda epoch: None, lambda: np.arange(6), lambda: None
    task.datasets = {"train": FairseqMMDataset(items)}
    for epoch in (1, 2):  # six items, two processes: 2 batches of 2 each
        task.get_batch_iterator(task.datasets["train"], max_sentences=2, num_shards=2, epoch=epoch)
    assert caplog.text.count("6 updates, warmup_updates 6") == 1
    assert LinearWarmup.planned == 6, "the schedule that ends with the training"


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


@pytest.mark.parametrize(
    ("frequencies", "everywhere", "warned"),
    [([1], True, False), ([2], True, True), ([1, 4], True, True), ([2], False, False)],
)
def test_negatives_that_update_freq_parts_are_warned_of(
    frequencies: list[int], everywhere: bool, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    args, loss = SimpleNamespace(update_freq=frequencies), MMContraLoss(global_negatives=everywhere)
    _warn_of_parted_negatives(args, loss, SimpleNamespace(grad_cache_rows=None))
    assert ("model.grad_cache_rows" in caplog.text) == warned
    caplog.clear()
    _warn_of_parted_negatives(args, loss, SimpleNamespace())  # a model without it, as MERLOT's
    assert "grad_cache_rows" not in caplog.text and ("own negatives" in caplog.text) == warned


@pytest.mark.parametrize("step", ["train_step", "valid_step"])
def test_every_batch_tells_the_others_of_a_request_to_leave(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StopsAtNonFinite, step, lambda self: (torch.zeros(()), 1, {"loss": 0.0}))
    task = object.__new__(FairseqMMTask)
    task.leave_request = LeaveRequest()
    assert getattr(task, step)()[2]["leaving"] == 0
    task.leave_request.received = signal.SIGTERM
    assert getattr(task, step)()[2]["leaving"] == 1
