"""Read the published TFRecords of MERLOT and MERLOT Reserve into stores.

    python scripts/segment_importer/import_tfrecords.py --layout reserve --input train*.tfrecord --store data/segments
    python scripts/segment_importer/import_tfrecords.py --layout vist --input val*.tfrecord --store data/vist/frames \\
        --questions data/vist/val.jsonl

Layouts: merlot and reserve (pre-training: a segment store), vist, merlot_vcr, reserve_vcr (a frame store and a file of
questions, one JSON object a line) and tvqa (a segment store and such a file). TensorFlow is not needed. Give the files
in the same order to go on after an interruption. Exit code 1 if more than --max-failed of the entries failed, 2 for any
other error (a damaged file is one), 130 if interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.store.tfrecord_pretraining import PRETRAINING_LAYOUTS, VIDEOS_PER_SHARD, import_segments
from mmpt.store.tfrecord_questions import QUESTION_LAYOUTS, import_questions
from mmpt.utils.errors import MMPTError
from mmpt_cli.extraction import (
    add_max_failed,
    add_videos_per_shard,
    check_arguments,
    refuse_unused,
    report,
    run_command,
)

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--layout", required=True, choices=[*PRETRAINING_LAYOUTS, *QUESTION_LAYOUTS], help="what the records hold")
    add(
        "--input", nargs="+", required=True, metavar="FILE", help="TFRecords, gzipped or not; of questions, one split's"
    )
    add("--store", required=True, metavar="DIR", help="folder of the segment store or frame store")
    add("--questions", metavar="FILE", help="JSON lines to write, of the layouts with questions")
    add("--drawing", choices=["segm", "bbox"], help="of merlot_vcr: images with polygons (segm) or with boxes")
    add(
        "--random-text", metavar="PREFIX", help="of reserve: where the text of no video goes (dataset.random_text_path)"
    )
    add("--no-check", action="store_true", help="do not verify the checksum of each record")
    add_videos_per_shard(parser, f"{VIDEOS_PER_SHARD}; of vist and vcr 2048")
    add_max_failed(parser, "entries")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    return run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> int:
    check_arguments(args)
    refuse_unused(args, drawing=args.layout == "merlot_vcr", random_text=args.layout == "reserve")
    how: dict[str, Any] = {"check": not args.no_check, "force": args.force, "progress": not args.quiet}
    if args.videos_per_shard is not None:
        how["videos_per_shard"] = args.videos_per_shard
    if args.layout in PRETRAINING_LAYOUTS:
        if args.questions:
            raise MMPTError(f"--questions: records of the layout {args.layout} hold none")
        summary = import_segments(args.input, args.store, args.layout, random_text=args.random_text, **how)
    else:
        if not args.questions:
            raise MMPTError(f"--questions: the layout {args.layout} needs the file to write them to")
        summary = import_questions(
            args.input, args.store, args.questions, args.layout, drawing=args.drawing or "segm", **how
        )
    return report(summary, args.max_failed, what="entries")


if __name__ == "__main__":
    sys.exit(main())
