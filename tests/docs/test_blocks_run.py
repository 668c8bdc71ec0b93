"""The blocks of the pages run, in a folder with tiny videos, data and models under the names that the pages use."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt.utils.files import REPOSITORY
from tests.docs.block_plan import plan_of
from tests.docs.sandbox import fill, inside, run
from tests.docs.test_blocks import BLOCKS, Block
from tests.test_readme import COMMANDS, Command

pytest.importorskip("av")
pytestmark = pytest.mark.slow

#: Each command once, whatever the number of pages that have it.
RUN = list({command.argv: command for command in COMMANDS if plan_of(command).runs}.values())
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
    launch = "locallaunch.py" in " ".join(command.argv) and "--cancel" not in command.argv
    before = files_of(sandbox) if launch else set()
    code, said = run(command, sandbox)
    assert code == 0, said
    if launch:  # a dry run writes the YAMLs of its jobs and nothing else
        assert "mmpt_cli/" in said or "scripts/" in said, said
        assert all(path.suffix == ".yaml" and "projects" in path.parts for path in files_of(sandbox) - before)


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
        assert names["image"].shape == (48, 64, 3)


def test_every_other_test_is_there_and_names_the_script() -> None:
    for command in COMMANDS:
        if test := plan_of(command).test:
            assert (REPOSITORY / test).is_file(), test
