"""The page's parts: who may choose a video how, and a tab for each thing to do with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmpt.api.page import handlers, markup, search_markup
from mmpt.api.page.contents import Contents

__all__ = ["blocks"]

#: Calls of a model one after another, whatever tab they are from.
_ONE_AT_A_TIME = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
_NO_INDEX = (
    "<p>No index is open. Make one with <code>mmpt index FOLDER --model SOURCE --output INDEX</code>, then start the "
    "page with <code>--index INDEX</code>.</p>"
)
_ONE_MODEL = "<p>Two models are compared: start the page with <code>--model NAME=SOURCE</code> twice.</p>"
_PRIVATE = {"api_visibility": "private"}


def blocks(gradio: Any, contents: Contents, copies: Path) -> Any:
    """Return the page as gradio's blocks; ``copies`` is the folder of copies that browsers play."""
    with gradio.Blocks(title="MMPT", analytics_enabled=False, fill_width=True) as made:
        _html(gradio, markup.heading(contents))
        video = gradio.State(None)
        with gradio.Row():
            with gradio.Column(scale=2, min_width=300, elem_id="mmpt-left"):
                player = _html(gradio, "<p>No video is chosen.</p>", elem_id="mmpt-player")
                shown = _chooser(gradio, contents, copies, [video, player])
            with gradio.Column(scale=3, min_width=420), gradio.Tabs():
                _timeline_tab(gradio, contents, video)
                _search_tab(gradio, contents, copies, shown)
                _ask_tab(gradio, contents, video)
                _compare_tab(gradio, contents, video)
                with gradio.Tab("About"):
                    _html(gradio, markup.about(contents), elem_id="mmpt-about")
    return made.queue(max_size=16, default_concurrency_limit=4)


def _html(gradio: Any, value: str = "", **options: Any) -> Any:
    """Return a piece of HTML that has the look of :mod:`mmpt.api.page.look`, not that of an article."""
    return gradio.HTML(value, apply_default_css=False, **options)


def _chooser(gradio: Any, contents: Contents, copies: Path, player: list[Any]) -> list[Any]:
    """Add the ways to choose a video; return what a choice changes: the player's parts, and which demo video it is."""
    most = contents.limits
    demo = gradio.Dropdown(list(contents.demo), value=None, label="Pick a video", visible=bool(contents.demo))
    label = f"{'or upload' if contents.demo else 'Upload'} one (at most {most.upload_mb} MB, {most.seconds:.0f} s)"
    upload = gradio.File(label=label, height=160, elem_id="mmpt-upload")

    def uploaded(path: str) -> Any:
        for chosen in handlers.choose(contents, copies, path, Path(path).name, most.seconds):
            yield *chosen, None

    def picked(name: str) -> Any:
        for chosen in handlers.choose(contents, copies, contents.demo[name], name, most.seconds):
            yield *chosen, name

    shown = [*player, demo]
    upload.upload(uploaded, upload, shown, **_PRIVATE)
    demo.input(picked, demo, shown, **_PRIVATE)
    return shown


def _models(gradio: Any, names: list[str], label: str = "Model", place: int = 0) -> Any:
    return gradio.Dropdown(names, value=names[place % len(names)], label=label)


def _bound(function: Callable[..., str], contents: Contents) -> Callable[..., str]:
    return lambda *given: function(contents, *given)


def _timeline_tab(gradio: Any, contents: Contents, video: Any) -> None:
    with gradio.Tab("Timeline"):
        if not contents.able("segment"):
            _html(gradio, markup.alert(contents.why_not("segment")))
            return
        model = _models(gradio, contents.able("segment"))
        labels = gradio.Textbox(label="Labels, one per line", lines=4, max_lines=4, placeholder="pour water\nstir")
        button, result = gradio.Button("Show the timeline", variant="primary"), _html(gradio, elem_id="mmpt-timeline")
        button.click(_bound(handlers.timeline, contents), [video, model, labels], result, **_ONE_AT_A_TIME)


def _search_tab(gradio: Any, contents: Contents, copies: Path, shown: list[Any]) -> None:
    with gradio.Tab("Search"):
        if not contents.indexes:
            _html(gradio, _NO_INDEX)
            return
        index = _models(gradio, list(contents.indexes), "Index")
        with gradio.Row():
            text = gradio.Textbox(label="Text", placeholder="a red star falls", scale=3)
            image = gradio.File(label="or a picture (JPEG, PNG)", height=160, scale=2, elem_id="mmpt-picture")
        button = gradio.Button("Search", variant="primary", elem_id="mmpt-search")
        hits = gradio.State([])
        cards = _html(gradio, elem_id="mmpt-hits", js_on_load=search_markup.ON_CLICK)

        def search(*given: Any) -> Any:
            return handlers.search(contents, *given)

        def pick(found: Any, event: Any) -> Any:
            for chosen in handlers.pick(contents, copies, found, int(event.hit)):
                yield *chosen, None

        pick.__annotations__["event"] = gradio.EventData  # how gradio knows what to put there
        for asked in (button.click, text.submit):
            asked(search, [index, text, image], [hits, cards], **_ONE_AT_A_TIME)
        cards.click(pick, hits, shown, **_PRIVATE)


def _ask_tab(gradio: Any, contents: Contents, video: Any) -> None:
    with gradio.Tab("Ask"):
        if able := contents.able("answer", "choose"):
            model = _models(gradio, able)
            question = gradio.Textbox(label="Question", placeholder="what falls?")
            options = gradio.Textbox(label="Options, one per line (none: an open question)", lines=3, max_lines=5)
            button, result = gradio.Button("Ask", variant="primary"), _html(gradio, elem_id="mmpt-answers")
            given = [video, model, question, options]
            button.click(_bound(handlers.answer, contents), given, result, **_ONE_AT_A_TIME)
        else:
            _html(gradio, markup.alert(contents.why_not("answer")))
        if able := contents.able("caption"):
            writer = _models(gradio, able, "Model that writes captions")
            write, written = gradio.Button("Write a caption"), _html(gradio, elem_id="mmpt-caption")
            write.click(_bound(handlers.caption, contents), [video, writer], written, **_ONE_AT_A_TIME)


def _compare_tab(gradio: Any, contents: Contents, video: Any) -> None:
    with gradio.Tab("Compare"):
        able = contents.able("segment")
        if len(able) < 2:
            _html(gradio, _ONE_MODEL)
            return
        with gradio.Row():
            first, second = (_models(gradio, able, f"Model {place + 1}", place) for place in (0, 1))
        labels = gradio.Textbox(label="Labels, one per line", lines=4, max_lines=4)
        button, result = gradio.Button("Compare", variant="primary"), _html(gradio, elem_id="mmpt-compare")
        given = [video, first, second, labels]
        button.click(_bound(handlers.compare, contents), given, result, **_ONE_AT_A_TIME)
