"""The documentation's commands are well formed, and what it points to exists."""

import re
import shlex
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from mmpt.launch.project import expand_project, is_project
from mmpt.utils.config import read_yaml
from mmpt_cli.main import available, module_of

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(REPOSITORY)
    for pattern in ("*.md", "docs/**/*.md", "pretrained_models/*.md", "scripts/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
BLOCK = re.compile(r"^(?P<indent> *)```(?:bash|sh|console)\n(?P<body>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
PYTHONS = ("python", "python3", "python3.11", ".venv/bin/python")
MMPT = ("mmpt", ".venv/bin/mmpt")
# commands that only a person's machine can run; their form is all there is to check
OTHERS = ("sudo", "git", "cd", "source", "pip", ".venv/bin/pip", "pytest", "torchrun")


@dataclass(frozen=True)
class Command:
    page: str
    argv: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.argv)[:80]}"


def commands_in(page: str, text: str) -> list[Command]:
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        argv = shlex.split(line, comments=True)
        while argv and re.fullmatch(r"[A-Z_]+=.*", argv[0]):
            argv = argv[1:]
        if argv:
            found.append(Command(page, tuple(argv)))
    return found


def commands_of(page: Path) -> list[Command]:
    blocks = BLOCK.finditer((REPOSITORY / page).read_text(encoding="utf-8"))
    return [command for block in blocks for command in commands_in(str(page), block["body"])]


COMMANDS = [command for page in PAGES for command in commands_of(page)]


def script_of(command: Command) -> tuple[str, ...]:
    """The words that start a Python script, ("a.py",) or ("-m", "module"); empty for any other command."""
    if command.argv[0] not in PYTHONS or len(command.argv) < 2:
        return ()
    return command.argv[1:3] if command.argv[1] == "-m" else command.argv[1:2]


def check_mmpt(words: tuple[str, ...]) -> None:
    """Let the parser of an ``mmpt`` command read its words; where one asks for help, let it be there."""
    if words[0] == "help" or words[0].startswith("-"):
        words = (*words[1:2], "--help") if len(words) > 1 else ()
    if not words:
        return
    assert words[0] in available(), f"there is no command mmpt {words[0]}"
    parser = module_of(words[0]).build_parser()
    if words[0] == "extract" and words[1:]:
        parser, words = import_module(f"mmpt_cli.extract_{words[1]}").build_parser(), words[1:]
    if not {"-h", "--help"} & set(words):
        parser.parse_args(words[1:])  # SystemExit fails the test


@cache
def generated_yamls(folder: Path) -> set[str]:
    """The job files of a folder that a shipped project expands to."""
    project = folder.with_suffix(".yaml")
    if not (REPOSITORY / project).is_file() or not is_project(read_yaml(project)):
        return set()
    return {str(job.path) for job in expand_project(project).jobs}


def test_the_commands_of_the_readme_were_found() -> None:
    lines = [shlex.join(command.argv) for command in COMMANDS if command.page == "README.md"]
    assert {"make demo", "make test"} <= set(lines)
    assert any(command.argv[0] == "fairseq-train" for command in COMMANDS)
    assert len(COMMANDS) > 100


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_is_known_and_its_files_exist(command: Command) -> None:
    program = command.argv[0]
    script = script_of(command)
    if script and script[0] != "-m":
        assert (REPOSITORY / script[0]).is_file(), f"{script[0]} does not exist"
    elif program == "make":
        result = subprocess.run(["make", "-n", *command.argv[1:]], cwd=REPOSITORY, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    elif program in MMPT:
        check_mmpt(command.argv[1:])
    else:
        assert script or program == "fairseq-train" or program in OTHERS, f"what is {program!r}?"


def test_the_examples_of_the_commands_fit_their_parsers() -> None:
    for name in available():
        epilog = re.sub(r"\\\n +", "", module_of(name).build_parser().epilog or "")
        assert "example" in epilog, f"mmpt {name} --help shows no example"
        for example in re.findall(r"^(?: +|example: )(mmpt .*)$", epilog, flags=re.MULTILINE):
            command = re.split(r" [|>] | {2,}", example)[0]  # before a pipe, a file, or what is said about it
            check_mmpt(tuple(shlex.split(command, comments=True))[1:])


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_yamls_named_on_a_page_exist_or_are_generated(page: Path) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:projects|scripts)/[\w/.-]+\.yaml\b", text))
    missing = {name for name in named if not (REPOSITORY / name).is_file()}
    assert not {name for name in missing if name not in generated_yamls(Path(name).parent)}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_relative_links_exist(page: Path) -> None:
    text = re.sub(
        r"^ *```.*?^ *```", "", (REPOSITORY / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    targets = [match["target"].partition("#")[0] for match in LINK.finditer(text)]
    local = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    missing = [target for target in local if not (REPOSITORY / page).parent.joinpath(target).exists()]
    assert not missing


@pytest.mark.slow
def test_training_command_uses_flags_of_fairseq() -> None:
    pytest.importorskip("fairseq")
    from mmpt.launch.fairseq_flags import training_flags

    own = {"user_dir", "task", "arch", "criterion"}
    for command in (command for command in COMMANDS if command.argv[0] == "fairseq-train"):
        used = {word[2:].replace("-", "_") for word in command.argv if word.startswith("--")}
        assert used <= set(training_flags()) | own


def test_the_table_of_slurm_keys_is_that_of_the_schema() -> None:
    from mmpt.utils.schema import CORE_KEYS

    table = re.findall(r"^\| `(\w+)` \| (.*) \|$", (REPOSITORY / "docs/cluster.md").read_text(), flags=re.MULTILINE)
    assert dict(table) == CORE_KEYS["slurm"]


def test_every_fault_of_the_reliability_page_names_a_test_that_exists() -> None:
    page = (REPOSITORY / "docs/reliability.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"^\| .*`tests/", line)]
    assert len(rows) >= 25
    for row in rows:
        assert len(row) == 4, row
        for name in re.findall(r"`(tests/[^`]*)`", row[3]):
            file, _, function = name.partition("::")
            assert (REPOSITORY / file).is_file(), name
            text = (REPOSITORY / file).read_text(encoding="utf-8")
            assert not function or re.search(rf"\bdef {function}\(", text), name


def test_the_reliability_page_counts_its_faults() -> None:
    page = (REPOSITORY / "docs/reliability.md").read_text(encoding="utf-8")
    counted = re.search(r"inject each fault: (\d+) of them", page)
    assert counted is not None
    assert int(counted[1]) == len(re.findall(r"^\| .*`tests/", page, flags=re.MULTILINE))
