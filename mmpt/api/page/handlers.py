"""What the buttons of the page do: texts of a person in, HTML out; mistakes become messages."""

import functools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mmpt.api.capability import require_call
from mmpt.api.page import markup, search_markup
from mmpt.api.page.contents import Contents, Limits
from mmpt.api.page.intake import ChosenVideo, choose_video, playable
from mmpt.api.page.search_markup import Found
from mmpt.api.search import ClipIndex
from mmpt.utils.errors import DataError, MMPTError

__all__ = ["answer", "caption", "choose", "compare", "lines", "pick", "search", "timeline"]

logger = logging.getLogger(__name__)
_HITS = 12
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:]+/)+")


def lines(text: str | None) -> list[str]:
    """Return the lines of a text that are not blank, each once."""
    return list(dict.fromkeys(line.strip() for line in (text or "").splitlines() if line.strip()))


def choose(
    contents: Contents,
    copies: Path,
    path: str | Path,
    name: str,
    most_seconds: float | None,
    start: float | None = None,
) -> Iterator[tuple[ChosenVideo | None, str]]:
    """Look at a video, and yield it and its player, which plays from ``start`` at once where that is given.

    Where a copy must be made for browsers, that is said first.
    """
    try:
        video = choose_video(path, name, contents.shelf, most_seconds)
        if video.played is None:
            yield video, markup.waiting(f"{name}: browsers do not play {video.codec} in it. Making a small copy …")
            if video.seconds > contents.limits.seconds:
                raise DataError(f"{name}: browsers do not play {video.codec} in it, and it is too long for a copy")
            video = playable(video, contents.shelf, copies)
        yield video, markup.player(video, start)
    except Exception as error:
        yield None, _message(error)


def _public(text: str) -> str:
    """Return a message with the names of files, but not the folders of the server that they are in."""
    return _FOLDERS.sub("", text)


def _message(error: Exception, video: ChosenVideo | None = None) -> str:
    """Return what a person is told; it calls the video what the person does."""
    if not isinstance(error, MMPTError):
        logger.error("the page could not answer", exc_info=error)
        return markup.alert("Something went wrong here; the log of the server says what.")
    return markup.alert(_public(str(error) if video is None else str(error).replace(video.path, video.name)))


def _told(function: Callable[..., str]) -> Callable[..., str]:
    """Turn what goes wrong with a chosen video into a message."""

    @functools.wraps(function)
    def telling(contents: Contents, video: ChosenVideo | None, *given: object) -> str:
        try:
            if video is None:
                raise DataError("Choose a video first: upload one, or pick a demo video.")
            contents.shelf.path_of(video.token)
            if video.seconds > (most := contents.limits.seconds):
                raise DataError(
                    f"{video.name}: lasts {video.seconds:.0f} s; a model is asked about at most {most:.0f} s"
                )
            return function(contents, video, *given)
        except Exception as error:
            return _message(error, video)

    return telling


def _few(found: list[str], what: str, limits: Limits) -> list[str]:
    """Return labels or options, if they are not more, nor longer, than may be."""
    if len(found) > limits.labels:
        raise DataError(f"{len(found)} {what}: at most {limits.labels} are taken at a time.")
    for text in found:
        if len(text) > limits.label_letters:
            raise DataError(f"{text[:30]}…: {len(text)} letters; {what} have at most {limits.label_letters}.")
    return found


def _labels(text: str, limits: Limits) -> list[str]:
    found = lines(text)
    if not found:
        raise DataError("Type at least one label, one per line.")
    return _few(found, "labels", limits)


def _short(text: str | None, limits: Limits) -> str:
    """Return a text without blanks around it, if it is not longer than may be."""
    found = (text or "").strip()
    if len(found) > limits.text_letters:
        raise DataError(f"{found[:30]}…: {len(found)} letters; at most {limits.text_letters} are taken.")
    return found


@_told
def timeline(contents: Contents, video: ChosenVideo, model: str, labels: str) -> str:
    """Score labels over the video."""
    return markup.timeline(contents.models[model].segment(video.path, _labels(labels, contents.limits)))


@_told
def compare(contents: Contents, video: ChosenVideo, first: str, second: str, labels: str) -> str:
    """Put the timelines of two models one above the other, on one axis of time."""
    texts = _labels(labels, contents.limits)
    found = {name: contents.models[name].segment(video.path, texts) for name in (first, second)}
    return "".join(
        f'<h3 class="mmpt-name-of">{markup.escape(name)}</h3>{markup.timeline(one, False)}'
        for name, one in found.items()
    )


@_told
def answer(contents: Contents, video: ChosenVideo, model: str, question: str, options: str) -> str:
    """Answer a question, among options where there are some."""
    if not (asked := _short(question, contents.limits)):
        raise DataError("Type a question.")
    among = _few(lines(options), "options", contents.limits) or None
    require_call(contents.models[model], "choose" if among else "answer")
    return markup.answers(contents.models[model].answer(video.path, asked, among))


@_told
def caption(contents: Contents, video: ChosenVideo, model: str) -> str:
    """Write a caption."""
    return f"<p>{markup.escape(str(contents.models[model].caption(video.path)))}</p>"


def search(contents: Contents, index: str, text: str | None, image: str | None) -> tuple[list[Found], str]:
    """Search an index by text or else by a picture; return the hits and their cards."""
    try:
        query = _short(text, contents.limits)
        if bool(query) == bool(image):
            raise DataError("Type what to look for, or give a picture; one of them.")
        opened = _up_to_date(contents.indexes[index])
        hits = opened.search(query or None, image=image, top=_HITS)
        names = [_name_in(hit.video, opened.roots) for hit in hits]
        found = [Found(hit.video, name, hit.start, hit.end, hit.score) for hit, name in zip(hits, names, strict=True)]
        return found, search_markup.cards(found, [hit.thumbnail() for hit in hits], opened.why_nothing())
    except Exception as error:
        return [], _message(error if image is None else _renamed(error, image))


def _up_to_date(index: ClipIndex) -> ClipIndex:
    """Let an index see what was indexed since the last search; what it cannot see stays as it was, and is logged."""
    try:
        index.refresh_if_changed()
    except MMPTError as error:
        logger.warning("%s: is searched as it was before: %s", index.folder, error)
    return index


def pick(
    contents: Contents, copies: Path, found: Sequence[Found], number: int
) -> Iterator[tuple[ChosenVideo | None, str]]:
    """Choose the video of a hit, and play it from where the hit begins."""
    if not 0 <= number < len(found):
        return
    hit = found[number]
    yield from choose(contents, copies, hit.path, hit.name, None, hit.start)


def _name_in(path: str, roots: Sequence[Path]) -> str:
    """Return a path below the root that it is in; a visitor need not know where that is."""
    found = Path(path)
    return next((str(found.relative_to(root)) for root in roots if found.is_relative_to(root)), found.name)


def _renamed(error: Exception, path: str) -> Exception:
    return DataError(str(error).replace(path, Path(path).name)) if isinstance(error, MMPTError) else error
