"""Remove the words that speech recognition says twice from a file of timed captions.

    python scripts/text_token_extractor/dedup.py --how2dir data/how2
    python scripts/text_token_extractor/dedup.py --input captions.json --output captions_dedup.json

The input is HowTo100M's raw_caption.json, {video id: {"start": [..], "end": [..], "text": [..]}} with times
in seconds, or a .pkl of a dict from video id to the JSON string of such an entry. The output has the same
form; --pkl writes it as .pkl too, for configs that name one. An interrupted run goes on where it was.
"""

import argparse
import functools
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tqdm import tqdm

from mmpt.store.caption_files import deduplicate_file, write_caption_pickle
from mmpt.utils.seeds import DEFAULT_SEED
from mmpt_cli.extraction import exit_code

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--how2dir", type=Path, help="folder with raw_caption.json; writes raw_caption_dedup.json there"
    )
    parser.add_argument("--input", type=Path, help="caption file (.json or .pkl)")
    parser.add_argument("--output", type=Path, help="file to write (.json)")
    parser.add_argument("--pkl", action="store_true", help="also write the output as .pkl (video id -> JSON string)")
    parser.add_argument(
        "--seed", type=int, default=DEFAULT_SEED, help="which clip keeps an overlap (default %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="do it again even if nothing has changed")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    folder = arguments.how2dir
    source = arguments.input or (folder and folder / "raw_caption.json")
    target = arguments.output or (folder and folder / "raw_caption_dedup.json")
    if source is None or target is None:
        parser.error("give --how2dir, or --input and --output")
    if target.suffix != ".json":
        parser.error(f"--output {target}: write to a .json file; --pkl adds a .pkl beside it")
    progress = functools.partial(tqdm, desc="dedup", unit=" videos", mininterval=1.0)

    def run() -> int:
        report = deduplicate_file(source, target, arguments.seed, arguments.force, progress)
        if arguments.pkl:
            write_caption_pickle(target, target.with_suffix(".pkl"))
        print(f"{target}:", *report.lines(), sep="\n")
        return 0

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
