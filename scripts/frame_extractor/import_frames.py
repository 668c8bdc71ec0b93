"""Read published frame files (VIOLET, LAVENDER, SwinBERT) into a frame store.

    python scripts/frame_extractor/import_frames.py --input _data/img_msrvtt.pkl --store data/msrvtt/frames
    python scripts/frame_extractor/import_frames.py --input img_webvid_train_0.tsv img_webvid_train_1.tsv \\
        --store data/webvid/frames

Files: .pkl (dict of id to base64 images; never executed) and TSVs of base64 images, with or without their .lineidx or
.id2lineidx.pkl. A second run goes on where the first stopped. Exit code 1 if more than --max-failed of the videos
failed, 2 for any other error, 130 if interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.store.frame_import import FrameImportOptions, import_frames
from mmpt_cli.extraction import add_max_failed, check_arguments, report, run_command

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="FILE", help=".pkl or .tsv files; all go into one store")
    add("--store", required=True, metavar="DIR", help="folder of the frame store (dataset.frame_path)")
    add(
        "--frames-from-column",
        type=_column,
        metavar="N",
        help="column of the first frame in TSVs, the id being column 0; auto (default): 1 or 2, whichever holds images",
    )
    add("--id-is-path", action="store_true", help="the first column is a file's path, and its stem the id")
    add(
        "--videos-per-shard",
        type=int,
        default=FrameImportOptions.videos_per_shard,
        help=f"a killed run loses at most so many ({FrameImportOptions.videos_per_shard})",
    )
    add_max_failed(parser, "videos")
    return parser


def _column(text: str) -> int | None:
    if text != "auto" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor the number of a column")
    return None if text == "auto" else int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    return run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> int:
    check_arguments(args)
    options = FrameImportOptions(args.frames_from_column, args.id_is_path, args.videos_per_shard, args.force)
    return report(import_frames(args.input, args.store, options, progress=not args.quiet), args.max_failed)


if __name__ == "__main__":
    sys.exit(main())
