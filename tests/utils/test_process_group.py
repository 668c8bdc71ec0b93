"""How a process joins the others of its run: the environment, devices, and what is wrong with either."""

import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from mmpt.utils import process_group as group
from mmpt.utils.distributed import world
from mmpt.utils.errors import ConfigError
from mmpt.utils.process_group import failing_together, process_group


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in group._VARIABLES:
        monkeypatch.delenv(name, raising=False)


def launched(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    for name, value in zip(group._VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"RANK": "0"}, "RANK set in the environment, but not WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"MASTER_ADDR": "host", "MASTER_PORT": "1"}, "MASTER_ADDR, MASTER_PORT set .* but not RANK"),
        (dict(zip(group._VARIABLES, ("2", "2", "0", "host", "1"), strict=True)), "which process this is: RANK=2"),
        (dict(zip(group._VARIABLES, ("x", "2", "0", "host", "1"), strict=True)), "which process this is: RANK=x"),
        (dict(zip(group._VARIABLES, ("0", "2", "1", "host", "1"), strict=True)), "which process this is: .*LOCAL_RANK"),
    ],
)
def test_half_an_environment(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], message: str) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message), process_group("cpu"):
        pass


def test_a_run_to_which_not_all_processes_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launched(monkeypatch, "0", "2", "0", "127.0.0.1", str(port))
    with (
        pytest.raises(ConfigError, match="the 2 processes of this run did not come together at 127.0.0.1:"),
        process_group("cpu", gathering=timedelta(seconds=1)),
    ):
        pass
    assert not dist.is_initialized()


@pytest.mark.parametrize("values", [(), ("0", "1", "0", "127.0.0.1", "1")])
def test_one_process_joins_nothing(monkeypatch: pytest.MonkeyPatch, values: tuple[str, ...]) -> None:
    if values:
        launched(monkeypatch, *values)
    with process_group("cpu") as device, failing_together() as look_for_failures:
        look_for_failures()
        assert device == torch.device("cpu") and not dist.is_initialized() and world() == (0, 1)


def test_each_process_takes_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert group._own_device(torch.device("cuda"), 1) == chosen[-1] == torch.device("cuda:1")
    assert group._own_device(torch.device("cuda:0"), 1) == chosen[-1] == torch.device("cuda:0")
    with pytest.raises(ConfigError, match="LOCAL_RANK is 2, and this machine has 2 GPUs"):
        group._own_device(torch.device("cuda"), 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # Slurm shows it no other
    assert group._own_device(torch.device("cuda"), 5) == torch.device("cuda:0")
    assert group._own_device(torch.device("cpu"), 5) == torch.device("cpu")
