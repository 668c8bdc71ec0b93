"""Make an index of the clips of one's videos, for ``mmpt search``, or bring it up to date.

A run that was killed goes on with the same command. Exit code 1 if more than --max-failed of the videos failed or
--verify finds damage, 2 for any other error, 130 if interrupted.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmpt.utils.errors import DataError, MMPTError
from mmpt_cli.extraction import check_arguments, exit_code, judged
from mmpt_cli.models import add_model_arguments, load
from mmpt_cli.parsers import Parser

__all__ = ["build_parser", "main"]

_EXAMPLE = """examples:
  mmpt index my_videos --model runs/demo --output my_index
  mmpt index my_index --info
  mmpt index my_index --verify
  mmpt index my_index --repair
  mmpt index my_index --compact
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser("mmpt index", description=__doc__, epilog=_EXAMPLE)
    add = parser.add_argument
    add("folders", nargs="+", metavar="FOLDER", help="folders of videos, all levels below; else one index")
    add("--output", metavar="DIR", help="the index: made, or brought up to date")
    add("--clip-seconds", metavar="SECONDS", type=float, default=4.0, help="length of a clip (4)")
    add(
        "--stride-seconds",
        metavar="SECONDS",
        type=float,
        help="from one clip's start to the next one's (half of a clip)",
    )
    add(
        "--thumbnail-pixels",
        metavar="PIXELS",
        type=int,
        default=120,
        help="shorter side of thumbnails; 0: none (120)",
    )
    add(
        "--workers",
        metavar="N",
        type=int,
        default=2,
        help="videos under way at a time: the model has one while others are decoded (2)",
    )
    add(
        "--max-failed",
        metavar="SHARE",
        type=float,
        default=0.1,
        help="highest share of failed videos for exit code 0, 0 to 1 (0.1)",
    )
    add("--retry-failed", action="store_true", help="try videos again that failed before and have not changed")
    add("--info", action="store_true", help="tell what an index holds")
    add("--verify", action="store_true", help="compare all that an index holds with its checksums")
    add("--repair", action="store_true", help="take out what is damaged; the next run encodes those videos again")
    add("--compact", action="store_true", help="free the room of videos that are gone")
    add("--json", action="store_true", help="print one JSON document")
    add("--quiet", action="store_true", help="no progress bar")
    add_model_arguments(parser, required=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.ERROR if options.quiet else logging.WARNING, format="%(message)s")
    return exit_code(lambda: _run(options), as_json=options.json)


def _run(options: argparse.Namespace) -> int:
    asked = [name for name in ("info", "verify", "repair", "compact") if getattr(options, name)]
    if not asked:
        return _index(options)
    if len(asked) > 1 or len(options.folders) > 1 or options.output or options.model:
        raise MMPTError(f"--{asked[0]} goes with one index and nothing else: mmpt index DIR --{asked[0]}")
    upkeep = {"info": _info, "verify": _verify, "repair": _repair, "compact": _compact}[asked[0]]
    found, code = upkeep(options.folders[0])
    print(json.dumps(found, indent=2) if options.json else "\n".join(map(_line, found.items())))
    return code


def _index(options: argparse.Namespace) -> int:
    if not options.model or not options.output:
        raise MMPTError("--model and --output are needed: mmpt index FOLDER --model SOURCE --output DIR")
    check_arguments(options)
    from mmpt.api.search import index_folder

    pipeline = load(options)
    with _progress(not options.quiet and sys.stderr.isatty()) as tell:
        summary = index_folder(
            pipeline,
            options.folders,
            options.output,
            clip_seconds=options.clip_seconds,
            stride_seconds=options.stride_seconds,
            thumbnail_pixels=options.thumbnail_pixels,
            workers=options.workers,
            retry_failed=options.retry_failed,
            on_progress=tell,
        )
    print(json.dumps(summary.as_dict(), indent=2) if options.json else summary.describe())
    return judged(summary.failed_fraction, options.max_failed)


@contextmanager
def _progress(shown: bool) -> Iterator[Callable[[int, int, str], None]]:
    from tqdm import tqdm

    with tqdm(unit="video", delay=2, disable=not shown) as bar:

        def tell(done: int, total: int, path: str) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


def _line(item: tuple[str, Any]) -> str:
    name, value = item
    told = ", ".join(value) or "none" if isinstance(value, list) else value
    return f"{name.replace('_', ' ')}: {told}"


def _info(folder: str) -> tuple[dict[str, Any], int]:
    from mmpt.api.search import ClipIndex

    index = ClipIndex.open(folder)
    snapshot = index.snapshot
    counts = {"videos": len(snapshot.videos), "clips": len(index), "failed": len(snapshot.failed)}
    rows = {"rows": len(snapshot.vectors), "rows_in_faiss_index": index.nearest.indexed}
    return {**vars(index.settings), **counts, **rows}, 0


def _verify(folder: str) -> tuple[dict[str, Any], int]:
    from mmpt.api.search.layout import IndexSettings, mending
    from mmpt.api.search.nearest import nearest_state
    from mmpt.api.search.snapshot import Snapshot

    data = Path(folder, IndexSettings.read(Path(folder)).data)
    found: dict[str, Any] = {"videos": 0, "damaged": [], "unreadable": [], "faiss_index": nearest_state(data)}
    try:
        snapshot = Snapshot(folder)
        found |= {"videos": len(snapshot.videos), "damaged": list(snapshot.damaged())}
    except DataError as error:  # what cannot be opened is what was asked for
        found["unreadable"] = [str(error)]
    if found["damaged"] or found["unreadable"] or found["faiss_index"] == "damaged":
        print(f"error: damaged; mend it with: {mending(data)}", file=sys.stderr)
        return found, 1
    return found, 0


def _repair(folder: str) -> tuple[dict[str, Any], int]:
    from mmpt.api.search.writer import repair

    removed, state = repair(folder)
    if removed:
        print("the videos that were taken out are encoded again by the mmpt index that made this", file=sys.stderr)
    return {"removed": removed, "faiss_index_was": state}, 0


def _compact(folder: str) -> tuple[dict[str, Any], int]:
    from mmpt.api.search.writer import compact

    if not folder:
        raise DataError("name an index")
    return {"rows_removed": compact(folder)}, 0


if __name__ == "__main__":
    sys.exit(main())
