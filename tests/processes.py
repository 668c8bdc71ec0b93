"""Child processes of tests, forked from one that has imported once what they need: it is most of a short one's time."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["SERVER", "spawn"]

#: What such processes are started by. They see the environment as it was when the first of them was started.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["fairseq_cli.train", "mmpt.tasks.fairseq_task", "transformers.models.bert", "faiss", "torch._dynamo"]
)


def spawn(function: Callable[..., Any], args: tuple[Any, ...] = (), nprocs: int = 1) -> None:
    """Do what ``torch.multiprocessing.spawn`` does, in processes that need not import anything.

    Raises:
        torch.multiprocessing.ProcessException: if one of them fails.
    """
    torch.multiprocessing.start_processes(function, args, nprocs, start_method="forkserver")
