"""Draw training curves, similarities, attention, and masked words, each into a file: .png, .svg or .pdf."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.times import clock
from mmpt_cli.models import add_model_arguments, load
from mmpt_cli.own_videos import videos_of
from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import exit_code

__all__ = ["build_parser", "main"]

_EXAMPLE = """\
examples:
  mmpt figures curves runs/demo runs/demo/vtt --output curves.png
  mmpt figures similarity my_videos/ --texts "a dance" "a cake" --model runs/demo/vtt --output similarity.png
  mmpt figures attention party.mp4 "two people dance" --model runs/violet/msrvtt --output attention.png
  mmpt figures masking "two people dance" --model runs/violet/msrvtt --draws 4 --output masking.svg

What happens when in a video, as a figure: mmpt segment --figure. All figures of a project: mmpt report --figures.
Exit codes: 0 done, 2 the message says what is wrong, 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog="mmpt figures",
        description=__doc__,
        epilog=_EXAMPLE,
    )
    kinds = parser.add_subparsers(title="figures", metavar="KIND", required=True)
    curves = _kind(kinds, "curves", _curves, "loss over updates, from the log.txt of trainings")
    curves.add_argument("runs", nargs="+", metavar="RUN", help="run folders of trainings")
    similarity = _kind(kinds, "similarity", _similarity, "the score of every text with every video")
    similarity.add_argument("videos", nargs="+", metavar="VIDEO", help="video files, folders, lists or CSVs")
    similarity.add_argument("--texts", nargs="+", required=True, metavar="TEXT", help="the texts")
    attention = _kind(kinds, "attention", _attention, "what VIOLET, LAVENDER and MERLOT attend to in frames and a text")
    attention.add_argument("video", metavar="VIDEO", help="a video file")
    attention.add_argument("text", metavar="TEXT", help="in quotes")
    masking = _kind(kinds, "masking", _masking, "a text as the model's tokenizer cuts it, with words masked at random")
    masking.add_argument("text", metavar="TEXT", help="in quotes")
    masking.add_argument("--draws", type=int, default=4, metavar="N", help="so many draws (4)")
    masking.add_argument("--probability", type=float, default=0.15, metavar="P", help="of each word (0.15)")
    masking.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (0)")
    for kind in (similarity, attention, masking):
        add_model_arguments(kind)
    return parser


def _kind(kinds: Any, name: str, draw: Any, about: str) -> argparse.ArgumentParser:
    kind: argparse.ArgumentParser = kinds.add_parser(name, help=about, description=f"Draw {about}.")
    kind.set_defaults(draw=draw)
    kind.add_argument("--output", required=True, metavar="FILE", help="the file to write: .png, .svg or .pdf")
    kind.add_argument("--dark", action="store_true", help="light on dark")
    return kind


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from mmpt.evaluators.figure_style import DARK, LIGHT, check_figure_name, save_figure

    check_figure_name(options.output)
    theme = DARK if options.dark else LIGHT
    save_figure(options.draw(options, theme), options.output, theme)
    print(f"wrote {options.output}")
    return 0


def _curves(options: argparse.Namespace, theme: Any) -> Any:
    from mmpt.evaluators.figures import loss_curves
    from mmpt.evaluators.training_log import read_training_log

    logs = {}
    for run in options.runs:
        file = Path(run) / "log.txt"
        if not file.is_file():
            raise DataError(f"{run}: has no log.txt of a training")
        logs[run] = read_training_log(file)
        if not logs[run]:
            raise DataError(f"{file}: tells no loss of a training")
    return loss_curves(logs, theme)


def _similarity(options: argparse.Namespace, theme: Any) -> Any:
    from mmpt.api.outputs import VideoClip
    from mmpt.evaluators.heat_maps import named_heatmap

    items = videos_of(options.videos)
    videos = [VideoClip(item.path, item.start, item.end) for item in items]
    scores = load(options).similarity(options.texts, videos, progress=sys.stderr.isatty())
    names = [Path(item.path).name + (f" {clock(item.start)}" if item.start else "") for item in items]
    return named_heatmap(scores, options.texts, names, theme)


def _attention(options: argparse.Namespace, theme: Any) -> Any:
    from mmpt.api.attention import attention_of
    from mmpt.evaluators.token_pictures import attention_picture

    (item, *_) = videos_of([options.video])
    seen = attention_of(load(options), item.path, options.text)
    title = f"{Path(item.path).name}: “{options.text}”"
    return attention_picture(seen.frames, seen.patches, seen.words, seen.weights, theme, title)


def _masking(options: argparse.Namespace, theme: Any) -> Any:
    import numpy as np

    from mmpt.api.attention import pieces_of
    from mmpt.evaluators.token_pictures import masking_picture
    from mmpt.modules.masking import hide_tokens, maskable
    from mmpt.utils.subwords import Subwords
    from mmpt.utils.tokenizers import special_ids

    if options.draws < 1 or not 0 <= options.probability <= 1:
        raise ConfigError("--draws is 1 or more, --probability 0 to 1")
    pipeline = load(options)
    tokens = pipeline.comparer.texts([options.text])
    ids = tokens.caps[tokens.cmasks].numpy()
    if isinstance(pipeline.tokenizer, Subwords):
        words, mask_id = ids >= pipeline.tokenizer.first_word, pipeline.tokenizer.special["MASK"]
    else:
        special = special_ids(pipeline.config.dataset.bert_name)
        words, mask_id = maskable(ids, special), special.mask
    rng = np.random.default_rng(options.seed)
    rows: list[tuple[str, list[str], np.ndarray]] = [("as given", pieces_of(pipeline, ids), np.zeros(len(ids), bool))]
    for number in range(options.draws):
        masked, _ = hide_tokens(rng, ids, words, options.probability, mask_id)
        rows.append((f"draw {number + 1}", pieces_of(pipeline, masked), masked != ids))
    return masking_picture(rows, theme)


if __name__ == "__main__":
    sys.exit(main())
