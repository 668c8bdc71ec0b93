"""Cut videos with their transcripts into segments for MERLOT or MERLOT Reserve: frames, words, sound.

    mmpt extract segments --kind reserve --videos my_videos/ --transcripts my_vtts/ \\
        --tokenizer data/tokenizer --store data/mine/segments

Transcripts lie in a folder, one .json, .vtt or .srt per video under its id, or in one .json or .jsonl file of all;
without --transcripts nothing is said in any video. A second run goes on where the first stopped. Exit code 1 if more
than --max-failed of the videos failed, 2 for any other error, 130 if interrupted.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from mmpt.store.segment_extraction import KINDS, VIDEOS_PER_SHARD, SegmentExtractionOptions, extract_segments
from mmpt_cli.extraction import add_video_arguments, check_arguments, report, run_command, videos_of
from mmpt_cli.parsers import Parser

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(prog="mmpt extract segments", description=__doc__)
    default = SegmentExtractionOptions
    add_video_arguments(parser)
    add = parser.add_argument
    add("--kind", choices=list(KINDS), required=True, help="chunks of speech (merlot) or windows of 5 s (reserve)")
    add("--transcripts", metavar="DIR_OR_FILE", help="what is said in the videos, with times")
    add("--tokenizer", required=True, metavar="PATH", help="of that kind (dataset.tokenizer)")
    add(
        "--store",
        required=True,
        metavar="DIR",
        help="folder of the segment store (dataset.segment_path) and manifest.json",
    )
    add(
        "--missing-as-speechless",
        action="store_true",
        help="take a video without a transcript as one in which nothing is said (default: it counts as failed)",
    )
    add(
        "--raw-transcript",
        action="store_true",
        help="merlot: store the words as recognised too, where transcripts come with denoised ones",
    )
    add("--speed-up", action="store_true", help="reserve: play windows with few words 2 or 3 times faster")
    add("--no-sound", action="store_true", help="reserve: no spectrograms")
    add(
        "--most-tokens",
        type=int,
        default=default.most_tokens,
        metavar="N",
        help=f"merlot: of a chunk, beside its start (dataset.max_text_len less 1; {default.most_tokens})",
    )
    add(
        "--seconds",
        type=float,
        default=default.seconds,
        help=f"merlot: of the chunks of a video in which nothing is said ({default.seconds:g})",
    )
    add(
        "--end-margin",
        type=float,
        default=default.end_margin,
        metavar="SECONDS",
        help=f"leave out so much at the end of each video ({default.end_margin:g})",
    )
    sizes = "; ".join(f"{kind} {size.short}, {size.long}, {size.quality}" for kind, size in KINDS.items())
    add("--short-side", type=int, metavar="PIXELS", help=f"the shorter side of a frame has at most so many ({sizes})")
    add("--long-side", type=int, metavar="PIXELS", help="the longer side has at most so many")
    add("--quality", type=int, help="of the JPEGs, 1 to 95")
    add(
        "--videos-per-shard",
        type=int,
        default=VIDEOS_PER_SHARD,
        help=f"a killed run loses at most so many ({VIDEOS_PER_SHARD})",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    return run_command(build_parser(), _run, argv, logging.WARNING)


def _run(args: argparse.Namespace) -> int:
    check_arguments(args)
    options = SegmentExtractionOptions(
        kind=args.kind,
        tokenizer=args.tokenizer,
        raw_transcript=args.raw_transcript,
        speed_up=args.speed_up,
        no_sound=args.no_sound,
        missing_as_speechless=args.missing_as_speechless,
        most_tokens=args.most_tokens,
        seconds=args.seconds,
        end_margin=args.end_margin,
        short_side=args.short_side,
        long_side=args.long_side,
        quality=args.quality,
        videos_per_shard=args.videos_per_shard,
        force=args.force,
        workers=args.workers,
        timeout_seconds=args.video_timeout,
    )
    items, left_out = videos_of(args)
    summary = extract_segments(items, args.transcripts, args.store, options, progress=not args.quiet)
    return report(summary, args.max_failed, left_out, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
