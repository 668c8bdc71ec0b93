"""Take a few frames of each video, as JPEGs in a frame store.

    mmpt extract frames --videos my_videos/ --store data/mine/frames --frames 5

Every video is decoded once. A second run goes on where the first stopped. Exit code 1 if more than --max-failed of the
videos failed, 2 for any other error, 130 if interrupted.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from mmpt.store.frame_extraction import FrameExtractionOptions, extract_frames
from mmpt.utils.errors import MMPTError
from mmpt_cli.extraction import add_video_arguments, check_arguments, report, run_command, videos_of
from mmpt_cli.parsers import Parser

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(prog="mmpt extract frames", description=__doc__)
    default = FrameExtractionOptions()
    add_video_arguments(parser, "--path")
    add = parser.add_argument
    add(
        "--store", required=True, metavar="DIR", help="folder of the frame store (dataset.frame_path) and manifest.json"
    )
    add(
        "--frames",
        "--sample",
        type=int,
        metavar="N",
        help=f"frames per video, in the middle of as many even steps ({default.frames})",
    )
    add("--fps", type=float, help="frames per second instead, from the middle of each interval")
    add(
        "--short-side",
        "--size",
        type=int,
        metavar="PIXELS",
        help="scale larger videos so that the shorter side has so many pixels (default: the size of the video)",
    )
    add("--quality", type=int, default=default.quality, help=f"of the JPEGs, 1 to 95 ({default.quality})")
    add(
        "--seek",
        action="store_true",
        help="decode from the key frame before each of --frames only: sooner for long videos, blind to damage between",
    )
    add(
        "--videos-per-shard",
        type=int,
        default=default.videos_per_shard,
        help=f"a killed run loses at most so many ({default.videos_per_shard})",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    return run_command(build_parser(), _run, argv, logging.WARNING)


def _run(args: argparse.Namespace) -> int:
    check_arguments(args)
    if args.frames is not None and args.fps is not None:
        raise MMPTError("give --frames or --fps, not both")
    if args.seek and args.fps is not None:
        raise MMPTError("--seek goes with --frames: --fps needs every frame")
    options = FrameExtractionOptions(
        frames=FrameExtractionOptions.frames if args.frames is None else args.frames,
        fps=args.fps,
        short_side=args.short_side,
        quality=args.quality,
        seek=args.seek,
        videos_per_shard=args.videos_per_shard,
        force=args.force,
        workers=args.workers,
        timeout_seconds=args.video_timeout,
    )
    items, left_out = videos_of(args)
    summary = extract_frames(items, args.store, options, progress=not args.quiet)
    return report(summary, args.max_failed, left_out, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
