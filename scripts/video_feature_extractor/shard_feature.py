"""Gather per-video features into shards that are opened once and read without copying.

    python scripts/video_feature_extractor/shard_feature.py \\
        --fdir data/feat/feat_how2_s3d --sdir data/feat/feat_how2_s3d_shard_small \\
        --split train=data/how2/how2_s3d_train.lst --split val=data/how2/how2_s3d_val.lst

Reads ``<fdir>/<video id>.npy`` and, per split, a list of one video id per line. Writes shards
``<sdir>/<split>_<k>``, then ``<split>_manifest.json`` (what was skipped or failed, and why)
and last ``<split>_meta.json`` (which videos are in which shard). Run it again to resume:
shards that are complete and whose features have not changed are kept.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.store.feature_shards import Outcome, shard_split, write_manifest, write_shard_map
from mmpt.store.features import FeatureStore, read_id_list
from mmpt.utils.errors import DataError
from mmpt.utils.files import sole_writer
from mmpt_cli.extraction import exit_code

__all__ = ["main"]

SHOWN_REASONS = 5


def _finish_split(split: str, outcome: Outcome, options: argparse.Namespace) -> bool:
    """Write manifest and map, or only the manifest if too much is lost; return whether all is well."""
    manifest = write_manifest(options.sdir, split, outcome, options.fdir)
    _print_summary(split, outcome)
    if not outcome.done() or outcome.lost_fraction() > options.max_failed:
        print(
            f"error: {split}: {outcome.lost_fraction():.1%} of the videos are in no shard, more than --max-failed"
            f" {options.max_failed:.1%}: {split}_meta.json is not written. The reasons are in {manifest}.",
            file=sys.stderr,
        )
        return False
    write_shard_map(options.sdir, split, outcome, options.also_pickle_meta)
    return True


def _print_summary(split: str, outcome: Outcome) -> None:
    kept = len(outcome.shards) - outcome.written
    print(
        f"{split}: {outcome.done()} done in {len(outcome.shards)} shards ({outcome.written} written, {kept} kept),"
        f" {len(outcome.skipped)} skipped, {len(outcome.failed)} failed, {outcome.repeated} repeated lines ignored"
    )
    for word, videos in (("skipped", outcome.skipped), ("failed", outcome.failed)):
        for video_id, reason in list(videos.items())[:SHOWN_REASONS]:
            print(f"  {word} {video_id}: {reason}")
        if len(videos) > SHOWN_REASONS:
            print(f"  {word}: {len(videos) - SHOWN_REASONS} more in {split}_manifest.json")


def _parser() -> argparse.ArgumentParser:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--fdir", required=True, help="folder of <video id>.npy, each (seconds, dim)")
    add("--sdir", required=True, help="folder for the shards (dataset.vfeat_dir of a project)")
    add("--split", action="append", default=[], metavar="NAME=LIST", help="a split and its list of ids; repeatable")
    add("--list", action="append", default=[], metavar="LIST", help="same, the split is named by the last word of the"
        " file name: how2_s3d_train.lst is train; repeatable")  # fmt: skip
    add("--shard-size", type=int, default=4096, help="videos per shard (default 4096)")
    add("--dtype", choices=["float16", "float32"], default="float16", help="of the shards (default float16)")
    add("--dim", type=int, help="width that every feature must have (default: that of the first readable one)")
    add("--max-failed", type=float, default=0.1, metavar="FRACTION", help="share of a split's videos that may be"
        " without features or fail before the split fails and its map is not written (default 0.1)")  # fmt: skip
    add("--force", action="store_true", help="write all shards again")
    add("--also-pickle-meta", action="store_true", help="also write <split>_meta.pkl, which the published MMPT reads")
    return parser


def _splits(options: argparse.Namespace) -> dict[str, str]:
    """Return split name -> list file.

    Raises:
        DataError: if there is none, a name comes twice, or a name is no plain file name.
    """
    named = [tuple(given.partition("=")[::2]) for given in options.split]
    named += [(Path(given).stem.rpartition("_")[2], given) for given in options.list]
    for name, file in named:
        if not name or not file or set(name) & set("/\\"):
            raise DataError(f"--split {name}={file}: expected NAME=LIST, for example train=data/train.lst")
    if not named or len({name for name, _ in named}) < len(named):
        raise DataError("give each split once: --split train=data/train.lst --split val=data/val.lst")
    return dict(named)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if options.shard_size < 1 or not 0 <= options.max_failed <= 1:
        raise DataError("--shard-size must be at least 1, --max-failed between 0 and 1")
    lists = {split: read_id_list(file, f"--split {split}") for split, file in _splits(options).items()}
    store, dim, well = FeatureStore(options.fdir), options.dim, True
    for split, video_ids in lists.items():
        with sole_writer(Path(options.sdir) / f".{split}.lock"):
            outcome = shard_split(
                store, options.sdir, split, video_ids, options.shard_size, options.dtype, dim, force=options.force
            )
            dim = outcome.dim
            well = _finish_split(split, outcome, options) and well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
