"""Contrastive losses of 2 and 4 processes through fairseq's trainer: loss and gradients are those of one process."""

import functools
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist

pytest.importorskip("fairseq")

from fairseq.models import distributed_fairseq_model

from mmpt.utils.registry import build
from tests.losses.fairseq_steps import make_trainer, share, small_model, train, whole_batch
from tests.processes import spawn

pytestmark = pytest.mark.slow
TOLERANCE = {"atol": 1e-9, "rtol": 1e-9}


class Case(NamedTuple):
    """One update: of each of its batches, how the rows are spread over the workers."""

    loss: str
    spread: str
    learned: bool = False
    rows: int | None = None  # model.grad_cache_rows
    ddp: str = "legacy_ddp"


SPREADS: dict[int, dict[str, list[list[int]]]] = {
    2: {
        "even": [[3, 3]],
        "uneven": [[5, 1]],
        "padded": [[6, 0]],
        "two": [[3, 3], [2, 4]],
        "two padded": [[3, 3], [6, 0]],
    },
    4: {
        "even": [[2, 2, 2, 2]],
        "uneven": [[3, 1, 2, 2]],
        "padded": [[3, 0, 5, 0]],
        "two": [[2, 2, 2, 2], [3, 1, 2, 2]],
        "two padded": [[2, 2, 2, 2], [5, 3, 0, 0]],
    },
}
SCORING = ("T2VContraLoss", "V2TContraLoss", "MMContraLoss", "MILNCELoss")
CASES = [
    *(Case(loss, "even", learned=loss != "NCE") for loss in (*SCORING, "NCE")),
    *(Case(loss, spread) for loss in (*SCORING, "NCE") for spread in ("uneven", "padded")),
    *(Case(loss, "two padded", learned=True, rows=2) for loss in ("MMContraLoss", "MILNCELoss")),
    Case("MMContraLoss", "two", rows=3),
    Case("MMContraLoss", "padded", learned=True),
    Case("MMContraLoss", "uneven", learned=True, rows=2, ddp="pytorch_ddp"),
    Case("MMContraLoss", "two padded", learned=True, rows=2, ddp="pytorch_ddp"),
    Case("MILNCELoss", "padded", learned=True, ddp="pytorch_ddp"),
]
#: With four processes, once each.
FEWER = [*(case for case in CASES if case.spread in ("uneven", "padded") and case.ddp == "legacy_ddp"), CASES[15]]


def make_loss(case: Case) -> Any:
    options: dict[str, Any] = {"global_negatives": True}
    if case.loss != "NCE":
        options |= {"normalize": True, "temperature": 0.2, "learn_temperature": case.learned}
    return build("loss", case.loss, **options)


def update(case: Case, workers: int, rank: int, spread: list[list[int]]) -> dict[str, Any]:
    """Take one update; batch n of it has the seed n."""
    trainer = make_trainer(make_loss(case), small_model(case.loss, case.rows), workers, rank, case.ddp)
    batches = [whole_batch(sum(sizes), case.loss, seed) for seed, sizes in enumerate(spread)]
    return train(trainer, [share(batch, sizes, rank) for batch, sizes in zip(batches, spread, strict=True)])


def worker(rank: int, workers: int, folder: str) -> None:
    torch.set_num_threads(1)
    # What fairseq's pytorch_ddp does on GPUs; on the CPU torch takes no ids of devices.
    on_cpu = functools.partial(_without_devices, distributed_fairseq_model.DistributedDataParallel)
    distributed_fairseq_model.DistributedDataParallel = on_cpu
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=workers)
    results = {case: update(case, workers, rank, SPREADS[workers][case.spread]) for case in _cases(workers)}
    torch.save({tuple(case): result for case, result in results.items()}, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def _cases(workers: int) -> list[Case]:
    return CASES if workers == 2 else FEWER


def _without_devices(wrapper: Any, device_ids: Any, output_device: Any, **others: Any) -> Any:
    return wrapper(**others)


@pytest.fixture(scope="module", params=[2, 4], ids=["world2", "world4"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    folder = tmp_path_factory.mktemp("workers")
    spawn(worker, (request.param, str(folder)), nprocs=request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@functools.cache
def alone(case: Case, rows: int, seed: int) -> dict[str, Any]:
    """Return what one process makes of a whole batch, encoded at once."""
    trainer = make_trainer(make_loss(case), small_model(case.loss))
    return train(trainer, [whole_batch(rows, case.loss, seed)])


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_an_update_is_that_of_one_process_with_the_whole_batch(results: list[dict[Any, Any]], case: Case) -> None:
    if case not in _cases(len(results)):
        pytest.skip("with two processes alone")
    spread = SPREADS[len(results)][case.spread]
    plain = case._replace(spread="", rows=None, ddp="legacy_ddp")
    wanted = [alone(plain, sum(sizes), seed) for seed, sizes in enumerate(spread)]
    # fairseq averages over the batches of an update and over workers alike: a batch weighs as much as it has workers.
    counting = [sum(size > 0 for size in sizes) for sizes in spread]
    weights = [count / sum(counting) for count in counting]
    got = [result[tuple(case)] for result in results]
    names = wanted[0]["gradients"].keys()
    assert sum(name.startswith("criterion") for name in names) == case.learned
    for rank in range(len(results)):
        assert got[rank]["gradients"].keys() == names
        for name in names:
            mean = sum(weight * result["gradients"][name] for weight, result in zip(weights, wanted, strict=True))
            torch.testing.assert_close(got[rank]["gradients"][name], mean, **TOLERANCE, msg=name)
        loss = sum(weight * result["logged"]["loss"] for weight, result in zip(weights, wanted, strict=True))
        assert loss > 0.1
        assert got[rank]["logged"]["loss"] == pytest.approx(loss, abs=1e-9)
        assert got[rank]["validated"]["loss"] == pytest.approx(wanted[-1]["validated"]["loss"], abs=1e-9)
        if case.learned:
            assert got[rank]["logged"]["logit_scale"] == pytest.approx(5.0, abs=1e-5)
    assert any(wanted[0]["gradients"][name].abs().max() > 1e-3 for name in names)
