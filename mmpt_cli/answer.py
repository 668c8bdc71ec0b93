"""Answer a question about a video: freely, among the answers of a file, or among options."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmpt.store.features import read_id_list
from mmpt_cli.models import add_model_arguments, load
from mmpt_cli.own_videos import EXIT_CODES, add_output_arguments, over_videos, videos_of
from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import exit_code

if TYPE_CHECKING:
    from mmpt.api.outputs import Answer

__all__ = ["build_parser", "main"]

_EXAMPLE = f"""\
examples:
  mmpt answer party.mp4 "what is on the table?" --model runs/violet/msrvtt_qa
  mmpt answer party.mp4 "who speaks first?" --options "the host" "a guest" "nobody" --model runs/merlot/tvqa

Each line is an answer's probability among those compared, its score, and the answer, the best first.
With --json: results[] of video, question, answers[] of text, score, probability.
{EXIT_CODES}
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(
        prog="mmpt answer",
        description=__doc__,
        epilog=_EXAMPLE,
    )
    parser.add_argument("video", metavar="VIDEO", help="a video file")
    parser.add_argument("question", metavar="QUESTION", help="in quotes")
    among = parser.add_mutually_exclusive_group()
    among.add_argument("--options", nargs="+", metavar="ANSWER", help="choose among these")
    among.add_argument("--answers-file", metavar="FILE", help="answer with a line of this file")
    parser.add_argument(
        "--top", type=int, metavar="N", help="the best N answers (all of --options, 5 of an open question)"
    )
    add_model_arguments(parser)
    add_output_arguments(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: _run(options), as_json=options.json)


def _run(options: argparse.Namespace) -> int:
    items = videos_of([options.video])
    answers = read_id_list(options.answers_file, "--answers-file", "answer") if options.answers_file else None
    pipeline = load(options)

    def call(video: Any) -> "list[Answer]":
        return pipeline.answer(video, options.question, options.options, answers=answers, top=options.top)

    def plain(found: "list[Answer]") -> dict[str, Any]:
        return {"question": options.question, "answers": [answer.as_dict() for answer in found]}

    return over_videos(options, pipeline, items, call, plain, _lines)


def _lines(answers: "list[Answer]") -> list[str]:
    return [f"  {100 * answer.probability:5.1f} %  {answer.score:8.3f}  {answer.text}" for answer in answers]


if __name__ == "__main__":
    sys.exit(main())
