"""The page in a headless browser, with a model of known scores."""

import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpt.api.page.app import build_app, listen
from mmpt.api.page.contents import Contents
from mmpt.api.page.shelf import Shelf
from tests.api.test_page_handlers import FakePipeline
from tests.api.test_page_safety import write_video

pytestmark = pytest.mark.browser
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
              "--disable-component-update", "--disable-sync")  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import uvicorn

    kept = dict(os.environ)
    uploads = tmp_path_factory.mktemp("uploads")
    models: Any = {"one": FakePipeline(), "two": FakePipeline()}
    app = build_app(Contents(models, Shelf(uploads)), uploads)
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield browser
        browser.close()


def test_upload_timeline_and_play_position(address: str, browser: Any, tmp_path: Path) -> None:
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.set_input_files("input[type=file] >> nth=0", write_video(tmp_path / "holiday.mp4", 6))
    page.wait_for_selector("#mmpt-player video", timeout=15000)
    page.get_by_label("Labels, one per line").first.fill("red\nblue")
    page.get_by_role("button", name="Show the timeline").click()
    page.get_by_role("button", name="2.0 – 4.0 s").click()
    page.wait_for_function("document.querySelector('#mmpt-player video').currentTime >= 2", timeout=15000)
    assert page.evaluate("document.querySelector('#mmpt-player video').currentTime") < 5
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    page.close()


def test_a_broken_file_is_a_message(address: str, browser: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 99)
    page = browser.new_page()
    page.goto(address)
    page.set_input_files("input[type=file] >> nth=0", tmp_path / "broken.mp4")
    assert "broken.mp4" in page.locator("#mmpt-player [role=alert]").inner_text(timeout=15000)
    page.close()


@pytest.mark.parametrize("path", ["gradio_api/file=/etc/passwd", "gradio_api/file=%2e%2e/%2e%2e/etc/passwd", "media/x"])
def test_files_outside_are_refused(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}/{path}")
    assert caught.value.code in (403, 404)
