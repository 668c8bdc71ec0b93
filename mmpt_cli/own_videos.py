"""What the commands that ask a model about videos share: which videos, one after another, results and errors.

A video that cannot be read is told and the others go on; the exit code is 1 then. With ``--json`` standard output is
one document ``{"model", "system", "results": [{"video", …}], "errors": [{"video", "error"}]}``.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mmpt.store.features import read_id_list
from mmpt.store.video_list import VideoItem, find_videos
from mmpt.utils.errors import ConfigError, DataError, StorageError, VideoError
from mmpt.utils.times import clock

if TYPE_CHECKING:
    from mmpt.api.pipeline import Video, VideoTextPipeline

__all__ = [
    "EXIT_CODES",
    "add_label_arguments",
    "add_output_arguments",
    "add_videos",
    "labels_of",
    "name_of",
    "over_videos",
    "progress_wanted",
    "videos_of",
]

EXIT_CODES = "Exit codes: 0 done, 1 some videos could not be read, 2 the message says what is wrong, 130 interrupted."


def add_videos(parser: argparse.ArgumentParser) -> None:
    """Add the videos, which come before the options."""
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="video files, folders of them (all levels below), lists with one path per line (.txt), or CSVs with "
        "columns video_id,path[,start,end]; name them before --labels",
    )


def add_label_arguments(parser: argparse.ArgumentParser, unless: str = "") -> None:
    """Add ``--labels``, ``--labels-file`` and ``--template``; :func:`labels_of` reads the first two.

    ``unless`` tells when labels are not needed; by default they always are.
    """
    which = parser.add_mutually_exclusive_group(required=not unless)
    which.add_argument("--labels", nargs="+", metavar="LABEL", help=f"the labels, any text{unless}")
    which.add_argument("--labels-file", metavar="FILE", help="a text file with one label per line")
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help='what a label is put into, such as "a video of {}"; may be repeated, scores are averaged (default: {})',
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` and ``--quiet``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document, all else goes to stderr")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def labels_of(options: argparse.Namespace) -> list[str] | None:
    """Return the labels of ``--labels`` or ``--labels-file``, None where neither is given.

    Raises:
        DataError: if the file cannot be read or has none.
        ConfigError: if there is a template without a place for the label.
    """
    for template in options.template or ():
        if "{}" not in template:
            raise ConfigError(f"--template {template!r}: has no {{}}, the place of the label")
    if options.labels_file is None:
        return None if options.labels is None else list(options.labels)
    return read_id_list(options.labels_file, "--labels-file", "label")


def videos_of(sources: Sequence[str]) -> list[VideoItem]:
    """Return the videos that arguments name; files of folders that do not look like videos are told on stderr.

    Raises:
        MMPTError: as :func:`mmpt.store.video_list.find_videos`.
    """
    left_out: list[str] = []
    items = find_videos(sources, left_out)
    if left_out:
        print(f"note: {len(left_out)} files do not look like videos, such as {left_out[0]}", file=sys.stderr)
    return items


def name_of(item: VideoItem) -> str:
    """Return what a video is called in what is printed: its path, and its part of the file if it is one."""
    if item.start == 0 and item.end is None:
        return item.path
    return f"{item.path} [{clock(item.start)} - {'end' if item.end is None else clock(item.end)}]"


def progress_wanted(options: argparse.Namespace) -> bool:
    """Tell whether to show a progress bar: at a terminal, without ``--quiet``."""
    return not options.quiet and sys.stderr.isatty()


def over_videos(
    options: argparse.Namespace,
    pipeline: "VideoTextPipeline",
    items: Sequence[VideoItem],
    call: Callable[["Video"], Any],
    plain: Callable[[Any], dict[str, Any]],
    lines: Callable[[Any], Sequence[str]],
) -> int:
    """Ask a model about videos, one after another, and print what it says.

    Args:
        options: with ``json``, ``quiet`` and ``model``.
        pipeline: the loaded model.
        items: the videos.
        call: asks about one. Of a single video that takes long the bar shows how much of it is read.
        plain: turns what it gives back into what ``--json`` prints beside the video's name.
        lines: turns it into lines for a person, printed as soon as they are there.

    Returns:
        The exit code: 1 if a video could not be read, else 0.

    Raises:
        MMPTError: for what is wrong with more than one video: the model, the labels, a missing package. A
            :class:`~mmpt.utils.errors.VideoError` never is, other errors are unless the model has answered for another
            video.
    """
    from tqdm import tqdm

    results, errors = [], []
    shown, several = progress_wanted(options), len(items) > 1
    with tqdm(total=len(items), unit="video", disable=not (shown and several), delay=2) as bar:
        for item in items:
            try:
                value = call(_video(item, shown and not several))
            except (DataError, StorageError, OSError) as error:
                if not results and not isinstance(error, VideoError):
                    raise  # what was asked is wrong: every video would fail so
                why = str(error).removeprefix(f"{item.path}: ")
                errors.append({"video": name_of(item), "error": why})
                bar.write(f"error: {name_of(item)}: {why}", file=sys.stderr)
            else:
                results.append({"video": item.path, **_part(item), **plain(value)})
                if not options.json:
                    heading = [name_of(item)] if len(items) > 1 else []
                    bar.write("\n".join([*heading, *lines(value)]), file=sys.stdout)
            bar.update()
    if options.json:
        document = {"model": options.model, "system": pipeline.system, "results": results, "errors": errors}
        print(json.dumps(document, indent=2, ensure_ascii=False))
    elif errors and len(items) > 1:
        print(f"{len(errors)} of {len(items)} videos could not be read", file=sys.stderr)
    return 1 if errors else 0


def _video(item: VideoItem, progress: bool) -> "Video":
    from mmpt.api.outputs import VideoClip
    from mmpt.api.video_sources import FileSource

    if progress:
        source = FileSource(item.path, item.start, item.end)
        source.progress = True
        return source
    return VideoClip(item.path, item.start, item.end) if _part(item) else item.path


def _part(item: VideoItem) -> dict[str, Any]:
    return {} if item.start == 0 and item.end is None else {"start": item.start, "end": item.end}
