"""The site builds without a warning, from nothing but this repository, and its links lead somewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from mmpt.utils.files import REPOSITORY

pytest.importorskip("sphinx")
pytest.importorskip("furo")
pytest.importorskip("myst_parser")
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """Anchors of an HTML page, what it links to, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value for key, value in attrs if value}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.loads += [given[key] for key in ("src", "href") if key in given and tag in ("script", "link", "img")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "2", "-b", "html", "-c", "docs", "-d"]
    argv += [str(folder / "doctrees"), ".", str(folder / "html")]
    result = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder / "html"


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 40
    for path, page in pages.items():
        for link in page.links:
            target, _, anchor = unquote(link).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            other = (path.parent / target).resolve() if target else path
            assert other.is_file(), f"{path}: {link}"
            assert not anchor or other not in pages or anchor in pages[other].anchors, f"{path}: {link}"


def test_nothing_is_loaded_from_the_web(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert not [load for load in Page(path).loads if re.match(r"(https?:)?//", load)], path
    for path in (site / "_static").rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_the_api_pages_have_the_docstrings(site: Path) -> None:
    text = (site / "docs/api/models.html").read_text(encoding="utf-8")
    assert "mmpt.models.base.VideoTextModel.encode_video" in text and "true where a second is real" in text
