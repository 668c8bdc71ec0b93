"""What the buttons of the page do: texts of a person in, HTML out; mistakes become messages."""

import functools
import logging
from collections.abc import Callable

from mmpt.api.page import markup
from mmpt.api.page.contents import Contents
from mmpt.api.page.intake import ChosenVideo
from mmpt.utils.errors import DataError, MMPTError

__all__ = ["answer", "caption", "compare", "lines", "timeline"]

logger = logging.getLogger(__name__)


def lines(text: str | None) -> list[str]:
    """Return the lines of a text that are not blank, each once."""
    return list(dict.fromkeys(line.strip() for line in (text or "").splitlines() if line.strip()))


def _told(function: Callable[..., str]) -> Callable[..., str]:
    """Turn what goes wrong into a message that calls the video what the person does."""

    @functools.wraps(function)
    def telling(contents: Contents, video: ChosenVideo | None, *given: object) -> str:
        try:
            if video is None:
                raise DataError("Choose a video first: upload one, or pick a demo video.")
            contents.shelf.path_of(video.token)
            return function(contents, video, *given)
        except MMPTError as error:
            return markup.alert(str(error) if video is None else str(error).replace(video.path, video.name))
        except Exception:
            logger.exception("the page could not answer")
            return markup.alert("Something went wrong here; the log of the server says what.")

    return telling


def _labels(text: str) -> list[str]:
    found = lines(text)
    if not found:
        raise DataError("Type at least one label, one per line.")
    return found


@_told
def timeline(contents: Contents, video: ChosenVideo, model: str, labels: str) -> str:
    """Score labels over the video."""
    return markup.timeline(contents.models[model].segment(video.path, _labels(labels)))


@_told
def compare(contents: Contents, video: ChosenVideo, first: str, second: str, labels: str) -> str:
    """Put the timelines of two models side by side."""
    texts = _labels(labels)
    parts = [
        f'<div style="flex:1;min-width:260px"><h3>{markup.escape(name)}</h3>'
        f"{markup.timeline(contents.models[name].segment(video.path, texts))}</div>"
        for name in (first, second)
    ]
    return f'<div style="display:flex;gap:24px;flex-wrap:wrap">{"".join(parts)}</div>'


@_told
def answer(contents: Contents, video: ChosenVideo, model: str, question: str, options: str) -> str:
    """Answer a question, among options where there are some."""
    if not (question or "").strip():
        raise DataError("Type a question.")
    return markup.answers(contents.models[model].answer(video.path, question.strip(), lines(options) or None))


@_told
def caption(contents: Contents, video: ChosenVideo, model: str) -> str:
    """Write a caption."""
    return f"<p>{markup.escape(str(contents.models[model].caption(video.path)))}</p>"
