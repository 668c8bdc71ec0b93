"""Trainings in child processes that are forked from one with fairseq imported, and the faults that befall them."""

import io
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from mmpt.launch.commands import build_command
from mmpt.launch.layout import Layout, Machine
from mmpt.launch.project import job_from_yaml
from tests.processes import SERVER

KILLED = -signal.SIGKILL


def arguments(config: dict[str, Any], folder: Path) -> list[str]:
    """Write the YAML of a training into a folder; return the arguments of fairseq-train."""
    path = folder / f"{Path(config['fairseq']['checkpoint']['save_dir']).name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return build_command(job_from_yaml(path), path, Layout(), Machine(gpus=0)).argv[1:]


def run(
    config: dict[str, Any], folder: Path, *, ranks: int = 1, fault: tuple[Any, ...] = (), on: tuple[int, ...] = (0,)
) -> tuple[list[int], str]:
    """Train; return the exit codes of the ranks and all they have printed.

    Args:
        fault: name of a function of this module, and its arguments, called before the training.
        on: the ranks that it is called in.
    """
    argv = arguments(config, folder)
    if ranks > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        argv += ["--distributed-world-size", str(ranks), "--distributed-init-method", meeting, "--device-id", "0"]
        argv += ["--distributed-backend", "gloo", "--distributed-no-spawn"]
    logs = [folder / f"rank{rank}.log" for rank in range(ranks)]
    children = []
    for rank, log in enumerate(logs):
        own = [*argv, "--distributed-rank", str(rank)] if ranks > 1 else argv
        children.append(SERVER.Process(target=_child, args=(own, str(log), fault if rank in on else ())))
        children[-1].start()
    try:
        for child in children:
            child.join(400)  # a machine with other work to do is many times slower
    finally:
        for child in children:
            child.kill()
            child.join()
    return [child.exitcode or 0 for child in children], "\n".join(log.read_text() for log in logs)


def _child(argv: list[str], log: str, fault: tuple[Any, ...]) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    sys.argv = ["fairseq-train", *argv]
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as in a training of its own
    from fairseq_cli import train

    for handler in train.logging.getLogger().handlers:
        handler.setStream(sys.stdout)  # type: ignore[attr-defined]
    try:
        if fault:
            globals()[fault[0]](*fault[1:])
        train.cli_main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_update(number: int, then: Callable[[], None] = _die) -> None:
    """Be killed at the beginning of an update."""
    from fairseq.trainer import Trainer

    real = Trainer.train_step

    def train_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.get_num_updates() + 1 == number:
            then()
        return real(self, *args, **kwargs)

    Trainer.train_step = train_step


def _writes(file: Any, name: str) -> bool:
    return f".{name}." in os.readlink(f"/proc/self/fd/{file.fileno()}")


def while_writing(name: str) -> None:
    """Be killed in the middle of writing a checkpoint."""
    real = torch.save

    def save(value: Any, file: Any) -> None:
        if _writes(file, name):
            content = io.BytesIO()
            real(value, content)
            file.write(content.getvalue()[: content.tell() // 2])
            file.flush()
            _die()
        real(value, file)

    torch.save = save


def after_writing(name: str) -> None:
    """Be killed when a checkpoint is written, before it is copied to its other names."""
    from mmpt.tasks import fairseq_checkpoints

    real = fairseq_checkpoints.save_atomically

    def save(value: Any, filename: str, async_write: bool = False) -> None:
        real(value, filename, async_write)
        if Path(filename).name == name:
            _die()

    fairseq_checkpoints.save_atomically = save


def while_retrieving(epoch: int) -> None:
    """Be killed between the end of an epoch and the next one's groups of videos."""
    from mmpt.tasks.retri_task import VideoRetriTask

    real = VideoRetriTask.retrieve_groups

    def retrieve(self: Any, model: Any, number: int) -> Any:
        if number == epoch:
            _die()
        return real(self, model, number)

    VideoRetriTask.retrieve_groups = retrieve  # type: ignore[method-assign]


def failing_search() -> None:
    """Have the search for similar videos fail, which the first rank does for all."""
    from mmpt.tasks.retri_task import VideoRetriTask
    from mmpt.utils.errors import DataError

    def searched(*_: Any) -> Any:
        raise DataError("the search failed")

    VideoRetriTask._searched = searched  # type: ignore[method-assign]


def full_disk(name: str) -> None:
    """Have no room left when half of a checkpoint is written."""
    real = torch.save

    class Full(io.RawIOBase):
        def __init__(self, file: Any, room: int) -> None:
            self.file, self.room = file, room

        def write(self, data: Any) -> int:
            self.room -= len(data)
            if self.room < 0:
                raise OSError(28, "No space left on device")
            return self.file.write(data)

    def save(value: Any, file: Any) -> None:
        real(value, Full(file, 20_000) if _writes(file, name) else file)

    torch.save = save


def nan_features(video: str) -> None:
    """Have features of one video that are not numbers."""
    from mmpt.processors.how2 import ShardedVideoProcessor

    real = ShardedVideoProcessor.__call__

    def features(self: Any, video_id: Any) -> Any:
        values = real(self, video_id)
        name = video_id[0] if isinstance(video_id, list | tuple) else video_id
        return values * float("nan") if name == video else values

    ShardedVideoProcessor.__call__ = features  # type: ignore[method-assign]


def infinite_weight(update: int) -> None:
    """Have a weight that is not finite after an update whose loss and gradients were."""
    from fairseq.trainer import Trainer

    real = Trainer.train_step

    def train_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = real(self, *args, **kwargs)
        if self.get_num_updates() == update:
            next(iter(self.model.parameters())).data.view(-1)[0] = float("inf")
        return output

    Trainer.train_step = train_step


def final(folder: Path) -> dict[str, Any]:
    """Return what the last checkpoint of a training holds that must be exact."""
    content = torch.load(folder / "checkpoint_last.pt", weights_only=False)
    history = content["optimizer_history"][-1]
    return {
        "model": content["model"],
        "optimizer": content["last_optimizer_state"],
        "scheduler": history["lr_scheduler_state"],
        "updates": history["num_updates"],
        "iterator": content["extra_state"]["train_iterator"],
        "best": content["extra_state"].get("best"),
    }


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Compare nested containers, tensors by ``torch.equal``."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    else:
        assert one == other, where
