"""Average the weights of several checkpoints of one training."""

import argparse
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run by path: this folder is on sys.path then, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from mmpt.utils.errors import CheckpointError
from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import exit_code

__all__ = ["build_parser", "main"]

_EXAMPLE = """\
examples:
  mmpt average --last 5 --folder runs/retri/videoclip --output runs/retri/videoclip/average.safetensors
  mmpt average --inputs a.pt b.pt --output average.pt
  mmpt average --weights ema --inputs runs/mine/checkpoint_last.pt --output runs/mine/ema.safetensors

A test reads the result as any checkpoint (fairseq.common_eval.path). A training can start from a .pt
(fairseq.checkpoint.restore_file, with reset_optimizer, reset_dataloader and reset_meters).
The file records what it was made of.
Exit codes: 0 done, 2 the message says what is wrong, 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(prog="mmpt average", description=__doc__, epilog=_EXAMPLE)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--inputs", nargs="+", metavar="FILE", help="the checkpoints")
    which.add_argument("--last", type=int, metavar="N", help="the last N numbered checkpoints of --folder")
    which.add_argument("--best", type=int, metavar="N", help="the best N of --folder (keep_best_checkpoints)")
    parser.add_argument("--folder", metavar="DIR", help="run folder, for --last and --best")
    parser.add_argument("--maximize", action="store_true", help="with --best: a greater value is better")
    parser.add_argument("--weights", default="model", choices=("model", "ema"), help="which weights (default model)")
    parser.add_argument("--output", required=True, metavar="FILE", help="the file to write, .safetensors or .pt")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if (options.inputs is None) != (options.folder is not None):
        parser.error("--folder goes with --last and --best, and with them only")
    return exit_code(lambda: _run(options), as_json=options.json)


def _run(options: argparse.Namespace) -> int:
    from mmpt.utils.averaging import average_checkpoints, best_checkpoints, last_checkpoints

    output = Path(options.output)
    if output.suffix not in (".safetensors", ".pt"):
        raise CheckpointError(f"--output {output}: the name must end in .safetensors or .pt")
    if options.folder is not None and not Path(options.folder).is_dir():
        raise CheckpointError(f"--folder {options.folder}: there is no such folder")
    if options.inputs:
        files = [Path(name) for name in options.inputs]
    elif options.last is not None:
        files = last_checkpoints(options.folder, options.last)
    else:
        files = best_checkpoints(options.folder, options.best, options.maximize)
    state = average_checkpoints(files, options.weights)
    _write(output, state, _provenance(files, options.weights))
    if options.json:
        print(
            json.dumps(
                {"wrote": str(output), "tensors": len(state), "averaged": [str(file) for file in files]}, indent=2
            )
        )
        return 0
    print(f"wrote {output}: {len(state)} tensors, the average of {len(files)} checkpoints:")
    print("\n".join(f"  {file}" for file in files))
    return 0


def _provenance(files: Sequence[Path], weights: str) -> dict[str, Any]:
    import mmpt
    from mmpt.utils.files import file_sha256

    return {
        "averaged": [{"path": str(file), "sha256": file_sha256(file)} for file in files],
        "weights": weights,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": mmpt.__version__,
    }


def _write(output: Path, state: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    import torch

    from mmpt.utils.files import atomic_open
    from mmpt.utils.weight_files import FAIRSEQ_PREFIX, save_safetensors

    if output.suffix == ".safetensors":
        save_safetensors(output, state, {"provenance": json.dumps(provenance)})
        return
    # What fairseq reads a training's first weights from.
    content = {
        "args": None,
        "model": {FAIRSEQ_PREFIX + key: value for key, value in state.items()},
        "criterion": {},  # a learned temperature begins anew
        "optimizer_history": [{"num_updates": 0, "optimizer_name": "", "lr_scheduler_state": {}}],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0, "version": 2}},
        "provenance": dict(provenance),
    }
    with atomic_open(output, "wb") as file:
        torch.save(content, file)


if __name__ == "__main__":
    sys.exit(main())
