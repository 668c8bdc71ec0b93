"""Rank labels for videos: which of them fits each best."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmpt_cli.models import add_model_arguments, load
from mmpt_cli.own_videos import (
    EXIT_CODES,
    add_label_arguments,
    add_output_arguments,
    add_videos,
    labels_of,
    over_videos,
    videos_of,
)
from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import exit_code

if TYPE_CHECKING:
    from mmpt.api.outputs import Label

__all__ = ["build_parser", "main"]

_EXAMPLE = f"""\
examples:
  mmpt classify party.mp4 --labels "a dance" "a cake" "a speech" --model runs/demo/vtt
  mmpt classify my_videos/ --labels-file labels.txt --template "a video of {{}}" --top 3 --model my_model --json

Each line is a label's probability among the labels that were asked for, its score as the model gives it, and its name.
With --json: results[].labels[] of label, score, probability; errors[] of video, error.
{EXIT_CODES}
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(
        prog="mmpt classify",
        description=__doc__,
        epilog=_EXAMPLE,
    )
    add_videos(parser)
    add_label_arguments(parser)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="the best N labels of a video (5)")
    add_model_arguments(parser)
    add_output_arguments(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: _run(options), as_json=options.json)


def _run(options: argparse.Namespace) -> int:
    items, labels = videos_of(options.videos), labels_of(options)
    pipeline = load(options)

    def call(video: Any) -> "list[Label]":
        return pipeline.classify(video, labels, templates=options.template or ("{}",), top=options.top)

    return over_videos(options, pipeline, items, call, _plain, _lines)


def _plain(labels: "list[Label]") -> dict[str, Any]:
    return {"labels": [label.as_dict() for label in labels]}


def _lines(labels: "list[Label]") -> list[str]:
    return [f"  {100 * label.probability:5.1f} %  {label.score:8.3f}  {label.label}" for label in labels]


if __name__ == "__main__":
    sys.exit(main())
