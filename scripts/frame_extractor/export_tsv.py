"""Write a frame store as the TSV that the published code of VIOLET or LAVENDER reads.

    python scripts/frame_extractor/export_tsv.py --store data/msrvtt/frames --output img_msrvtt.tsv --layout lavender

Beside the TSV stands its index: .lineidx, and for LAVENDER .id2lineidx.pkl too. Exit code 2 for an error, 130 if
interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.store.features import read_id_list
from mmpt.store.frame_export import LAYOUTS, export_tsv
from mmpt.store.frame_store import FrameStore
from mmpt_cli.extraction import exit_code

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--store", required=True, metavar="DIR", help="folder of the frame store")
    add("--output", required=True, metavar="FILE", help="the .tsv to write")
    add("--layout", choices=LAYOUTS, default=LAYOUTS[0], help="frames from column 1 (violet, default) or 2 (lavender)")
    add("--list", metavar="FILE", help="one video id per line: which videos, in this order (default: all)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 2 for an error, 130 if interrupted."""
    args = build_parser().parse_args(argv)
    return exit_code(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    video_ids = read_id_list(args.list, "--list") if args.list else None
    count = export_tsv(FrameStore(args.store), args.output, args.layout, video_ids, progress=not args.quiet)
    print(f"done {count}: {args.output}, for frames from column {1 + LAYOUTS.index(args.layout)} on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
