"""Write captions of videos."""

import argparse
import sys
from collections.abc import Sequence

from mmpt_cli.models import add_model_arguments, load
from mmpt_cli.own_videos import EXIT_CODES, add_output_arguments, add_videos, over_videos, videos_of
from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import exit_code

__all__ = ["build_parser", "main"]

_EXAMPLE = f"""\
examples:
  mmpt caption party.mp4 --model runs/vlm/youcookcap
  mmpt caption my_videos/ --model my_captioner --json > captions.json

With --json: results[] of video, caption; errors[] of video, error.
{EXIT_CODES}
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(
        prog="mmpt caption",
        description=__doc__,
        epilog=_EXAMPLE,
    )
    add_videos(parser)
    add_model_arguments(parser)
    add_output_arguments(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: _run(options), as_json=options.json)


def _run(options: argparse.Namespace) -> int:
    items = videos_of(options.videos)
    pipeline = load(options)
    return over_videos(
        options, pipeline, items, pipeline.caption, lambda caption: {"caption": caption}, lambda text: [f"  {text}"]
    )


if __name__ == "__main__":
    sys.exit(main())
