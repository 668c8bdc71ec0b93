"""Cut videos into a segment store, for what MERLOT Reserve is asked about them without training.

    python scripts/segment_importer/cut_windows.py --videos data/msrvtt/videos --store data/msrvtt/segments_3s
    python scripts/segment_importer/cut_windows.py --videos data/epic_kitchens/videos --number 8 \\
        --before data/epic_kitchens/EPIC_100_validation.csv --store data/epic_kitchens/segments_8x2s

Without --before, each video is an entry of the store: stretches of --seconds that fill its middle (3, as published for
MSRVTT-QA). With it, each action of the file is one: --number stretches of --seconds that end --gap seconds before the
action (published: 8 of 2 or 6 of 5, and 1). A second run goes on where the first stopped; other stretches need another
store. Exit code 1 if more than
--max-failed of the entries failed, 2 for any other error, 130 if interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.api.reserve_windows import VIDEOS_PER_SHARD, anticipation_items, cut_windows, question_items
from mmpt.store.video_list import find_videos
from mmpt.utils.errors import MMPTError
from mmpt_cli.extraction import add_max_failed, add_videos_per_shard, check_arguments, report, run_command

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--videos", nargs="+", required=True, help="folders, CSVs with video_id,path, lists of paths, or files")
    add("--store", required=True, metavar="DIR", help="folder of the segment store (dataset.segment_path)")
    add("--before", metavar="CSV", help="actions: EPIC_100_validation.csv")
    add("--seconds", type=float, help="length of a stretch (3; with --before 2)")
    add("--number", type=int, help="with --before: stretches before an action (8)")
    add("--gap", type=float, help="with --before: seconds before an action that are not seen (1)")
    add_videos_per_shard(parser, VIDEOS_PER_SHARD)
    add_max_failed(parser, "entries")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    return run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> int:
    check_arguments(args)
    given = {"number": args.number is not None, "gap": args.gap is not None}
    if not args.before and any(given.values()):
        raise MMPTError(f"{', '.join(f'--{name}' for name in given if given[name])}: of no effect without --before")
    seconds = args.seconds if args.seconds is not None else 2.0 if args.before else 3.0
    number, gap = args.number if given["number"] else 8, args.gap if given["gap"] else 1.0
    if not seconds > 0 or number < 1 or not gap >= 0:
        raise MMPTError(f"--seconds {seconds} --number {number} --gap {gap}: no stretches of a video")
    videos, how = find_videos(args.videos), {"seconds": seconds}
    if args.before:
        items, how = anticipation_items(args.before, videos, seconds, number, gap), how | {"number": number, "gap": gap}
    else:
        items = question_items(videos, seconds)
    size = VIDEOS_PER_SHARD if args.videos_per_shard is None else args.videos_per_shard
    return report(
        cut_windows(items, args.store, how, args.force, not args.quiet, size), args.max_failed, what="entries"
    )


if __name__ == "__main__":
    sys.exit(main())
