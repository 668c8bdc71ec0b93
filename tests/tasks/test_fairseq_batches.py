"""The batches that a training sees: the same ones in the same order for any data workers, shards and interruptions."""

import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("fairseq")

from fairseq import options
from fairseq_runs import arguments, assert_same

from mmpt.tasks.fairseq_batches import EpochBatches
from mmpt.tasks.fairseq_task import FairseqMMTask
from tests.tasks.conftest import plain

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.pin_memory. argument is set as true"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


@pytest.fixture(params=["retrieved", "plain"])
def task(request: Any, pretraining_config: dict[str, Any], tmp_path: Path) -> FairseqMMTask:
    config = pretraining_config
    if request.param == "plain":
        plain(config)
        config["fairseq"]["dataset"]["batch_size"] = 9  # 3 of 18 videos, 3 clips each: 6 batches
    else:
        config["dataset"]["num_video_per_batch"] = 3
    return FairseqMMTask(
        options.parse_args_and_arch(options.get_training_parser(), input_args=arguments(config, tmp_path))
    )


def iterator(task: FairseqMMTask, epoch: int, workers: int = 0, shard: int = 0, shards: int = 1) -> EpochBatches:
    """What fairseq's trainer asks for."""
    task.load_dataset("train")
    return task.get_batch_iterator(
        task.datasets["train"], max_sentences=task.args.batch_size, seed=task.args.seed, num_workers=workers,
        num_shards=shards, shard_id=shard, epoch=epoch,
    )  # fmt: skip


def test_batches_depend_on_seed_epoch_and_index_alone(task: FairseqMMTask) -> None:
    epochs = {epoch: list(iterator(task, epoch).next_epoch_itr()) for epoch in (1, 2)}
    assert len(epochs[1]) > 4 and not torch.equal(epochs[1][0]["vfeats"], epochs[2][0]["vfeats"])
    for workers, (epoch, expected) in itertools.product((1, 4), epochs.items()):
        assert_same(list(iterator(task, epoch, workers).next_epoch_itr()), expected)
    first, last = iterator(task, 2, workers=1), iterator(task, 2, workers=4)
    began = first.next_epoch_itr()
    seen = [next(began) for _ in range(2)]
    last.load_state_dict(first.state_dict())
    assert_same(seen + list(last.next_epoch_itr()), epochs[2])


def test_the_shares_of_two_processes_are_the_batches_of_one(task: FairseqMMTask) -> None:
    expected = list(iterator(task, 2).next_epoch_itr())
    shares = [list(iterator(task, 2, workers=rank, shard=rank, shards=2).next_epoch_itr()) for rank in range(2)]
    merged = [batch for pair in itertools.zip_longest(*shares) for batch in pair if batch]
    assert_same(merged, expected)


@pytest.mark.parametrize(("before", "after", "group", "repeated"), [(2, 1, 1, 0), (1, 2, 1, 1), (1, 2, 2, 3)])
def test_another_number_of_processes_goes_on_at_the_same_place(
    before: int, after: int, group: int, repeated: int, caplog: pytest.LogCaptureFixture
) -> None:
    """After 3 of 10 batches alone, or 4 as two processes; of the updates that are cut, the batches come again."""
    begun = [EpochBatches(numbers(before, rank)) for rank in range(before)]
    done = [next(itr) for itr in [one.next_epoch_itr() for one in begun] for _ in range(2 if before == 2 else 3)]
    left = []
    for rank in range(after):
        resumed = EpochBatches(numbers(after, rank), group)
        with caplog.at_level(logging.WARNING):
            resumed.load_state_dict(begun[0].state_dict())
        left += list(resumed.next_epoch_itr())
    assert sorted({*map(tuple, done), *map(tuple, left)}) == [(number,) for number in range(10)], "none is left out"
    assert len(done) + len(left) == 10 + repeated
    assert f"{before} process(es): after {len(done)} of its 10 batches, {repeated} of which" in caplog.text


def test_a_changed_number_of_batches_is_said(caplog: pytest.LogCaptureFixture) -> None:
    begun = EpochBatches(numbers(1, 0))
    next(begun.next_epoch_itr())
    resumed = EpochBatches(numbers(1, 0, total=8))
    resumed.load_state_dict(begun.state_dict())
    assert "had 10 batches when the checkpoint was saved and has 8 now" in caplog.text


def test_a_checkpoint_of_fairseq_alone_is_read(caplog: pytest.LogCaptureFixture) -> None:
    resumed = EpochBatches(numbers(1, 0))
    resumed.load_state_dict({"version": 2, "epoch": 1, "iterations_in_epoch": 4, "shuffle": True})
    assert len(list(resumed.next_epoch_itr())) == 6 and not caplog.records


class Items(torch.utils.data.Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return int(index)


def numbers(shards: int, shard: int, total: int = 10) -> Any:
    from fairseq.data import EpochBatchIterator

    batches = [[number] for number in range(total)]
    return EpochBatchIterator(Items(), collate_fn=list, batch_sampler=batches, num_shards=shards, shard_id=shard)
