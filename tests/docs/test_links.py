"""Links of the pages: the built-in ones have their anchors, the external ones are listed."""

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from mmpt.utils.files import REPOSITORY
from tests.test_readme import LINK, PAGES

LISTED = Path("docs/external_links.md")
_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")


@cache
def prose(page: Path) -> str:
    """The text of a page without its code, of blocks and within lines."""
    return _FENCE.sub("", (REPOSITORY / page).read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that a code host makes of a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        found.add(next(name for name in (slug, *(f"{slug}-{n}" for n in range(1, 99))) if name not in found))
    return found


def external_links() -> dict[str, set[str]]:
    """Address -> pages that name it."""
    found = defaultdict(set)
    for page in PAGES:
        if page != LISTED:
            for address in re.findall(r"https?://[^\s)>\"'`|]+", prose(page)):
                if "//127.0.0.1" not in address:
                    found[address.rstrip(".,;:")].add(str(page))
    return found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_anchors_exist(page: Path) -> None:
    for match in LINK.finditer(_CODE.sub("", prose(page))):
        target, _, anchor = match["target"].partition("#")
        if anchor and not re.match(r"[a-z]+:", target):
            other = (REPOSITORY / page).parent.joinpath(target).resolve() if target else REPOSITORY / page
            assert anchor in anchors(other.relative_to(REPOSITORY)), match["target"]


def test_external_links_are_listed() -> None:
    rows = re.findall(r"^\| <(\S+)> \| (.*) \|$", (REPOSITORY / LISTED).read_text(encoding="utf-8"), re.MULTILINE)
    wanted = {address: ", ".join(sorted(pages)) for address, pages in sorted(external_links().items())}
    assert dict(rows) == wanted, "\n".join(f"| <{address}> | {pages} |" for address, pages in wanted.items())
