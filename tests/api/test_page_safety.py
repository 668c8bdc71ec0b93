"""The page serves and takes only what is its own."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mmpt.api.page.guard import Guard, paths_named
from mmpt.api.page.intake import choose_video
from mmpt.api.page.shelf import Shelf
from mmpt.api.page.sweeping import Room
from mmpt.utils.errors import DataError, UnsafePathError
from tests.api.fake_page import write_video


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads/mine.mp4").write_bytes(b"x")
    return Guard(None, tmp_path / "uploads", 10 << 20, frozenset({"localhost", "127.0.0.1"}))


HOST = {"host": "127.0.0.1:7860"}


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../etc/passwd",
        "/gradio_api/file=http://example.org/a",
        "/gradio_api/proxy=http://example.org/a",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/deep_link",
        "/gradio_api/vibe-code",
        "/assets/../../etc/passwd",
        "/monitoring",
    ],
)
def test_other_requests_are_refused(guard: Guard, path: str) -> None:
    assert guard.judge("GET", path, HOST)[0] in (403, 404)


def test_own_requests_pass(guard: Guard) -> None:
    assert guard.judge("GET", "/", HOST) == (0, "")
    assert guard.judge("GET", f"/gradio_api/file={guard.uploads}/mine.mp4", HOST) == (0, "")
    assert guard.judge("POST", "/gradio_api/upload", {**HOST, "content-length": "100"}) == (0, "")


def test_paths_out_of_uploads_are_refused(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    os.symlink(tmp_path / "secret", tmp_path / "uploads/link")
    for path in (f"{guard.uploads}/link", f"{guard.uploads}/../secret", f"{guard.uploads}/no", guard.uploads):
        assert not guard.is_upload(path)


def test_foreign_hosts_sites_and_sizes(guard: Guard) -> None:
    assert guard.judge("GET", "/", {"host": "evil.example"})[0] == 403
    sized = {**HOST, "content-length": "10"}
    assert guard.judge("POST", "/gradio_api/queue/join", {**sized, "origin": "http://evil.example"})[0] == 403
    assert guard.judge("POST", "/gradio_api/upload", HOST)[0] == 411
    assert guard.judge("POST", "/gradio_api/upload", {**HOST, "content-length": str(12 << 20)})[0] == 413


def test_paths_named_at_any_depth() -> None:
    body = {"data": [{"path": "http://example.org"}, [{"a": {"path": "/etc/passwd"}}]], "path": 3}
    assert set(paths_named(json.dumps(body).encode())) == {"http://example.org", "/etc/passwd"}


def test_shelf_refuses_links_that_lead_out(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "secret").write_text("s")
    shelf = Shelf(tmp_path / "videos")
    file = tmp_path / "videos/a.mp4"
    file.write_bytes(b"x")
    token = shelf.add(file, "a.mp4")
    assert shelf.path_of(token) == file and shelf.add(file, "a.mp4") == token
    file.unlink()
    with pytest.raises(DataError, match="again"):
        shelf.path_of(token)
    file.symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafePathError):
        shelf.path_of(token)
    with pytest.raises(UnsafePathError):
        shelf.add(tmp_path / "secret", "secret")


def test_videos_are_known_by_their_content(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    video = choose_video(write_video(tmp_path / "a.mp4", 3), "holiday.mp4", shelf, 10)
    assert (video.name, video.codec, video.played) == ("holiday.mp4", "h264", video.token)
    assert video.seconds == pytest.approx(3, abs=0.3)
    with pytest.raises(DataError, match=r"^holiday\.mp4: lasts 3 s"):
        choose_video(tmp_path / "a.mp4", "holiday.mp4", shelf, 2)
    (tmp_path / "broken.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises(DataError, match=r"^mine\.mp4") as caught:
        choose_video(tmp_path / "broken.mp4", "mine.mp4", shelf, 10)
    assert str(tmp_path) not in str(caught.value)


def test_pages_of_a_proxy_may_send_and_others_may_not(guard: Guard) -> None:
    proxied = Guard(None, Path(guard.uploads), 1, guard.hosts, frozenset({"lab.example"}))
    sized = {**HOST, "content-length": "10"}
    for given, status in (
        ({**sized, "origin": "https://lab.example"}, 0),
        ({**sized, "host": "lab.example", "origin": "https://lab.example:8443"}, 0),
        ({**sized, "origin": "http://127.0.0.1:9999"}, 403),
        ({**sized, "origin": "https://lab.example.evil.example"}, 403),
        ({**sized, "origin": "null"}, 403),
        ({**sized, "host": "[::1", "origin": "http://[::1"}, 403),
    ):
        assert proxied.judge("POST", "/gradio_api/queue/join", given)[0] == status, given


def write(folder: Path, name: str, age: float, size: int = 10) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_old_files_go_and_the_oldest_beyond_the_most(tmp_path: Path) -> None:
    for age, name in ((5, "a/new"), (50, "a/b/middle"), (500, "old"), (5000, "a/oldest")):
        write(tmp_path, name, age)
    assert Room(tmp_path, 10, 1000, 1000).sweep() == 1 and not (tmp_path / "a/oldest").exists()
    assert Room(tmp_path, 2, 1000, 1000).sweep() == 1 and not (tmp_path / "old").exists()
    assert Room(tmp_path, 2, 1000, 1000).sweep() == 0 and (tmp_path / "a/b/middle").exists()
    assert Room(tmp_path, 2, 15, 1000).sweep() == 1 and (tmp_path / "a/new").exists()


def upload(room: Room, visitor: str, name: str, size: int, age: float) -> bool:
    if not room.enter(visitor, size):
        return False
    room.leave(visitor, size, [str(write(room.folder, name, age, size))])
    return True


def test_who_uploads_much_pushes_out_his_own(tmp_path: Path) -> None:
    room = Room(tmp_path, 5, 10**6, 10**6)
    assert upload(room, "quiet", "quiet", 10, age=10000)
    for number in range(20):
        assert upload(room, "loud", f"loud{number}", 10, age=1000 - number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loud16", "loud17", "loud18", "loud19", "quiet"]
    assert upload(room, "quiet", "second", 10, age=1)  # there is room for him: of who holds more
    assert (tmp_path / "quiet").exists() and not (tmp_path / "loud16").exists()


def test_all_bytes_together_are_bounded(tmp_path: Path) -> None:
    room = Room(tmp_path, 100, 100, 10**6)
    for visitor in ("a", "b", "c"):
        assert upload(room, visitor, visitor, 30, age=9)
    assert not room.enter("d", 40)  # nobody holds more than he would
    assert upload(room, "a", "again", 30, age=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "b", "c"]
    assert not room.enter("a", 101) and (tmp_path / "again").exists()  # nothing goes for what is refused
    write(tmp_path, "copies/copy.mp4", 1, 200)
    assert room.sweep() == 1 and (tmp_path / "b").exists()  # the largest goes, which can be made again
    assert room.enter("d", 10) and not room.enter("e", 91)  # one is under way


def asked(guard: Guard, body: bytes, client: str = "10.0.0.1") -> int:
    headers = [(b"host", b"127.0.0.1:7860"), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": headers, "client": (client, 9)}
    answered: list[Any] = []

    async def send(message: Any) -> None:
        answered.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    asyncio.run(guard(scope, receive, send))
    return int(answered[0]["status"])


def test_the_guard_notes_whose_an_upload_is(tmp_path: Path) -> None:
    names = iter(["one/a.mp4", "two/b.mp4", "three/c.mp4"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = write(tmp_path, next(names), 0, 60)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps([str(path)]).encode()})

    guard = Guard(app, tmp_path, 10 << 20, room=Room(tmp_path, 10, 100, 10**6))
    assert asked(guard, b"x" * 60) == 200
    assert asked(guard, b"x" * 60, "10.0.0.2") == 507 and (tmp_path / "one/a.mp4").exists()
    assert asked(guard, b"x" * 60) == 200 and not (tmp_path / "one/a.mp4").exists()
