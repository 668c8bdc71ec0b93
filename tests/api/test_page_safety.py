"""The page serves and takes only what is its own."""

import json
import os
import time
from pathlib import Path

import pytest

from mmpt.api.page.guard import Guard, paths_named
from mmpt.api.page.intake import choose_video
from mmpt.api.page.shelf import Shelf
from mmpt.api.page.sweeping import sweep
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


def test_old_files_go_and_the_oldest_beyond_the_most(tmp_path: Path) -> None:
    now = time.time()
    for age, name in ((5, "a/new"), (50, "a/b/middle"), (500, "old"), (5000, "a/oldest")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (now - age, now - age))
    assert sweep(tmp_path, 10, 1000) == 1 and not (tmp_path / "a/oldest").exists()
    assert sweep(tmp_path, 2, 1000) == 1 and not (tmp_path / "old").exists()
    assert sweep(tmp_path, 2, 1000) == 0 and (tmp_path / "a/b/middle").exists()
