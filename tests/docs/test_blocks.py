"""Every block of code of the pages is run or checked by a test, or says above itself that it is not run."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmpt.utils.files import REPOSITORY
from mmpt.utils.schema import FREE_SECTIONS, PROJECT_KEYS, schema_keys
from tests.test_readme import PAGES

NOT_RUN = re.compile(r"<!-- not run: [^\n]+ -->")
#: (page, words of the block) of what another test takes from its page and runs.
RUN_ELSEWHERE = {
    ("docs/merlot_reserve.md", "PretrainedMerlotReserve"): "tests/api/test_reserve_page.py",
    ("docs/segments.md", "open_segments"): "tests/store/test_segments_page.py",
    ("docs/extending.md", "# my_"): "tests/docs/test_extending.py",
    ("docs/python.md", "MMPTModel"): "tests/api/test_mmpt_model.py",
    ("docs/tasks.md", "MMPTModel"): "tests/api/test_mmpt_model.py",
}
#: Of other languages, what they are and which test reads them.
DATA = {
    ("docs/own_corpus.md", "jsonl"): "tests/launch/test_own_corpus.py",
    ("docs/own_corpus.md", "csv"): "tests/launch/test_own_corpus.py",
    ("docs/segments.md", "json"): "tests/store/test_segments_page.py",
    ("docs/segments.md", "vtt"): "tests/store/test_segments_page.py",
    ("docs/segments.md", "srt"): "tests/store/test_segments_page.py",
}
#: Keys of files that are no job: those of a script's job, and of a project's groups.
_SCRIPT_KEYS = {"script", "args", "inputs", "force_flag"}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language and text, and the line above it."""

    page: str
    line: int
    language: str
    text: str
    above: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def run_by(self) -> str | None:
        """The test that runs it, of those that take blocks from pages."""
        found = [test for (page, words), test in RUN_ELSEWHERE.items() if page == self.page and words in self.text]
        return found[0] if found else None


def blocks_of(page: Path) -> list[Block]:
    lines = (REPOSITORY / page).read_text(encoding="utf-8").splitlines()
    found, start = [], None
    for number, line in enumerate(lines):
        if start is None and line.lstrip().startswith("```"):
            start = number
        elif start is not None and line.strip() == "```":
            language = lines[start].strip().removeprefix("```")
            above = next((before for before in reversed(lines[:start]) if before.strip()), "")
            found.append(Block(str(page), start + 1, language, "\n".join(lines[start + 1 : number]), above.strip()))
            start = None
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def is_run(block: Block) -> bool:
    """Tell whether a test runs all of a block of commands: dry runs are, by tests/test_readme.py."""
    if block.language == "python":
        return block.run_by() is not None
    commands = block.text.replace("\\\n", " ").splitlines()
    return all("locallaunch.py" in command and "--dryrun" in command for command in commands)


def is_json(block: Block) -> bool:
    """Tell whether a block is one JSON document, and no other test reads it."""
    if block.language != "json" or (block.page, "json") in DATA:
        return False
    return json.loads(block.text) is not None


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language in ("bash", "sh", "console", "python")], ids=str
)
def test_a_block_is_run_or_says_that_it_is_not(block: Block) -> None:
    assert is_run(block) != bool(NOT_RUN.fullmatch(block.above)), f"{block}: {block.above!r} stands above it"
    if block.language == "python":
        compile(block.text, str(block), "exec")
        test = block.run_by()
        assert (
            test is None
            or Path(block.page).name in (REPOSITORY / test).read_text()
            or "docs/{page}" in (REPOSITORY / test).read_text()
        ), test


def test_blocks_of_other_languages_are_known() -> None:
    rest = {(block.page, block.language) for block in BLOCKS if not is_json(block)}
    rest = {one for one in rest if one[1] not in ("", "bash", "sh", "console", "python", "yaml", "{toctree}")}
    assert {one for one in rest if one[1] != "{eval-rst}"} == set(DATA)


def unknown_keys(config: Any, project: bool) -> list[str]:
    """Return the dotted keys that no class of MMPT reads, and no project."""
    known = schema_keys()
    top = known[""] | set(known) | set(FREE_SECTIONS) | _SCRIPT_KEYS | (set(PROJECT_KEYS) if project else set())
    top |= {"task_list"} if project else set()
    found = []
    for key, value in config.items():
        if key not in top and not str(key).startswith(("my_", "_")):
            found.append(str(key))
        elif key in known and key and OmegaConf.is_dict(value) and key != "task_group":
            found += [f"{key}.{inner}" for inner in value if inner not in known[str(key)]]
    return found


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_yaml_has_keys_of_the_schema(block: Block) -> None:
    config = OmegaConf.create(block.text)
    groups = config.get("task_group") or {}
    own = {"dataset.text_column", "loss.margin"} if block.page == "docs/extending.md" else set()
    assert set(unknown_keys(config, "task_group" in config)) <= own
    for group in groups.values():
        assert unknown_keys(group, project=True) == []
