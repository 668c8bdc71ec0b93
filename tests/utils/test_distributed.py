"""Objects travel by gloo whatever the process group is; 2 real processes, whose backend calls itself nccl."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mmpt.utils import distributed
from mmpt.utils.distributed import all_gather_objects, broadcast_object, gather_items, synchronize
from tests.processes import spawn


def exchanged(rank: int) -> list[Any]:
    """Send objects in all ways there are; return what comes."""
    synchronize()
    everyone = all_gather_objects({"rank": rank})
    gathered = gather_items([f"{rank}{number}" for number in range(rank + 1)])
    return [everyone, gathered, broadcast_object("first" if rank == 0 else None)]


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    made: list[Any] = []
    real = dist.new_group

    def new_group(*args: Any, **options: Any) -> Any:
        made.append((options["backend"], options["timeout"] / timedelta(hours=1)))
        return real(*args, **options)

    dist.new_group = new_group
    config = dist.get_backend_config
    for backend in ("cpu:gloo,cuda:gloo", "cpu:gloo,cuda:nccl", "cuda:nccl", "cuda:nccl again"):
        store = dist.FileStore(str(folder / backend), 2)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(minutes=1))
        dist.get_backend_config = lambda _=None, backend=backend: backend.split()[0]
        own = distributed._object_group() is dist.group.WORLD
        found[backend] = (exchanged(rank), exchanged(rank), own, list(made))
        made.clear()
        dist.get_backend_config = config
        dist.destroy_process_group()
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("objects")
    spawn(worker, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_objects_arrive_in_the_order_of_ranks(found: list[dict[str, Any]]) -> None:
    everyone = [{"rank": 0}, {"rank": 1}]
    for first, second in zip(found[0].values(), found[1].values(), strict=True):
        assert first[0] == first[1] == [everyone, [["00"], ["10", "11"]], "first"]
        assert second[0] == second[1] == [everyone, None, "first"]


def test_a_group_of_gpus_gets_one_of_processors_beside_it(found: list[dict[str, Any]]) -> None:
    """Made once for each process group; one that reaches the processor is used as it is."""
    for one in found:
        for backend, (_, _, own, made) in one.items():
            alone = backend.startswith("cuda:nccl")
            assert own is not alone
            assert [name for name, _ in made] == ["gloo"] * alone
            assert all(hours >= 2 for _, hours in made)


def test_one_process_makes_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_object_group", None)
    assert exchanged(0) == [[{"rank": 0}], [["00"]], "first"]
