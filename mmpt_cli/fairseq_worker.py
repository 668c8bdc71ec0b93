"""One worker of a training with several: ``fairseq-train``, told its place by the environment.

torchrun and the launcher's Slurm jobs set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. fairseq reads
them only where there are GPUs: on CPUs each worker would train by itself, on all of the data.

example:
  torchrun --standalone --nproc-per-node 2 mmpt_cli/fairseq_worker.py projects/retri/videoclip/how2.yaml \\
      --user-dir mmpt --task mmtask --arch mmarch --criterion mmloss --cpu --optimizer adam --max-update 100
"""

import os
import sys
from collections.abc import Mapping, Sequence

if __package__ in (None, ""):  # run by path: fairseq imports the plug-in itself, from --user-dir
    sys.path.pop(0)

__all__ = ["main", "place_flags"]

_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
#: fairseq's own names of what it does without torch's DistributedDataParallel, which wants a device to be named.
_FOR_CPUS = ("legacy_ddp", "no_c10d", "slowmo")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train; what ``fairseq-train`` exits with is the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(__doc__)
        raise SystemExit(0 if given else 2)
    missing = [name for name in _NEEDED if name not in os.environ]
    if missing:
        raise SystemExit(f"error: {', '.join(missing)} not set: start the workers with torchrun, or the launcher")
    sys.argv = ["fairseq-train", *given, *place_flags(os.environ, given)]
    from fairseq_cli.train import cli_main

    cli_main()


def place_flags(environment: Mapping[str, str], given: Sequence[str]) -> list[str]:
    """Return fairseq's flags for this worker's place, behind which come those of the training (``given``)."""
    flags = ["--distributed-world-size", environment["WORLD_SIZE"], "--distributed-rank", environment["RANK"]]
    flags += ["--distributed-init-method", "env://", "--distributed-no-spawn"]
    if "--cpu" in given:
        flags += ["--distributed-backend", "gloo", "--device-id", "0"]
        named = given[given.index("--ddp-backend") + 1] if "--ddp-backend" in given[:-1] else ""
        return flags if named in _FOR_CPUS else [*flags, "--ddp-backend", "legacy_ddp"]
    return [*flags, "--device-id", str(_device(int(environment["LOCAL_RANK"])))]


def _device(local_rank: int) -> int:
    """Return the GPU of a worker: its own among all of the node, or the only one that it is shown."""
    import torch

    count = torch.cuda.device_count()
    if count == 1:
        return 0
    if local_rank >= count:
        raise SystemExit(f"error: worker {local_rank} of this node has no GPU: torch finds {count}")
    return local_rank


if __name__ == "__main__":
    main()
