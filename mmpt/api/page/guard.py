"""What reaches the page's server: only the requests that the page itself makes.

Gradio's server can do more than the page needs: fetch addresses for a visitor, answer proxies, serve its whole cache.
Everything that is not named here is refused before Gradio sees it.
"""

import json
import os
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmpt.api.page.sweeping import Room

__all__ = ["CONTENT_POLICY", "Guard", "paths_named"]

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

#: The browser itself refuses every other host.
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)
_PAGES = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json"})
_READ = ("/assets/", "/static/", "/media/", "/gradio_api/heartbeat/", "/gradio_api/queue/data")
_READ_EXACT = frozenset({"/gradio_api/upload_progress", "/gradio_api/startup-events", "/gradio_api/info"})
_FILE = "/gradio_api/file="
_WRITTEN = frozenset({"/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset"})
_MOST_JSON = 1 << 20


class Guard:
    """ASGI middleware.

    Args:
        app: what answers what may pass.
        uploads: the one folder that Gradio serves from and takes files from.
        most_bytes: of an upload.
        hosts: names that the page may be asked for under; none, here and in ``proxied``: any.
        proxied: more of them, those of reverse proxies, whose pages may send to this one too.
        room: for what is uploaded; None: without end.
    """

    def __init__(
        self,
        app: Any,
        uploads: Path,
        most_bytes: int,
        hosts: frozenset[str] = frozenset(),
        proxied: frozenset[str] = frozenset(),
        room: Room | None = None,
    ) -> None:
        self.app, self.uploads, self.most_bytes = app, os.path.realpath(uploads), most_bytes
        self.hosts, self.proxied, self.room = hosts | proxied, proxied, room

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in scope["headers"]}
        status, reason = self.judge(scope["method"], scope["path"], headers)
        if not status and scope["method"] == "POST" and scope["path"] != "/gradio_api/upload":
            body = await _whole_body(receive)
            receive = _again(body, receive)
            if not all(self.is_upload(path) for path in paths_named(body)):
                status, reason = 403, "names a file that was not uploaded here"
        if status:
            await _answer(send, status, reason)
            return
        if scope["path"] == "/gradio_api/upload" and self.room is not None:
            await self._take(self.room, int(headers["content-length"]), scope, receive, send)
            return
        await self.app(scope, receive, _with_policy(send))

    async def _take(self, room: Room, size: int, scope: Message, receive: Receive, send: Send) -> None:
        """Pass an upload on if there is room for it, and note whose it is: that of the address it came from."""
        visitor = (scope.get("client") or ["unknown"])[0]
        if not room.enter(visitor, size):
            await _answer(send, 507, "this page holds as many files as it may: try again later")
            return
        parts: list[bytes] = []

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, _with_policy(noting))
        finally:
            room.leave(visitor, size, [path for path in _listed(b"".join(parts)) if self.is_upload(path)])

    def judge(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """Return (0, "") for a request that may pass, else the status and the reason of the refusal."""
        host = headers.get("host", "")
        if self.hosts and _hostname(f"//{host}") not in self.hosts:
            return 403, "this address is not one that the page was started for"
        origin = headers.get("origin")
        if method == "POST" and origin is not None and not self._is_own(origin, host):
            return 403, "asked for by the page of another site"
        if method in ("GET", "HEAD"):
            if path.startswith(_FILE):
                return (0, "") if self.is_upload(path[len(_FILE) :]) else (403, "not a file of this page")
            known = path in _PAGES or path in _READ_EXACT or path.startswith(_READ)
            return (0, "") if known and ".." not in path else (404, "there is no such page")
        if method != "POST" or path not in _WRITTEN:
            return 404, "there is no such page"
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return 411, "the request does not say how long it is"
        most = self.most_bytes + _MOST_JSON if path == "/gradio_api/upload" else _MOST_JSON
        return (0, "") if int(length) <= most else (413, f"too large: at most {self.most_bytes >> 20} MB")

    def _is_own(self, origin: str, host: str) -> bool:
        return origin.partition("://")[2] == host or _hostname(origin) in self.proxied

    def is_upload(self, path: str) -> bool:
        """Tell whether a path, links followed, is a file below the folder of uploads."""
        if "\0" in path or not os.path.isabs(path):
            return False
        return os.path.realpath(path).startswith(self.uploads + os.sep) and os.path.isfile(path)


def _hostname(url: str) -> str:
    """Return the name of the host of an address; that of one that is none is empty."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def paths_named(body: bytes) -> Iterator[str]:
    """Yield what a JSON document calls ``path``, at any depth: the files that Gradio would open, or fetch."""
    try:
        left = [json.loads(body)] if body else []
    except (ValueError, RecursionError):
        return
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(value.get("path"), str):
                yield value["path"]
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _listed(body: bytes) -> list[str]:
    """Return the texts of a JSON list: where Gradio says that it has put an upload."""
    try:
        found = json.loads(body)
    except ValueError:
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


async def _whole_body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives a body that was read already, then goes on as before."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return left.pop() if left else await receive()

    return next_message


def _with_policy(send: Send) -> Send:
    added = [(b"content-security-policy", CONTENT_POLICY.encode()), (b"x-content-type-options", b"nosniff")]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
