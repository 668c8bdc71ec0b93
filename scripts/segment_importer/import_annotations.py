"""Read VIST, VCR and TVQA, as their authors give them, into a store and a file of questions.

    python scripts/segment_importer/import_annotations.py --corpus vist --annotations sis/val.story-in-sequence.json \\
        --images images/val --store data/vist/frames --questions data/vist/val.jsonl
    python scripts/segment_importer/import_annotations.py --corpus vcr --style reserve \\
        --annotations vcr1annots/val.jsonl --images vcr1images \\
        --store data/vcr/reserve_frames --questions data/vcr/reserve_val.jsonl
    python scripts/segment_importer/import_annotations.py --corpus tvqa --annotations tvqa_val.jsonl \\
        --images frames_hq --subtitles tvqa_subtitles.jsonl --sound audios --store data/tvqa/segments \\
        --questions data/tvqa/val.jsonl

The names of persons and the colours of objects of VCR are this project's: the published ones are not known to it.
Exit code 1 if more than --max-failed of the questions failed, 2 for any other error, 130 if interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.store.question_writer import VIDEOS_PER_SHARD, write_questions
from mmpt.store.tvqa_annotations import tvqa_items
from mmpt.store.vcr_annotations import STYLES, vcr_items
from mmpt.store.vist_annotations import story_items
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
    add("--corpus", required=True, choices=["vist", "vcr", "tvqa"], help="whose annotations")
    add("--annotations", required=True, metavar="FILE", help="of one split")
    add("--images", required=True, metavar="DIR", help="photos, images with their metadata, or folders of frames")
    add("--store", required=True, metavar="DIR", help="folder of the frame store, or of TVQA's segment store")
    add("--questions", required=True, metavar="FILE", help="JSON lines to write")
    add("--style", choices=STYLES, help="of vcr: whose names and drawings (merlot)")
    add("--boxes", action="store_true", help="of vcr, merlot: boxes instead of outlines")
    add("--mirrored", action="store_true", help="of vcr, reserve: store mirror images too, for training")
    add("--subtitles", metavar="FILE", help="of tvqa: lines with vid_name and sub")
    add("--sound", metavar="DIR", help="of tvqa: a sound file of each clip; without it all is silent")
    add_videos_per_shard(parser, f"{VIDEOS_PER_SHARD['frames']}; of tvqa {VIDEOS_PER_SHARD['segments']}")
    add_max_failed(parser, "questions")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    return run_command(build_parser(), _run, argv)


def _run(args: argparse.Namespace) -> int:
    check_arguments(args)
    vcr, tvqa, style = args.corpus == "vcr", args.corpus == "tvqa", args.style or "merlot"
    refuse_unused(
        args,
        style=vcr,
        boxes=vcr and style == "merlot",
        mirrored=vcr and style == "reserve",
        subtitles=tvqa,
        sound=tvqa,
    )
    settings = {"tool": "import_annotations", "corpus": args.corpus}
    if args.corpus == "vist":
        items = story_items(args.annotations, args.images)
    elif vcr:
        items = vcr_items(args.annotations, args.images, style, args.boxes, args.mirrored)
        settings |= {"style": style, "boxes": args.boxes, "mirrored": args.mirrored}
    elif not args.subtitles:
        raise MMPTError("--subtitles: TVQA needs them")
    else:
        items = tvqa_items(args.annotations, args.images, args.subtitles, args.sound)
        settings |= {"sound": args.sound is not None}
    kind = "segments" if tvqa else "frames"
    summary = write_questions(items, args.store, args.questions, settings, kind, args.force, args.videos_per_shard)
    return report(summary, args.max_failed, what="questions")


if __name__ == "__main__":
    sys.exit(main())
