"""The blocks of the pages run, in a folder with tiny videos, data and models under the names that the pages use."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt.utils.files import REPOSITORY
from tests.docs.block_plan import ELSEWHERE, plan_of
from tests.docs.sandbox import call, fill, inside, main_of, run
from tests.docs.test_blocks import BLOCKS, Block
from tests.test_readme import COMMANDS, Command, script_of

pytest.importorskip("av")
pytestmark = pytest.mark.slow

#: Each command once, whatever the number of pages that have it.
RUN = list({command.argv: command for command in COMMANDS if plan_of(command).runs}.values())
CHECKED = [command for command in COMMANDS if not plan_of(command).runs and script_of(command)[1:] != ("venv",)]
CHECKED = [command for command in CHECKED if script_of(command)]
PYTHON = [block for block in BLOCKS if block.language == "python" and block.runs_in_sandbox()]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    fill(folder)
    return folder


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", RUN, ids=str)
def test_a_command_runs(sandbox: Path, command: Command) -> None:
    if command.argv[1:2] == ("app",):
        pytest.importorskip("gradio")
    dry = "--dryrun" in command.argv
    before = files_of(sandbox) if dry else set()
    code, said = run(command, sandbox)
    assert code == 0, said
    if dry:  # it writes the YAMLs of its jobs and nothing else
        assert "mmpt_cli/" in said, said
        assert all(path.suffix == ".yaml" and "projects" in path.parts for path in files_of(sandbox) - before)


@pytest.mark.parametrize("command", CHECKED, ids=str)
def test_a_script_that_is_not_run_knows_the_flags(command: Command) -> None:
    script = script_of(command)
    _, said = call(main_of(script), ["--help"])
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", said))
    used = {word.partition("=")[0] for word in command.argv[1 + len(script) :] if re.match(r"--?[a-z]", word)}
    assert known and used <= known, f"{script} does not know {used - known}"


class Evaluator:
    """Stands for the evaluator of the page's reader: notes the device that it is told."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def evaluate(self, model: Any, loader: Any, device: Any) -> dict[str, Any]:
        return {"device": torch.device(device)}


#: Names that the text around a block stands for.
NAMES = {"docs/cluster.md": {"Evaluator": Evaluator, "config": {}, "model": None, "loader": []}}


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs(sandbox: Path, block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "page", **NAMES.get(block.page, {})}
    with inside(sandbox):
        exec(compile(block.text, str(block), "exec"), names)
    if "pipeline" in names:
        assert names["pipeline"].system == "VideoCLIP"
    if block.page == "docs/cluster.md" and "metrics" in names:
        assert names["metrics"]["device"].type == "cpu" or torch.cuda.is_available()
    if block.page == "docs/frames.md":
        assert names["image"].ndim == 3 and names["image"].dtype == "uint8"


def test_every_other_test_is_there_and_names_the_script() -> None:
    for script, test in ELSEWHERE.items():
        name = script.removesuffix(".py").rpartition(".")[2]
        assert name in (REPOSITORY / test).read_text(encoding="utf-8"), (script, test)
