"""The page in a headless browser, with a model of known scores."""

import os
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.api.page.app import build_app, listen
from mmpt.api.page.contents import Contents
from mmpt.store.images import encode_jpeg
from tests.api.fake_page import make_page, write_video

pytestmark = pytest.mark.browser
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
              "--disable-component-update", "--disable-sync")  # fmt: skip
_VIDEO = "document.querySelector('#mmpt-player video')"


@contextmanager
def serving(app: Any) -> Iterator[str]:
    import uvicorn

    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contents]:
    kept = dict(os.environ)
    yield make_page(tmp_path_factory.mktemp("page"))
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture(scope="module")
def address(contents: Contents) -> Iterator[str]:
    with serving(build_app(contents, Path(contents.shelf.roots[0]))) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(address: str, browser: Any) -> Iterator[Any]:
    """The page as it is opened anew; whatever a test does, nothing else is asked for anything."""
    page, asked = browser.new_page(), []
    page.set_default_timeout(60000)  # other tests run beside
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    page.close()


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def pick(page: Any, name: str) -> None:
    page.get_by_label("Pick a video").click()
    page.get_by_role("option", name=name).click()
    page.wait_for_function(f"{_VIDEO}?.readyState >= 1")


def test_upload_timeline_and_play_position(page: Any, tmp_path: Path) -> None:
    page.set_input_files("#mmpt-upload input[type=file]", write_video(tmp_path / "holiday.mp4", 8))
    page.wait_for_function(f"{_VIDEO}?.readyState >= 1")
    assert "holiday.mp4 · 8.0 s" in page.inner_text("#mmpt-player")
    page.get_by_label("Labels, one per line").first.fill("red\nblue\ngreen\ngrey")
    page.get_by_role("button", name="Show the timeline").click()
    page.get_by_role("button", name="2.0 – 4.0 s").click()
    page.wait_for_function(f"{_VIDEO}.currentTime >= 2")
    assert page.evaluate(f"{_VIDEO}.currentTime") < 5
    axis = page.locator("#mmpt-timeline [data-from]")
    box = axis.bounding_box()
    axis.click(position={"x": box["width"] * 0.75, "y": 20})
    page.wait_for_function(f"{_VIDEO}.currentTime >= 5.9")
    page.wait_for_function("document.querySelector('.mmpt-now').offsetLeft > 0")


def test_a_broken_file_is_a_message(page: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 99)
    page.set_input_files("#mmpt-upload input[type=file]", tmp_path / "broken.mp4")
    assert "broken.mp4" in page.locator("#mmpt-player [role=alert]").inner_text()


def test_a_hit_of_a_search_is_played_at_its_time(page: Any, tmp_path: Path) -> None:
    open_tab(page, "Search")
    page.get_by_label("Text", exact=True).fill("part 5")
    page.get_by_role("button", name="Search", exact=True).click()
    card = page.locator("#mmpt-hits [data-hit]").first
    assert re.search(r"00:10\.0 – 00:12\.0\s*1\.000\s*long\.avi", card.inner_text())
    assert card.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    card.click()
    page.wait_for_function(f"{_VIDEO}?.currentTime >= 10")  # an AVI: what plays is a copy
    assert page.evaluate(f"{_VIDEO}.currentTime") < 14
    picture = tmp_path / "star.jpg"
    picture.write_bytes(encode_jpeg(np.zeros((32, 32, 3), np.uint8)))
    page.get_by_label("Text", exact=True).fill("")
    page.set_input_files("#mmpt-picture input[type=file]", picture)
    page.get_by_text("star.jpg").wait_for()
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator("#mmpt-hits [data-hit='0']", has_text="00:12.0 – 00:14.0").wait_for()


@pytest.mark.parametrize("width", [1000, 390])
def test_the_player_stays_in_view_over_what_is_scrolled(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 500})
    pick(page, "short.mp4")
    open_tab(page, "Search")
    page.get_by_label("Text", exact=True).fill("part 5")
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator("#mmpt-hits [data-hit]").nth(5).wait_for()
    assert page.evaluate("window.innerHeight + 300 < document.documentElement.scrollHeight")
    scrolled, player = page.locator("#mmpt-hits [data-hit='5']"), page.locator("#mmpt-player")
    page.evaluate("top => window.scrollBy(0, top - 60)", scrolled.bounding_box()["y"])
    assert player.bounding_box()["y"] > -1 and player.locator("video").bounding_box()["y"] < 60
    if width < 820:  # the columns stand one above the other: the player hides what is scrolled, gradio's labels too
        box = scrolled.bounding_box()
        covering = "([x, y]) => document.elementFromPoint(x, y).closest('#mmpt-player') !== null"
        assert page.evaluate(covering, [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
        layer = "element => Number(getComputedStyle(element).zIndex)"
        assert player.evaluate(layer) > page.locator("#mmpt-picture label").first.evaluate(layer) > 0
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_copy_shows_at_a_time_what_the_video_has_there(page: Any) -> None:
    pick(page, "long.avi")
    assert "copy" in page.inner_text("#mmpt-player")
    seen = page.evaluate(f"""async () => {{
        const video = {_VIDEO}, seen = [];
        for (const second of [9.5, 2.5, 5.1]) {{
            await new Promise((done) => {{ video.onseeked = done; video.currentTime = second; }});
            const canvas = document.createElement('canvas');
            canvas.width = canvas.height = 1;
            canvas.getContext('2d').drawImage(video, 0, 0, 1, 1);
            seen.push(canvas.getContext('2d').getImageData(0, 0, 1, 1).data[0]);
        }}
        return seen;
    }}""")
    np.testing.assert_allclose(seen, [180, 40, 100], atol=8)  # 20 for each second


def test_answers_comparison_and_what_is_loaded(page: Any) -> None:
    pick(page, "short.mp4")
    open_tab(page, "Ask")
    page.get_by_label("Question", exact=True).fill("what falls?")
    page.get_by_role("button", name="Ask", exact=True).click()
    assert "75.0 %" in page.locator("#mmpt-answers table").inner_text()
    open_tab(page, "Compare")
    page.get_by_label("Labels, one per line").last.fill("red\nblue")
    page.get_by_role("button", name="Compare").click()
    page.locator("#mmpt-compare img").nth(1).wait_for()
    assert page.locator("#mmpt-compare h3").all_inner_texts() == ["one", "two"]
    open_tab(page, "About")
    told = page.inner_text("#mmpt-about")
    assert "VideoCLIP" in told and "runs/fake" not in told and "model three: <no>" in told and "200 MB" in told


def test_behind_a_proxy(contents: Contents, browser: Any) -> None:
    """The proxy shows the page below a path, under another name, and hands on requests without both."""
    inner = build_app(contents, Path(contents.shelf.roots[0]), allowed_hosts=["localhost"], root_path="/mmpt")

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith("/mmpt"), scope["path"]
            headers = [pair for pair in scope["headers"] if pair[0] != b"host"]
            named = dict(scope["headers"])[b"host"]
            headers += [(b"host", b"127.0.0.1:7860"), (b"x-forwarded-host", named), (b"x-forwarded-proto", b"http")]
            scope = {**scope, "path": scope["path"].removeprefix("/mmpt") or "/", "headers": headers}
        await inner(scope, receive, send)

    with serving(proxy) as outside:
        page = browser.new_page()
        page.goto(f"{outside.replace('127.0.0.1', 'localhost')}/mmpt/")
        pick(page, "short.mp4")
        page.close()


def test_other_names_of_hosts_are_refused(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(f"{address}/config", headers={"Host": "evil.example"}))


@pytest.mark.parametrize("path", ["gradio_api/file=/etc/passwd", "gradio_api/file=%2e%2e/%2e%2e/etc/passwd", "media/x"])
def test_files_outside_are_refused(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}/{path}")
    assert caught.value.code in (403, 404)


@pytest.mark.parametrize("name", ["mmpt-upload", "mmpt-picture"])
def test_the_label_of_a_box_covers_nothing_and_its_text_has_room(page: Any, name: str) -> None:
    open_tab(page, "Search")
    page.locator(f"#{name} .icon-wrap").wait_for()
    label, icon, box = (page.locator(f"#{name}{place}").first.bounding_box() for place in (" label", " .icon-wrap", ""))
    end = page.locator(f"#{name} button .wrap").evaluate("""element => {
        const range = document.createRange();
        range.selectNodeContents(element);
        return Math.max(...Array.from(range.getClientRects(), (each) => each.bottom));
    }""")
    assert label["y"] + label["height"] <= icon["y"]
    assert end <= box["y"] + box["height"] - 8
