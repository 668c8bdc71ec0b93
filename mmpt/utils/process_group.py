"""A run of several processes: how they find each other, and how all of them fail when one does.

torchrun, or a launcher under Slurm, starts the processes and tells each by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR
and MASTER_PORT which one it is::

    with process_group() as device:  # one process where there are no such variables
        ...  # mmpt.utils.distributed.world() is (rank, number of processes) in here
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from mmpt.utils.devices import pick_device
from mmpt.utils.distributed import all_gather_objects, world
from mmpt.utils.errors import ConfigError, MMPTError

__all__ = ["PATIENCE", "ProcessFailed", "failing_together", "process_group"]

#: How long a process waits for one that lives and does not come, by default; one that died is noticed at once.
PATIENCE = timedelta(hours=1)
#: How long the processes of a run may take to come together at its start.
_GATHERING = timedelta(minutes=5)
#: Seconds that the process which may keep the store stays for the others to ask who is missing.
_FAREWELL = 3
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
#: Attribute of an error that all processes know of.
_KNOWN = "_known_to_all_processes"
#: Number of meetings held in this group; the same in all processes, as each of them takes part in each.
_meetings = 0


class ProcessFailed(MMPTError):
    """Report that another process of this run failed; names it and its reason."""


@contextmanager
def process_group(
    device: torch.device | str | None = None, patience: timedelta = PATIENCE, gathering: timedelta = _GATHERING
) -> Iterator[torch.device]:
    """Join the processes that a launcher started with this one; yield this process's device.

    Objects and arrays on the CPU travel by gloo, CUDA tensors by nccl. If one process fails in the block, all do
    (:func:`failing_together`). Without the variables of a launcher, or with one process, or where a group exists
    already, nothing is joined.

    Args:
        device: as :func:`~mmpt.utils.devices.pick_device`; where it is a GPU without a number and several are
            visible, each process takes the one of its LOCAL_RANK.
        patience: how long to wait for a process that lives and does not come.
        gathering: how long all processes may take to start.

    Raises:
        ConfigError: if some of the variables are missing or wrong, not all processes come, or a node has more
            processes than GPUs.
        ProcessFailed: if another process fails.
    """
    if dist.is_available() and dist.is_initialized():
        yield pick_device(device)
        return
    local_rank, size = _place()
    chosen = _own_device(pick_device(device), local_rank)
    if size == 1:
        yield chosen
        return
    _join(chosen, patience, gathering)
    try:
        with failing_together():
            yield chosen
    finally:
        dist.destroy_process_group()


@contextmanager
def failing_together() -> Iterator[Callable[[], None]]:
    """Let an error in the block of any process end the block of all; yield a function that looks for one.

    Long blocks call it now and then, to end soon after the first error; else it is noticed at the end of the block,
    where all processes meet. There it is also noticed that one has died. The blocks may be nested, but all processes
    must go through the same ones. Nothing happens with one process.

    Raises:
        ProcessFailed: if it was another process that failed, with its rank and reason; its own error otherwise.
    """
    if world()[1] == 1:
        yield lambda: None
        return
    own: Exception | None = None
    try:
        yield _look_for_failures
    except _AnotherFailed:
        pass
    except Exception as error:
        if _is_known(error):
            raise
        own = error
    except BaseException as error:  # interrupted: there may be no time for a meeting
        _announce(error)
        raise
    reports = _meet(own)
    if own is not None:
        setattr(own, _KNOWN, True)
        raise own
    for rank, report in enumerate(reports):
        if report is not None:
            raise _known(ProcessFailed(f"process {rank} of {len(reports)}: {report}"))


class _AnotherFailed(Exception):
    """Leave a block early: the reason is told at the meeting."""


def _look_for_failures() -> None:
    try:
        failed = _store().check([_failure_key()])
    except RuntimeError:  # the process that keeps the store is gone
        failed = True
    if failed:
        raise _AnotherFailed


def _meet(own: Exception | None) -> list[str | None]:
    """Wait for all processes, and return what each says of its failure, None of those without.

    Raises:
        ProcessFailed: if a process does not come; unless ``own`` says more.
    """
    global _meetings
    rank, _ = world()
    if own is not None:
        _announce(own)
    try:
        _store().set(_arrival_key(rank), "")
        return all_gather_objects(None if own is None else _described(own))
    except RuntimeError as error:
        missing = _who_is_missing(error)
        if rank == 0:
            time.sleep(_FAREWELL)
        if isinstance(own, MMPTError):
            raise _known(own) from None
        raise _known(ProcessFailed(missing)) from (own or error)
    finally:
        _meetings += 1


def _announce(error: BaseException) -> None:
    """Let the others know at their next look; what they hear at the meeting, if there is one, counts."""
    rank, size = world()
    with suppress(RuntimeError):  # if nobody is there to hear of it
        _store().set(_failure_key(), f"process {rank} of {size}: {_described(error)}")


def _who_is_missing(error: RuntimeError) -> str:
    """Return what to say of a meeting that came to nothing."""
    try:
        store, (_, size) = _store(), world()
        if store.check([_failure_key()]):
            return store.get(_failure_key()).decode(errors="replace")
        missing = [rank for rank in range(size) if not store.check([_arrival_key(rank)])]
    except RuntimeError:
        missing, size = [0], world()[1]  # it keeps the store
    who = f"process {missing[0]}" if len(missing) == 1 else f"one of the processes {', '.join(map(str, missing))}"
    return (
        f"{who} of {size} is gone or hangs: it was killed (out of memory?), its node failed, or it waits for "
        f"something; its log, or the launcher's, says more ({str(error).partition('. ')[0]})"
    )


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _failure_key() -> str:
    return f"mmpt/failed/{_meetings}"


def _arrival_key(rank: int) -> str:
    return f"mmpt/arrived/{_meetings}/{rank}"


def _described(error: BaseException) -> str:
    return str(error) if isinstance(error, MMPTError) else f"{type(error).__name__}: {error}"


def _known(error: MMPTError) -> MMPTError:
    setattr(error, _KNOWN, True)
    return error


def _is_known(error: BaseException | None) -> bool:
    """Tell whether all processes know of an error, or of the one that it came from."""
    while error is not None:
        if getattr(error, _KNOWN, False):
            return True
        error = error.__cause__ or error.__context__
    return False


def _place() -> tuple[int, int]:
    """Return (local rank, number of processes) from the environment; (0, 1) without a launcher.

    Raises:
        ConfigError: if the environment is incomplete or wrong.
    """
    found = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    if not found:
        return 0, 1
    missing = [name for name in _VARIABLES if name not in found]
    if missing:
        raise ConfigError(
            f"{', '.join(found)} set in the environment, but not {', '.join(missing)}: start all processes with "
            "torchrun or the launcher, which set all of them; for a single process, unset them"
        )
    try:
        rank, size, local_rank = (int(found[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except ValueError:
        rank, size, local_rank = -1, 0, 0
    if not (0 <= rank < size and 0 <= local_rank <= rank and found["MASTER_PORT"].isdecimal()):
        given = ", ".join(f"{name}={value}" for name, value in found.items())
        raise ConfigError(f"the environment does not say which process this is: {given}")
    return local_rank, size


def _own_device(chosen: torch.device, local_rank: int) -> torch.device:
    """Return the GPU of this process where there are several, and make it the current one."""
    if chosen.type != "cuda":
        return chosen
    if chosen.index is None:
        # Slurm may show each process nothing but its own GPU.
        visible = torch.cuda.device_count()
        if 1 < visible <= local_rank:
            raise ConfigError(
                f"LOCAL_RANK is {local_rank}, and this machine has {visible} GPUs: start no more processes than GPUs "
                "on a node, or name a device (--device cpu)"
            )
        chosen = torch.device("cuda", local_rank if visible > 1 else 0)
    torch.cuda.set_device(chosen)
    return chosen


def _join(device: torch.device, patience: timedelta, gathering: timedelta) -> None:
    global _meetings
    _meetings = 0
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=gathering)))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    except RuntimeError as error:  # torch's errors of stores and networks
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"the {os.environ['WORLD_SIZE']} processes of this run did not come together at {address} (MASTER_ADDR, "
            f"MASTER_PORT) within {gathering.total_seconds():.0f} s: was each of them started, and can it reach that "
            f"address? ({str(error).splitlines()[0]})"
        ) from error
