"""Extract one feature per second from videos.

    mmpt extract features --videos my_videos/ --fdir data/feat/my_s3d \\
        --type s3d --weights pretrained_models/s3d_howto100m.pth

A second run goes on where the first stopped. Exit code 1 if more than --max-failed of the videos failed, 2 for any
other error, 130 if interrupted.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from mmpt.modules.feature_encoders import build_encoder
from mmpt.store.extraction import ExtractionOptions, extract_features
from mmpt.utils.errors import MMPTError
from mmpt_cli.extraction import add_video_arguments, check_arguments, report, run_command, videos_of
from mmpt_cli.parsers import Parser

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser; flags of the published script keep their names."""
    parser = Parser(prog="mmpt extract features", description=__doc__)
    add_video_arguments(parser, "--vdir")
    add = parser.add_argument
    add("--fdir", required=True, help="folder for <id>.npy and manifest.json")
    add("--type", default="s3d", help="encoder: s3d (default), conv3d, hf, or package.module:Class")
    add("--weights", help="s3d: local copy of s3d_howto100m.pth")
    add("--model", help="hf: local folder or hub id of an image or video model")
    add("--random-init", type=int, metavar="SEED", help="s3d, conv3d: random weights of this seed")
    add("--dim", type=int, help="conv3d: width of a feature (512)")
    add("--fps", type=int, help="hf: frames per second given to an image model (1)")
    add("--pool", help="hf: auto, pooler, cls or mean")
    add(
        "--dtype",
        choices=("fp32", "bf16"),
        help="s3d: fp32 (default), or bf16: faster where the processor (AMX) or GPU computes in it, at other features: "
        "compare on your weights first",
    )
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--batch_size", "--batch-size", type=int, default=8, help="seconds of video per forward pass (8)")
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    return run_command(build_parser(), _run, argv, logging.WARNING)


def _run(args: argparse.Namespace) -> int:
    if args.batch_size < 1:
        raise MMPTError(f"--batch_size {args.batch_size} must be at least 1")
    check_arguments(args)
    items, left_out = videos_of(args)
    encoder = build_encoder(
        args.type,
        weights=args.weights,
        model=args.model,
        random_init=args.random_init,
        dim=args.dim,
        fps=args.fps,
        pool=args.pool,
        device=args.device,
        dtype=args.dtype,
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
    return report(summary, args.max_failed, left_out, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
