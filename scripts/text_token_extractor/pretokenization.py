"""Tokenise captions into shards aligned with the shards of video features.

    python scripts/text_token_extractor/pretokenization.py \\
        --captions data/how2/raw_caption_dedup.json --tokenizer bert-base-uncased \\
        --vfeat-dir data/feat/feat_how2_s3d_shard_small --split train val --workers 8
    python scripts/text_token_extractor/pretokenization.py scripts/text_token_extractor/configs/bert-base-uncased.yaml

The feature folder holds <split>_meta.json (or .pkl), the videos of each shard in order. For each shard this
writes <prefix><split>_<k>.startends (clips x 2 seconds) and <prefix><split>_<k>.caps_ids (clips x max-tokens
ids, padded with -1). The prefix is what configs call dataset.tfeat_dir; it is printed at the end. Shards
whose captions, tokenizer and videos have not changed are kept.
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tqdm import tqdm

from mmpt.store.features import shard_map_paths
from mmpt.store.token_encoder import tokenizer_name
from mmpt.store.token_shards import TokenShardJob
from mmpt.utils.config import read_yaml
from mmpt.utils.errors import ConfigError, DataError, nearest
from mmpt.utils.files import resolve_path
from mmpt_cli.extraction import exit_code

__all__ = ["main"]

_YAML_KEYS = ("bert_name", "caption_pkl_path", "use_fast", "target_dir", "vfeat_dir")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help=f"YAML with dataset.{{{','.join(_YAML_KEYS)}}}, instead of flags")
    parser.add_argument("--captions", help="caption file (.json or .pkl), best after dedup.py")
    parser.add_argument("--tokenizer", help="local folder (config.json and vocab.txt suffice) or hub id")
    parser.add_argument("--slow-tokenizer", action="store_true", help="use the Python tokenizer, not the Rust one")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--vfeat-dir", help="folder of feature shards, with <split>_meta.json or .pkl")
    place.add_argument("--meta", type=Path, help="one <split>_meta.json or .pkl, instead of --vfeat-dir and --split")
    parser.add_argument(
        "--split", nargs="+", help="splits to do (default: those of train, val and test that are there)"
    )
    parser.add_argument(
        "--output", metavar="PREFIX", help="prefix of the files (default: <vfeat-dir>/<captions>.<tokenizer>.)"
    )
    parser.add_argument("--max-tokens", type=int, default=32, help="word pieces per clip (default %(default)s)")
    parser.add_argument(
        "--max-missing", type=float, default=0.1, help="fail if more of the videos lack captions (default 0.1)"
    )
    parser.add_argument(
        "--workers", type=int, default=min(16, os.cpu_count() or 1), help="processes (default %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="do unchanged shards again")
    return parser


def _from_yaml(arguments: argparse.Namespace) -> None:
    """Set the flags that a YAML stands for.

    Raises:
        ConfigError: if the file lacks a key or holds an unknown one; names it.
    """
    path = arguments.config
    dataset = read_yaml(path).get("dataset") or {}
    for key in dataset:
        if key not in _YAML_KEYS:
            raise ConfigError(f"{path}: unknown key dataset.{key}.{nearest(str(key), _YAML_KEYS)}")
    missing = [f"dataset.{key}" for key in ("bert_name", "caption_pkl_path", "target_dir") if not dataset.get(key)]
    if missing:
        raise ConfigError(f"{path}: {', '.join(missing)} not set")
    arguments.captions = str(resolve_path(dataset["caption_pkl_path"]))
    arguments.tokenizer = dataset["bert_name"]
    arguments.slow_tokenizer = dataset.get("use_fast") is False
    target = dataset["target_dir"]
    arguments.vfeat_dir = dataset.get("vfeat_dir") or target
    arguments.output = arguments.output or _prefix(target, arguments)


def _prefix(folder: str, arguments: argparse.Namespace) -> str:
    return str(Path(folder) / f"{Path(arguments.captions).stem}.{tokenizer_name(arguments.tokenizer)}.")


def _splits(arguments: argparse.Namespace) -> list[str]:
    """Return the splits to do, and set the feature folder where ``--meta`` names both.

    Raises:
        DataError: if there is none.
    """
    if arguments.meta is not None:
        split, separator, _ = arguments.meta.name.rpartition("_meta.")
        if not separator or not split:
            raise DataError(f"--meta {arguments.meta}: expected a file called <split>_meta.json or <split>_meta.pkl")
        arguments.vfeat_dir = str(arguments.meta.parent)
        return [split]
    if arguments.split:
        return list(arguments.split)
    folder = Path(arguments.vfeat_dir)
    known = ("train", "val", "test")
    found = [split for split in known if any(path.exists() for path in shard_map_paths(folder, split))]
    if not found:
        raise DataError(f"{folder}: no train_meta.json, val_meta.json or .pkl of these; shard the video features first")
    return found


def _bar(items: Iterable[Any], total: int) -> Iterable[Any]:
    return tqdm(items, total=total, desc="tokenise", unit=" videos", mininterval=1.0)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    if arguments.max_tokens < 1 or arguments.workers < 1:
        parser.error("--max-tokens and --workers are at least 1")
    if not 0 <= arguments.max_missing <= 1:
        parser.error("--max-missing is a share, 0 to 1")
    return exit_code(lambda: _run(parser, arguments))


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.config:
        _from_yaml(arguments)
    if not (arguments.captions and arguments.tokenizer and (arguments.vfeat_dir or arguments.meta)):
        parser.error("give a YAML, or --captions, --tokenizer and --vfeat-dir (or --meta)")
    splits = _splits(arguments)
    job = TokenShardJob(
        captions=arguments.captions,
        bert_name=arguments.tokenizer,
        vfeat_dir=arguments.vfeat_dir,
        prefix=arguments.output or _prefix(arguments.vfeat_dir, arguments),
        use_fast=not arguments.slow_tokenizer,
        max_tokens=arguments.max_tokens,
        max_missing=arguments.max_missing,
    )
    report = job.run(splits, arguments.workers, arguments.force, _bar)
    print(*report.lines(), f"dataset.tfeat_dir: {job.prefix}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
