"""Evaluate the checkpoint that a test YAML names, on its test set."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # run by path: this folder is on sys.path then, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from omegaconf import DictConfig, OmegaConf

from mmpt.utils.allocator import keep_freed_memory
from mmpt.utils.errors import CheckpointError, ConfigError
from mmpt.utils.files import resolve_path
from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import EXIT_CODES, exit_code

if TYPE_CHECKING:
    import torch

__all__ = ["build_parser", "main", "predict"]

_EXAMPLE = f"""\
examples:
  mmpt predict projects/retri/videoclip/test_vtt_zs.yaml -o fairseq.dataset.batch_size=64

Exactly the checkpoint of fairseq.common_eval.path is evaluated: none is ever chosen by its score on test
data. Results go to eval.save_path: metrics.json, embeddings.npz and, for small sets, merged.npy.

Several processes share the test set where a launcher starts them, here two on this machine; the results are the same:
  python -m torch.distributed.run --nproc-per-node 2 mmpt_cli/predict.py TEST.yaml
{EXIT_CODES}
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(prog="mmpt predict", description=__doc__, epilog=_EXAMPLE)
    parser.add_argument("config", help="YAML of a test")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="set a config key")
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:N or auto (a GPU if there is one, of several processes each its own; default)",
    )
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    keep_freed_memory()
    first = os.environ.get("RANK", "0") == "0"  # of several processes one prints
    return exit_code(lambda: _run(options), as_json=options.json and first)


def _run(options: argparse.Namespace) -> int:
    from mmpt.utils.config import load_config
    from mmpt.utils.distributed import is_main_process, world
    from mmpt.utils.process_group import process_group

    with process_group(options.device) as device:
        rank, size = world()
        who = f"process {rank} of {size} | " if size > 1 else ""
        logging.basicConfig(
            level=logging.INFO if rank == 0 else logging.WARNING,
            format=f"%(asctime)s | %(levelname)s | {who}%(name)s | %(message)s",
        )
        config = load_config(options.config, options.override)
        lines = predict(config, device)
        if is_main_process() and options.json:
            print(json.dumps(_written(config), indent=2))
        elif is_main_process():
            print(*lines, sep="\n", flush=True)
    return 0


def predict(config: DictConfig, device: "torch.device | str" = "auto") -> list[str]:
    """Run the test of a config and return the console lines, the public line of its metric first.

    In a run of several processes all call this: they share the test set, and the first writes the files.

    Raises:
        CheckpointError: if there is no such checkpoint.
        ConfigError: if the config is not that of a test, or its folder cannot be written to.
        NothingEvaluated: if the test set is empty.
    """
    from torch.utils.data import DataLoader

    from mmpt.evaluators import Evaluator
    from mmpt.tasks.task import config_task, data_workers
    from mmpt.utils.devices import pick_device
    from mmpt.utils.distributed import is_main_process

    checkpoint = _checkpoint(config)
    chosen = pick_device(device)
    evaluator = Evaluator(config)
    batch_size = _batch_size(config)
    task = config_task(config)
    task.build_dataset()
    data = task.test_data
    if data is None:
        raise ConfigError("dataset.split: 'test' (and dataset.test_path) is needed to evaluate")
    loader = DataLoader(
        data,
        batch_size=1 if getattr(getattr(data, "aligner", None), "whole_videos", False) else batch_size,
        num_workers=data_workers(config),
        collate_fn=data.collater,
    )
    if is_main_process():
        evaluator.predictor.make_folder()  # before the long part
    model = task.build_model(checkpoint=str(checkpoint))
    metrics = evaluator.evaluate(model, loader, device=chosen)
    where = evaluator.predictor.save_path / "metrics.json"
    return [evaluator.metric.print_computed_metrics(metrics), *_details(metrics, str(config.metric)), f"wrote {where}"]


def _written(config: DictConfig) -> dict[str, Any]:
    """Return what the test wrote to its metrics.json, and where."""
    from mmpt.utils.files import read_json

    where = Path(config.eval.save_path) / "metrics.json"
    return {**read_json(where), "wrote": str(where)}


def _checkpoint(config: DictConfig) -> Path:
    path = OmegaConf.select(config, "fairseq.common_eval.path")
    if not path:
        raise ConfigError("fairseq.common_eval.path: not set; it names the checkpoint to evaluate")
    file = resolve_path(path)
    if not file.is_file():
        folder = file.parent
        beside = sorted(file.name for file in folder.glob("*.pt")) if folder.is_dir() else []
        found = f"the folder holds {', '.join(beside)}" if beside else "its folder holds no checkpoint"
        raise CheckpointError(
            f"fairseq.common_eval.path: no checkpoint {path} ({found}). Run the training that writes it, "
            "or name another with -o fairseq.common_eval.path=FILE"
        )
    return file


def _batch_size(config: DictConfig) -> int:
    key = "fairseq.dataset.batch_size"
    value = OmegaConf.select(config, key)
    if value is None:
        return 64
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{key}: {value!r} is not a whole number of 1 or more")
    return value


def _details(metrics: Mapping[str, Any], metric: str) -> list[str]:
    """Return lines on the uncertainty of the main number, what guessing gives, and the other direction of retrieval."""
    from mmpt.evaluators.results import baselines_of, counted_as

    main = next(iter(metrics))
    lines = []
    if f"{main}_ci" in metrics:
        low, high = metrics[f"{main}_ci"]
        lines.append(f"95% interval of {main}: {low:.4f} - {high:.4f} ({metrics['count']} {counted_as(metric)})")
    lines += [f"{title}: {value:.4f}" for title, value in baselines_of(metrics).items()]
    if "v2t_R1" in metrics:
        recalls = " - ".join(f"R@{k}: {metrics[f'v2t_R{k}']:.4f}" for k in (1, 5, 10))
        lines.append(f"video to text: {recalls} - Median R: {metrics['v2t_MR']}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
