"""The page's parts: who may choose a video how, and a tab for each thing to do with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmpt.api.page import handlers, markup, search_markup
from mmpt.api.page.contents import Contents

__all__ = ["blocks"]

#: Calls of a model one after another, whatever tab they are from.
_ONE_AT_A_TIME = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
_PRIVATE = {"api_visibility": "private"}


def blocks(gradio: Any, contents: Contents, copies: Path) -> Any:
    """Return the page as gradio's blocks; ``copies`` is the folder of copies that browsers play."""
    with gradio.Blocks(title="MMPT", analytics_enabled=False, fill_width=True) as made:
        gradio.HTML(markup.heading(contents))
        video = gradio.State(None)
        with gradio.Row():
            with gradio.Column(scale=2, min_width=300):
                player = gradio.HTML("<p>No video is chosen.</p>", elem_id="mmpt-player")
                _chooser(gradio, contents, copies, [video, player])
            with gradio.Column(scale=3, min_width=420), gradio.Tabs():
                _timeline_tab(gradio, contents, video)
                _search_tab(gradio, contents, copies, [video, player])
                _ask_tab(gradio, contents, video)
                _compare_tab(gradio, contents, video)
                with gradio.Tab("About"):
                    gradio.HTML(markup.about(contents), elem_id="mmpt-about")
    return made.queue(max_size=16, default_concurrency_limit=4)


def _chooser(gradio: Any, contents: Contents, copies: Path, shown: list[Any]) -> None:
    most = contents.limits
    demo = gradio.Dropdown(list(contents.demo), value=None, label="Pick a video", visible=bool(contents.demo))
    label = f"{'or upload' if contents.demo else 'Upload'} one (at most {most.upload_mb} MB, {most.seconds:.0f} s)"
    upload = gradio.File(label=label, height=140, elem_id="mmpt-upload")

    def choose(path: Any, name: str) -> Any:
        yield from handlers.choose(contents, copies, path, name, most.seconds)

    def uploaded(path: str) -> Any:
        yield from choose(path, Path(path).name)

    def picked(name: str) -> Any:
        yield from choose(contents.demo[name], name)

    upload.upload(uploaded, upload, shown, **_PRIVATE)
    demo.input(picked, demo, shown, **_PRIVATE)


def _models(gradio: Any, names: list[str], label: str = "Model", place: int = 0) -> Any:
    return gradio.Dropdown(names, value=names[place % len(names)], label=label)


def _bound(function: Callable[..., str], contents: Contents) -> Callable[..., str]:
    return lambda *given: function(contents, *given)


def _timeline_tab(gradio: Any, contents: Contents, video: Any) -> None:
    with gradio.Tab("Timeline"):
        if not contents.able("segment"):
            gradio.HTML(markup.alert(contents.why_not("segment")))
            return
        model = _models(gradio, contents.able("segment"))
        labels = gradio.Textbox(label="Labels, one per line", lines=4, placeholder="pour water\nstir")
        button, result = gradio.Button("Show the timeline", variant="primary"), gradio.HTML(elem_id="mmpt-timeline")
        button.click(_bound(handlers.timeline, contents), [video, model, labels], result, **_ONE_AT_A_TIME)


def _search_tab(gradio: Any, contents: Contents, copies: Path, shown: list[Any]) -> None:
    with gradio.Tab("Search"):
        if not contents.indexes:
            gradio.HTML("<p>No index is open. Make one with <code>mmpt index FOLDER --model SOURCE --out INDEX</code>, "
                        "then start the page with <code>--index INDEX</code>.</p>")  # fmt: skip
            return
        index = _models(gradio, list(contents.indexes), "Index")
        with gradio.Row():
            text = gradio.Textbox(label="Text", placeholder="a red star falls", scale=3)
            image = gradio.File(label="or a picture (JPEG, PNG)", height=90, scale=2, elem_id="mmpt-picture")
        button = gradio.Button("Search", variant="primary", elem_id="mmpt-search")
        hits = gradio.State([])
        cards = gradio.HTML(elem_id="mmpt-hits", js_on_load=search_markup.ON_CLICK)

        def search(*given: Any) -> Any:
            return handlers.search(contents, *given)

        def pick(found: Any, event: Any) -> Any:
            yield from handlers.pick(contents, copies, found, int(event.hit))

        pick.__annotations__["event"] = gradio.EventData  # how gradio knows what to put there
        for asked in (button.click, text.submit):
            asked(search, [index, text, image], [hits, cards], **_ONE_AT_A_TIME)
        cards.click(pick, hits, shown, **_PRIVATE)


def _ask_tab(gradio: Any, contents: Contents, video: Any) -> None:
    with gradio.Tab("Ask"):
        if able := contents.able("answer", "choose"):
            model = _models(gradio, able)
            question = gradio.Textbox(label="Question", placeholder="what falls?")
            options = gradio.Textbox(label="Options, one per line (none: an open question)", lines=3)
            button, result = gradio.Button("Ask", variant="primary"), gradio.HTML(elem_id="mmpt-answers")
            given = [video, model, question, options]
            button.click(_bound(handlers.answer, contents), given, result, **_ONE_AT_A_TIME)
        else:
            gradio.HTML(markup.alert(contents.why_not("answer")))
        if able := contents.able("caption"):
            writer = _models(gradio, able, "Model that writes captions")
            write, written = gradio.Button("Write a caption"), gradio.HTML(elem_id="mmpt-caption")
            write.click(_bound(handlers.caption, contents), [video, writer], written, **_ONE_AT_A_TIME)


def _compare_tab(gradio: Any, contents: Contents, video: Any) -> None:
    with gradio.Tab("Compare"):
        able = contents.able("segment")
        if len(able) < 2:
            gradio.HTML("<p>Two models are compared: start the page with <code>--model NAME=SOURCE</code> twice.</p>")
            return
        with gradio.Row():
            first, second = (_models(gradio, able, f"Model {place + 1}", place) for place in (0, 1))
        labels = gradio.Textbox(label="Labels, one per line", lines=4)
        button, result = gradio.Button("Compare", variant="primary"), gradio.HTML(elem_id="mmpt-compare")
        given = [video, first, second, labels]
        button.click(_bound(handlers.compare, contents), given, result, **_ONE_AT_A_TIME)
