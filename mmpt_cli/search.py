"""Search an index of ``mmpt index`` by a text, a part of a video, or a picture."""

import argparse
import html
import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt.utils.errors import MMPTError
from mmpt.utils.times import clocks
from mmpt_cli.models import add_model_arguments, loading_options
from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import exit_code

if TYPE_CHECKING:
    from mmpt.api.search import SearchHit

__all__ = ["build_parser", "clip_of", "main"]

logger = logging.getLogger(__name__)

_EXAMPLE = """examples:
  mmpt search my_index "a red star falls"
  mmpt search my_index --clip one.mp4@3-8 --top 3
  mmpt search my_index --image star.png --json
  mmpt search my_index "a red star falls" --thumbnails pictures --html found.html

With --json: index, model, query (of text, clip or image), results[] of rank and what was found.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser("mmpt search", description=__doc__, epilog=_EXAMPLE)
    add = parser.add_argument
    add("index", metavar="DIR", help="the index")
    add("text", nargs="?", help="what to look for")
    add("--clip", metavar="VIDEO[@START-END]", help="look for what is like these seconds of a video")
    add("--image", metavar="FILE", help="look for what is like a JPEG or PNG picture")
    add("--top", metavar="N", type=int, default=10, help="at most so many results (10)")
    add("--per-video", metavar="N", type=int, help="at most so many of each video")
    add("--min-score", metavar="COSINE", type=float, help="cosine that a result must have, -1 to 1")
    add("--every-clip", action="store_true", help="do not merge overlapping clips of a video")
    add("--root", action="append", metavar="DIR", help="where an indexed folder is now; once for each, in order")
    add("--thumbnails", metavar="DIR", help="write the results' pictures here, 01.jpg and so on")
    add("--html", metavar="FILE", help="write a page of the results")
    add("--json", action="store_true", help="print one JSON document")
    add("--quiet", action="store_true", help="no warnings")
    add_model_arguments(parser, required=False, what="the index's model, where it is now")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.ERROR if options.quiet else logging.WARNING, format="%(message)s")
    return exit_code(lambda: _run(options), as_json=options.json)


def _run(options: argparse.Namespace) -> int:
    if sum(query is not None for query in (options.text, options.clip, options.image)) != 1:
        raise MMPTError("give one of a text, --clip and --image")
    from mmpt.api.search import ClipIndex

    index = ClipIndex.open(options.index, roots=options.root)
    index.load_model(options.model, **loading_options(options))
    for root in index.roots:
        if not root.is_dir():
            logger.warning("warning: %s is not there any more; say where its videos are now: --root DIR", root)
    hits = index.search(
        options.text,
        clip=None if options.clip is None else clip_of(options.clip),
        image=options.image,
        top=options.top,
        per_video=options.per_video,
        min_score=options.min_score,
        merge=not options.every_clip,
    )
    nothing = "" if hits else index.why_nothing(options.min_score)
    if nothing:
        print(nothing, file=sys.stderr)
    _write_pictures(hits, options.thumbnails)
    if options.html:
        _write_page(hits, options, nothing)
    if options.json:
        asked = {"text": options.text, "clip": options.clip, "image": options.image}
        document = {
            "index": options.index,
            "model": options.model or index.settings.model,
            "query": {kind: query for kind, query in asked.items() if query is not None},
            "results": [{"rank": rank, **hit.as_dict()} for rank, hit in enumerate(hits, 1)],
        }
        print(json.dumps(document, indent=2))
    else:
        for rank, hit in enumerate(hits, 1):
            print(f"{rank:>3}  {hit.score:6.3f}  {'-'.join(clocks(hit.start, hit.end))}  {hit.video}")
    return 0


def clip_of(text: str) -> tuple[str, float, float | None]:
    """Return path, start and end of ``VIDEO@START-END`` in seconds, or of a whole video.

    Raises:
        MMPTError: if the seconds are none, or not in order.
    """
    path, at, seconds = text.rpartition("@")
    if not at or Path(text).exists():
        return text, 0.0, None
    start, dash, end = seconds.partition("-")
    try:
        found = float(start), float(end)
    except ValueError:
        found = (math.nan, math.nan)
    if not dash or not 0 <= found[0] < found[1] < math.inf:
        raise MMPTError(f"--clip {text}: expected VIDEO@START-END in seconds, such as one.mp4@3-8")
    return path, *found


def _write_pictures(hits: Sequence["SearchHit"], folder: str | None) -> None:
    from mmpt.utils.files import atomic_open

    for rank, hit in enumerate(hits if folder else [], 1):
        if (picture := hit.thumbnail()) is not None:
            with atomic_open(Path(str(folder), f"{rank:02d}.jpg"), "wb") as file:
                file.write(picture)


def _write_page(hits: Sequence["SearchHit"], options: argparse.Namespace, nothing: str) -> None:
    from mmpt.evaluators.page import gallery, page
    from mmpt.utils.files import atomic_open

    query = f"“{options.text}”" if options.text else f"like {options.clip or options.image}"
    note = f"{len(hits)} results in {options.index}, best first. Links open the videos at their times."
    if nothing:
        note = f"{options.index}: {nothing}."
    tiles = [_tile(rank, hit) for rank, hit in enumerate(hits, 1)]
    head = f"<h1>{html.escape(query)}</h1><p class=note>{html.escape(note)}</p>"
    with atomic_open(options.html) as file:
        file.write(page(f"Search: {query}", [head, gallery(tiles)], "mmpt search"))


def _tile(rank: int, hit: "SearchHit") -> tuple[bytes | None, str, str, str]:
    path = Path(hit.video).absolute()
    link = f"{path.as_uri()}#t={hit.start:g},{hit.end:g}"
    return (
        hit.thumbnail(),
        f"{rank}. {path.name}",
        link,
        f"{'-'.join(clocks(hit.start, hit.end))}, score {hit.score:.3f}",
    )


if __name__ == "__main__":
    sys.exit(main())
