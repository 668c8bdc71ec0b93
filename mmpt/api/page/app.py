"""The page's server: what is asked is judged by the guard, then answered by gradio or from the shelf."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpt.api.page.contents import Contents
from mmpt.api.page.guard import Guard
from mmpt.api.page.look import HEAD
from mmpt.api.page.sweeping import Room
from mmpt.api.page.tabs import blocks
from mmpt.utils.errors import ConfigError, MMPTError
from mmpt.utils.extras import require

__all__ = ["LOCAL_HOSTS", "build_app", "listen"]

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_FONTS = ["system-ui", "sans-serif"]


def build_app(
    contents: Contents,
    uploads: Path,
    host: str = "127.0.0.1",
    allowed_hosts: Sequence[str] = (),
    root_path: str = "",
) -> Any:
    """Return the ASGI application.

    Args:
        contents: of the page.
        uploads: folder of what visitors upload, and of what is made of it.
        host: address that the page listens at.
        allowed_hosts: names under which it is asked for besides: those of a reverse proxy.
        root_path: below which a reverse proxy shows it, such as ``/mmpt``.

    Raises:
        MissingExtraError: if gradio is not installed.
    """
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(uploads), HF_HUB_OFFLINE="1")
    gradio = require("gradio", "app")
    fastapi = require("fastapi", "app")
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    most = contents.limits

    @app.get("/media/{token}")
    def media(token: str) -> Any:
        try:
            path = contents.shelf.path_of(token)
        except MMPTError as error:
            return fastapi.responses.PlainTextResponse(str(error), status_code=404)
        return fastapi.responses.FileResponse(path, media_type="video/webm" if path.suffix == ".webm" else "video/mp4")

    copies = uploads / "copies"
    copies.mkdir(exist_ok=True)
    theme = gradio.themes.Default(primary_hue="blue", font=_FONTS, font_mono=["ui-monospace", "monospace"])
    gradio.mount_gradio_app(
        app, blocks(gradio, contents, copies), path="/", theme=theme, head=HEAD, ssr_mode=False, footer_links=[],
        run_history=False, enable_monitoring=False, max_file_size=f"{most.upload_mb}mb", allowed_paths=[],
        root_path=root_path or None,
    )  # fmt: skip
    hosts = LOCAL_HOSTS | {host} if host in LOCAL_HOSTS else frozenset()
    room = Room(uploads, most.uploads, most.total_mb << 20, 60 * most.keep_minutes)
    return Guard(app, uploads, most.upload_mb << 20, hosts, frozenset(allowed_hosts), room)


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
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(
            f"{host}:{port}: {getattr(error, 'strerror', None) or error}. See --host and --port"
        ) from error
    return listening
