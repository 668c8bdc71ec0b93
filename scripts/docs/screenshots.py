"""Take the pictures of docs/page.md: the page with the models of ``make demo``, in headless Chromium.

    mmpt index data/demo/videos --model runs/demo/vtt --output runs/demo_index
    python scripts/docs/screenshots.py --index runs/demo_index

Run it in the folder in which ``make demo`` was run. Needs playwright (the ``dev`` extra) and Chromium.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.utils.files import REPOSITORY

SIZE = {"width": 1280, "height": 900}
LABELS = "\n".join(
    (
        "a red circle", "a blue circle", "a yellow square", "a green triangle",
        "a blue star", "a purple ring", "it spins", "it grows",
    )
)  # fmt: skip
QUESTION = "what is seen?"
MOST_BYTES = 150_000
_TO_THE_TOP = (
    "for (const each of [document.scrollingElement, ...document.querySelectorAll('textarea')]) each.scrollTop = 0"
)


@contextmanager
def served(options: argparse.Namespace) -> Iterator[str]:
    """Run ``mmpt app`` and yield its address."""
    argv = [sys.executable, "-m", "mmpt_cli.app", "--port", "0", "--json", "--demo-videos", options.videos]
    argv += [word for model in options.model for word in ("--model", model)] + ["--index", options.index]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as page:
        try:
            assert page.stdout is not None
            yield json.loads(page.stdout.readline())["address"]
        finally:
            page.terminate()


def pick(page: Any, video: str) -> None:
    """Pick a demo video and wait until it can be played."""
    # of many videos the list shows only some, until a part of the name is typed
    page.get_by_label("Pick a video").press_sequentially(video)
    page.get_by_role("option", name=video).click()
    page.wait_for_function("document.querySelector('#mmpt-player video')?.readyState >= 2")


def shoot(page: Any, folder: Path, name: str) -> None:
    """Write the picture of a tab."""
    file = folder / f"page_{name}.png"
    page.mouse.move(0, 0)
    page.evaluate(_TO_THE_TOP)
    page.wait_for_timeout(500)
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        few = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(file, optimize=True)
    print(f"{file}: {file.stat().st_size} bytes")
    assert file.stat().st_size < MOST_BYTES, "too large for the repository"


def take(page: Any, folder: Path, video: str) -> None:
    """Use the tabs one after another."""
    pick(page, video)
    page.get_by_label("Labels, one per line").first.fill(LABELS)
    page.get_by_role("button", name="Show the timeline").click()
    page.locator("#mmpt-timeline [data-seek]").nth(2).click()
    page.wait_for_timeout(800)
    page.evaluate("document.querySelector('#mmpt-player video').pause()")
    shoot(page, folder, "timeline")
    page.get_by_role("tab", name="Ask").click()
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.get_by_label("Options, one per line").fill(LABELS)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_selector("#mmpt-answers td")
    shoot(page, folder, "ask")
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("Labels, one per line").last.fill("a circle\na square\na triangle\na star")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("#mmpt-compare img >> nth=1")
    page.set_viewport_size({**SIZE, "height": 1200})
    shoot(page, folder, "compare")
    page.set_viewport_size(SIZE)
    page.get_by_role("tab", name="Search").click()
    page.get_by_label("Text", exact=True).fill("the blue star is whirling about")
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator("#mmpt-hits [data-hit]").nth(1).click()
    page.wait_for_function("document.querySelector('#mmpt-player video')?.currentTime > 1")
    page.evaluate("document.querySelector('#mmpt-player video').pause()")
    shoot(page, folder, "search")


def main() -> int:
    """Take the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=SOURCE", help="two, to compare")
    parser.add_argument("--index", required=True, metavar="DIR", help="an index of mmpt index")
    parser.add_argument("--videos", default="data/demo/videos", metavar="DIR", help="folder of videos to pick from")
    parser.add_argument("--video", default="steps_test_0000.mp4", help="the one to pick")
    parser.add_argument("--out", default=str(REPOSITORY / "docs/images"), metavar="DIR", help="where the pictures go")
    options = parser.parse_args()
    options.model = options.model or ["tuned=runs/demo/vtt", "pretrained=runs/demo"]
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with served(options) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.set_default_timeout(120_000)
        page.goto(address)
        take(page, Path(options.out), options.video)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
