"""Write the training lists of a data set's tasks without the videos that any of these tasks is tested on.

    python scripts/multi_task/filter_test_videos.py --dataset msrvtt --data-root data/lavender \\
        --caption-yaml 'MSRVTT-v2/{split}_32frames.yaml' --output-folder data/lavender/multi_task

Reads every txt_<dataset>-<task>.json of the data root. A multi-task training takes its members' lists from the
output folder; validation and test are copied there unchanged.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.store.held_out_videos import filter_data_set
from mmpt.utils.errors import MMPTError

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="lsmdc, msrvtt, msvd, tgif: the name after txt_")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of txt_<dataset>-<task>.json")
    parser.add_argument("--output-folder", type=Path, help="default: multi_task below the data root")
    parser.add_argument(
        "--caption-yaml", help="SwinBERT's caption files below the data root, with {split} for train, val and test"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 2 for any error."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    root = arguments.data_root
    output = arguments.output_folder or root / "multi_task"
    try:
        report = filter_data_set(root, arguments.dataset, output, arguments.caption_yaml)
    except (MMPTError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*report, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
