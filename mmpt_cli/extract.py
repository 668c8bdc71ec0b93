"""Extract features, frames or segments of many videos, for training and tests."""

import sys
from collections.abc import Sequence

from mmpt_cli.main import own_module
from mmpt_cli.parsers import Parser

__all__ = ["KINDS", "build_parser", "main"]

#: What is extracted -> (module of this package, one line on it).
KINDS = {
    "features": ("extract_features", "one vector per second, for VideoCLIP and VLM"),
    "frames": ("extract_frames", "a few frames of each video, for VIOLET and LAVENDER"),
    "segments": ("extract_segments", "frames, words and sound of parts, for MERLOT and MERLOT Reserve"),
}

_EXAMPLE = """\
examples:
  mmpt extract features --videos my_videos/ --fdir data/feat/my_s3d --weights pretrained_models/s3d_howto100m.pth
  mmpt extract frames --videos my_videos/ --store data/mine/frames --frames 5 --json
  mmpt extract segments --help

A second run goes on where the first stopped.
Exit codes: 0 done, 1 more than --max-failed of the videos failed, 2 the message says what is wrong, 130 interrupted.
"""


def build_parser() -> Parser:
    """Return the parser of the first argument; each kind has a parser of its own."""
    kinds = "\n".join(f"  {name:<9} {summary}" for name, (_, summary) in KINDS.items())
    parser = Parser(
        prog="mmpt extract",
        description=f"{__doc__}\n\n{kinds}",
        epilog=_EXAMPLE,
    )
    parser.add_argument("kind", choices=list(KINDS), help="what to extract; mmpt extract KIND --help tells its options")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    parser.words += given[1:]
    kind = parser.parse_args(given[:1]).kind
    return int(own_module(KINDS[kind][0]).main(given[1:]))


if __name__ == "__main__":
    sys.exit(main())
