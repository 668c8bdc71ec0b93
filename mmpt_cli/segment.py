"""Find out what happens when: score labels over the seconds of videos and print the spans of the best."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt.utils.errors import ConfigError
from mmpt.utils.times import clock
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
    from mmpt.api.outputs import Timeline

__all__ = ["build_parser", "main"]

_EXAMPLE = f"""\
examples:
  mmpt segment cooking.mp4 --labels "pour water" "stir" "cut" --model runs/demo/vtt
  mmpt segment cooking.mp4 --model runs/task/coin
  mmpt segment cooking.mp4 --labels-file steps.txt --window-seconds 2 --stride-seconds 0.5 --background 0.2 \\
      --figure spans.png --model runs/violet/msrvtt

Each line is a span, mm:ss.s - mm:ss.s, its label, and the label's mean score in it.
With --json: results[] of labels, starts, ends and scores of the parts, spans[] of start, end, label, score (seconds).
{EXIT_CODES}
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(
        prog="mmpt segment",
        description=__doc__,
        epilog=_EXAMPLE,
    )
    add_videos(parser)
    add_label_arguments(parser, "; a model that was trained to tell classes needs none")
    add = parser.add_argument
    add(
        "--window-seconds",
        type=float,
        metavar="SECONDS",
        help="what the model sees around each part (4; VideoCLIP and VLM: they score each second by itself)",
    )
    add(
        "--stride-seconds",
        type=float,
        metavar="SECONDS",
        help="length of a part (1), where windows are scored; of models of features whole seconds",
    )
    add("--background", type=float, metavar="SCORE", help="parts whose best score is lower have no label")
    add("--figure", metavar="FILE", help="draw the scores and the spans of a single video: .png, .svg or .pdf")
    add_model_arguments(parser)
    add_output_arguments(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: _run(options), as_json=options.json)


def _run(options: argparse.Namespace) -> int:
    items, labels = videos_of(options.videos), labels_of(options)
    if options.figure and len(items) > 1:
        raise ConfigError(f"--figure goes with a single video, and {len(items)} are given")
    if options.figure:
        from mmpt.evaluators.figure_style import check_figure_name

        check_figure_name(options.figure)
        if not Path(options.figure).absolute().parent.is_dir():
            raise ConfigError(f"--figure {options.figure}: there is no such folder")
    pipeline = load(options)

    def call(video: Any) -> "Timeline":
        timeline = pipeline.segment(
            video,
            labels,
            templates=options.template or ("{}",),
            window_seconds=options.window_seconds,
            stride_seconds=options.stride_seconds,
            background=options.background,
        )
        if options.figure:
            _draw(timeline, items[0].path, options.figure)
        return timeline

    return over_videos(options, pipeline, items, call, lambda timeline: timeline.as_dict(), _lines)


def _lines(timeline: "Timeline") -> list[str]:
    spans = timeline.spans()
    width = max((len(span.label) for span in spans), default=0)
    return [
        f"  {clock(span.start)} - {clock(span.end)}  {span.label:<{width}}  {span.score:.3f}" for span in spans
    ] or ["  no part has a label: --background is higher than every score"]


def _draw(timeline: "Timeline", title: str, file: str) -> None:
    from mmpt.evaluators.figure_style import save_figure
    from mmpt.evaluators.score_timelines import score_timeline

    spans = [(span.start, span.end, span.label) for span in timeline.spans()]
    figure = score_timeline(timeline.scores, timeline.labels, timeline.starts, timeline.ends, spans, title=title)
    save_figure(figure, file)
    print(f"wrote {file}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
