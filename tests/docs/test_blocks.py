"""Every block of code of the pages is run or read by a test; a page says why its commands are not run as they stand."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmpt.utils.files import REPOSITORY
from mmpt.utils.schema import FREE_SECTIONS, PROJECT_KEYS, schema_keys
from tests.docs.block_plan import REASONS, plan_of
from tests.test_readme import PAGES, commands_in

#: Below the title of a page: classes of :data:`tests.docs.block_plan.REASONS`.
NOT_RUN = re.compile(r"^<!-- not run as they stand: ([\w, ]+) -->$", re.MULTILINE)
LISTED = Path("docs/code_blocks.md")
#: Python that needs published weights at their full size -> the test that runs its calls on tiny ones.
WEIGHTS = {("docs/merlot.md", "MMPTModel"): "tests/models/test_merlot_weights.py"}
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

    def is_shell(self) -> bool:
        """Tell whether it holds commands."""
        return self.language in ("bash", "sh", "console")

    def needs_weights(self) -> bool:
        """Tell whether it is Python for published weights."""
        return any(page == self.page and words in self.text for page, words in WEIGHTS)

    def runs_in_sandbox(self) -> bool:
        """Tell whether it is Python that tests/docs/test_blocks_run.py runs."""
        return self.language == "python" and self.run_by() is None and not self.needs_weights()

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


def reasons_of(page: Path) -> dict[str, list[str]]:
    """Reason -> the blocks of a page that are not run as they stand for it."""
    found: dict[str, list[str]] = defaultdict(list)
    for block in blocks_of(page):
        reasons = (
            {plan_of(command).reason for command in commands_in(str(page), block.text)} if block.is_shell() else set()
        )
        if block.language == "python" and block.needs_weights():
            reasons = {"weights"}
        for reason in reasons - {None}:
            found[str(reason)].append(str(block))
    return dict(found)


def is_json(block: Block) -> bool:
    """Tell whether a block is one JSON document, and no other test reads it."""
    if block.language != "json" or (block.page, "json") in DATA:
        return False
    return json.loads(block.text) is not None


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_says_what_is_not_run_as_it_stands(page: Path) -> None:
    found = NOT_RUN.findall((REPOSITORY / page).read_text(encoding="utf-8"))
    wanted = ", ".join(reason for reason in REASONS if reason in reasons_of(page))
    assert found == [wanted] * bool(wanted), f"below the title: <!-- not run as they stand: {wanted} -->"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_python_is_whole(block: Block) -> None:
    compile(block.text, str(block), "exec")
    if test := block.run_by():
        text = (REPOSITORY / test).read_text(encoding="utf-8")
        assert Path(block.page).name in text or "docs/{page}" in text, test


def test_the_list_of_what_is_not_run_is_complete() -> None:
    shown = [block for block in BLOCKS if block.is_shell() or block.language == "python"]
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for page in PAGES:
        for reason, blocks in reasons_of(page).items():
            found[reason][str(page)] = len(blocks)
    held = {block for reasons in map(reasons_of, PAGES) for blocks in reasons.values() for block in blocks}
    rows = [f"Of {len(shown)} blocks of commands and Python, {len(shown) - len(held)} run as they stand."]
    for reason, text in REASONS.items():
        pages = ", ".join(
            f"{page.removesuffix('.md')} {count}" for page, count in sorted(found.get(reason, {}).items())
        )
        rows.append(f"| {reason} | {text} | {sum(found.get(reason, {}).values())} | {pages} |")
    listed = (REPOSITORY / LISTED).read_text(encoding="utf-8").splitlines()
    assert all(row in listed for row in rows), "\n".join(rows)


def test_blocks_of_other_languages_are_known() -> None:
    rest = {(block.page, block.language) for block in BLOCKS if not is_json(block)}
    rest = {one for one in rest if one[1] not in ("", "bash", "sh", "console", "python", "yaml", "text", "{toctree}")}
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
