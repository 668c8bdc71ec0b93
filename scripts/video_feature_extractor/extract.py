"""Extract one feature per second from videos.

    python scripts/video_feature_extractor/extract.py --videos my_videos/ --fdir data/feat/my_s3d \\
        --type s3d --weights pretrained_models/s3d_howto100m.pth

A second run goes on where the first stopped. Exit code 1 if more than --max-failed of the videos failed, 2 for any
other error, 130 if interrupted.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.modules.feature_encoders import build_encoder
from mmpt.store.extraction import ExtractionOptions, extract_features
from mmpt.store.video_list import find_videos
from mmpt.utils.errors import MMPTError

__all__ = ["build_parser", "main"]

SHOWN = 5


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser; flags of the published script keep their names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--videos",
        "--vdir",
        nargs="+",
        required=True,
        help="folders (all levels below; commas separate too), CSVs with columns video_id,path[,start,end], "
        "lists with one path per line, or video files",
    )
    add("--fdir", required=True, help="folder for <id>.npy and manifest.json")
    add("--type", default="s3d", help="encoder: s3d (default), conv3d, hf, or package.module:Class")
    add("--weights", help="s3d: local copy of s3d_howto100m.pth")
    add("--model", help="hf: local folder or hub id of an image or video model")
    add("--random-init", type=int, metavar="SEED", help="s3d, conv3d: random weights of this seed")
    add("--dim", type=int, help="conv3d: width of a feature (512)")
    add("--fps", type=int, help="hf: frames per second given to an image model (1)")
    add("--pool", help="hf: auto, pooler, cls or mean")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--batch_size", "--batch-size", type=int, default=8, help="seconds of video per forward pass (8)")
    add(
        "--workers",
        "--num_decoding_thread",
        "--num-decoding-thread",
        type=int,
        default=max(1, min(4, (os.cpu_count() or 1) // 2)),
        help="threads that decode while the network runs (half of the cores, at most 4); 0: take turns",
    )
    add(
        "--half_precision",
        "--half-precision",
        type=int,
        choices=(0, 1),
        default=1,
        help="store float16 (1, default) or float32 (0)",
    )
    add(
        "--l2_normalize",
        "--l2-normalize",
        type=int,
        choices=(0, 1),
        help="scale each feature to unit length; default 1 for s3d (as published) and hf, 0 for conv3d",
    )
    add("--hflip", type=int, choices=(0, 1), default=0, help="mirror the frames (0)")
    add("--force", action="store_true", help="extract again what is there (with the same settings)")
    add(
        "--video-timeout",
        type=float,
        default=600,
        metavar="SECONDS",
        help="give up a video whose decoding takes longer than this and ten times the length decoded so far (600)",
    )
    add("--root", metavar="DIR", help="paths of CSVs and lists start here, and may not lead out of it")
    add("--max-failed", type=float, default=0.1, help="highest share of failed videos for exit code 0, 0 to 1 (0.1)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.ERROR if args.quiet else logging.WARNING, format="%(message)s")
    try:
        if min(args.batch_size, args.workers + 1) < 1:
            raise MMPTError("--batch_size must be at least 1, --workers at least 0")
        if not args.video_timeout > 0:
            raise MMPTError(f"--video-timeout {args.video_timeout} is not a time in seconds above 0")
        if not 0 <= args.max_failed <= 1:
            raise MMPTError(f"--max-failed {args.max_failed} is not a share, 0 to 1")
        sources = [part for entry in args.videos for part in ([entry] if os.path.exists(entry) else entry.split(","))]
        left_out: list[str] = []
        items = find_videos(sources, left_out, args.root)
        encoder = build_encoder(
            args.type,
            weights=args.weights,
            model=args.model,
            random_init=args.random_init,
            dim=args.dim,
            fps=args.fps,
            pool=args.pool,
            device=args.device,
            l2_normalize=None if args.l2_normalize is None else bool(args.l2_normalize),
        )
        options = ExtractionOptions(
            batch_size=args.batch_size,
            workers=args.workers,
            half_precision=bool(args.half_precision),
            hflip=bool(args.hflip),
            force=args.force,
            timeout_seconds=args.video_timeout,
        )
        summary = extract_features(items, encoder, args.fdir, options, progress=not args.quiet)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (MMPTError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(summary.describe())
    if left_out:
        names = ", ".join(left_out[:SHOWN]) + (", ..." if len(left_out) > SHOWN else "")
        names = names.encode(errors="backslashreplace").decode()  # a name need not be UTF-8
        print(f"  left out: {len(left_out)} files that do not look like videos: {names}")
    if summary.failed_fraction > args.max_failed:
        print(
            f"error: {summary.failed_fraction:.0%} of the videos failed, --max-failed is {args.max_failed:.0%}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
