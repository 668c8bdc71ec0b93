"""docs/data.md: its trees have every file that the shipped task files name, and those of the tiny data."""

import re
from collections.abc import Iterator
from pathlib import Path

from mmpt.utils.files import REPOSITORY

PAGE = (REPOSITORY / "docs/data.md").read_text(encoding="utf-8")
#: Of jobs that prepare data of one's own, under names that are to be replaced.
PLACEHOLDERS = re.compile(r"data/(feat|frames|how2|segments|tokenizer\w*|transcripts|videos|vq|msrvtt)")


def expanded(path: str) -> Iterator[str]:
    """Yield the paths that braces stand for."""
    found = re.search(r"\{([^{}]*)\}", path)
    if found is None:
        yield path
        return
    for choice in found[1].split(","):
        yield from expanded(path[: found.start()] + choice + path[found.end() :])


def tree() -> set[str]:
    """The files and folders of the page's trees."""
    paths, folder = set(), ""
    for block in re.findall(r"^```\n(data/.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if not line.startswith(" "):
                folder = line.strip()
                continue
            names = re.split(r" {2,}", line.strip())[0]
            for name in re.split(r", (?![^{]*\})", names):
                paths |= {f"{folder}{path}".rstrip("/") for path in expanded(name)}
    return paths


def test_every_path_of_the_task_files_is_in_a_tree() -> None:
    named = set()
    for file in REPOSITORY.glob("projects/**/*.yaml"):
        if not re.search(r"demo|own|compare|ablations", str(file.relative_to(REPOSITORY))):
            named |= set(re.findall(r"\bdata/[\w./-]*\w", file.read_text(encoding="utf-8")))
    named = {re.sub(r"/raw_caption_dedup\.bert-base-uncased$", "", name) for name in named}
    known = tree()
    folders = {str(parent) for path in known for parent in Path(path).parents}
    assert len(named) > 60
    assert not {name for name in named - known - folders if not PLACEHOLDERS.fullmatch(name)}


def test_a_tree_begins_with_its_folders() -> None:
    blocks = re.findall(r"^```\n(data/.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    folders = [line for block in blocks for line in block.splitlines() if not line.startswith(" ")]
    assert len(blocks) >= 9 and all(line.startswith("data/") and line.endswith("/") for line in folders)
    assert all(len(line) <= 120 for block in blocks for line in block.splitlines())
