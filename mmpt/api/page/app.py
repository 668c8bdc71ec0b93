"""The page put together: a video at the left, what models say of it at the right; and its server."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmpt.api.page import handlers, markup
from mmpt.api.page.contents import Contents
from mmpt.api.page.guard import Guard
from mmpt.api.page.intake import ChosenVideo, choose_video
from mmpt.utils.errors import ConfigError, MMPTError
from mmpt.utils.extras import require

__all__ = ["LOCAL_HOSTS", "build_app", "listen"]

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_FONTS = ["system-ui", "sans-serif"]
#: One call of a model at a time, whatever tab it is from.
_ONE_AT_A_TIME = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}


def build_app(contents: Contents, uploads: Path, host: str = "127.0.0.1") -> Any:
    """Return the ASGI application; ``uploads`` is the folder of what visitors upload.

    Raises:
        MissingExtraError: if gradio is not installed.
    """
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(uploads), HF_HUB_OFFLINE="1")
    gradio = require("gradio", "app")
    fastapi = require("fastapi", "app")
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/media/{token}")
    def media(token: str) -> Any:
        try:
            return fastapi.responses.FileResponse(contents.shelf.path_of(token))
        except MMPTError as error:
            return fastapi.responses.PlainTextResponse(str(error), status_code=404)

    theme = gradio.themes.Default(font=_FONTS, font_mono=["ui-monospace", "monospace"])
    gradio.mount_gradio_app(
        app, _blocks(gradio, contents), path="/", theme=theme, head=markup.SCRIPT, ssr_mode=False, footer_links=[],
        run_history=False, enable_monitoring=False, max_file_size=f"{contents.max_upload_mb}mb", allowed_paths=[],
    )  # fmt: skip
    hosts = LOCAL_HOSTS | {host} if host in LOCAL_HOSTS else None
    return Guard(app, uploads, contents.max_upload_mb << 20, hosts)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        ConfigError: if the port is taken or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(f"{host}:{port}: {error.strerror or error}. Choose another with --port") from error
    return listening


def _blocks(gradio: Any, contents: Contents) -> Any:
    with gradio.Blocks(title="MMPT", analytics_enabled=False) as blocks:
        gradio.Markdown("# MMPT\nA video at the left, what models say of it at the right. Nothing leaves this machine.")
        video = gradio.State(None)
        with gradio.Row():
            with gradio.Column(scale=2):
                _chooser(gradio, contents, video)
            with gradio.Column(scale=3), gradio.Tabs():
                _timeline_tab(gradio, contents, video)
                _ask_tab(gradio, contents, video)
                _compare_tab(gradio, contents, video)
                with gradio.Tab("About"):
                    gradio.HTML(markup.about(contents))
    return blocks.queue(max_size=16, default_concurrency_limit=4)


def _chooser(gradio: Any, contents: Contents, video: Any) -> None:
    upload = gradio.File(label=f"Upload a video (at most {contents.max_upload_mb} MB)", height=120)
    demo = gradio.Dropdown(list(contents.demo), value=None, label="or pick a demo video", visible=bool(contents.demo))
    shown = gradio.HTML("<p>No video is chosen.</p>", elem_id="mmpt-player")

    def choose(path: Any, name: str) -> tuple[ChosenVideo | None, str]:
        try:
            chosen = choose_video(path, name, contents.shelf, contents.max_seconds)
        except MMPTError as error:
            return None, markup.alert(str(error))
        return chosen, markup.player(chosen)

    upload.upload(
        lambda path: choose(path, Path(path).name), upload, [video, shown], api_visibility="private"
    )  # fmt: skip
    demo.input(lambda name: choose(contents.demo[name], name), demo, [video, shown], api_visibility="private")


def _models(gradio: Any, contents: Contents, call: str, label: str = "Model", place: int = 0) -> Any:
    names = contents.able(call)
    return gradio.Dropdown(names, value=names[place % len(names)], label=label)


def _bound(function: Callable[..., str], contents: Contents) -> Callable[..., str]:
    return lambda *given: function(contents, *given)


def _missing(gradio: Any, call: str) -> None:
    gradio.HTML(markup.alert(f"No loaded model has the call {call!r}; mmpt app --model can load several."))


def _timeline_tab(gradio: Any, contents: Contents, video: Any) -> None:
    with gradio.Tab("Timeline"):
        if not contents.able("segment"):
            _missing(gradio, "segment")
            return
        model = _models(gradio, contents, "segment")
        labels = gradio.Textbox(label="Labels, one per line", lines=4, placeholder="pour water\nstir")
        button, result = gradio.Button("Show the timeline", variant="primary"), gradio.HTML(elem_id="mmpt-timeline")
        button.click(_bound(handlers.timeline, contents), [video, model, labels], result, **_ONE_AT_A_TIME)


def _ask_tab(gradio: Any, contents: Contents, video: Any) -> None:
    with gradio.Tab("Ask"):
        asked = contents.able("answer") or contents.able("choose")
        if asked:
            model = _models(gradio, contents, "answer" if contents.able("answer") else "choose")
            question = gradio.Textbox(label="Question", placeholder="what falls?")
            options = gradio.Textbox(label="Options, one per line (none: an open question)", lines=3)
            button, result = gradio.Button("Ask", variant="primary"), gradio.HTML(elem_id="mmpt-answers")
            given = [video, model, question, options]
            button.click(_bound(handlers.answer, contents), given, result, **_ONE_AT_A_TIME)
        else:
            _missing(gradio, "answer")
        if contents.able("caption"):
            writer = _models(gradio, contents, "caption", "Model that writes captions")
            write, written = gradio.Button("Write a caption"), gradio.HTML()
            write.click(_bound(handlers.caption, contents), [video, writer], written, **_ONE_AT_A_TIME)


def _compare_tab(gradio: Any, contents: Contents, video: Any) -> None:
    with gradio.Tab("Compare"):
        if len(contents.able("segment")) < 2:
            _missing(gradio, "segment")
            return
        first, second = (_models(gradio, contents, "segment", f"Model {place + 1}", place) for place in (0, 1))
        labels = gradio.Textbox(label="Labels, one per line", lines=4)
        button, result = gradio.Button("Compare", variant="primary"), gradio.HTML(elem_id="mmpt-compare")
        given = [video, first, second, labels]
        button.click(_bound(handlers.compare, contents), given, result, **_ONE_AT_A_TIME)
