"""The mmpt command: the list of commands, help, unknown commands, closed pipes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmpt
from mmpt_cli.command_page import command_page
from mmpt_cli.main import COMMANDS, GROUPS, available, main, module_of

REPOSITORY = Path(__file__).resolve().parents[2]


def test_help_lists_every_command_with_its_line(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for name, command in available().items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", told, re.MULTILINE)
    assert "examples:" in told
    assert {command.group for command in COMMANDS.values()} <= set(GROUPS)


def test_help_of_help_is_the_overview(capsys):
    assert main(["help", "help"]) == 0
    assert capsys.readouterr().out.startswith("usage: mmpt COMMAND")


def test_without_a_command_help_goes_to_stderr(capsys):
    assert main([]) == 2
    told = capsys.readouterr()
    assert not told.out and "usage: mmpt" in told.err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mmpt {mmpt.__version__}\n"


@pytest.mark.parametrize(("word", "meant"), [("clasify", "classify"), ("lunch", "launch"), ("zzzz", "")])
def test_unknown_command_names_the_nearest(capsys, word, meant):
    assert main([word, "--labels", "a"]) == 2
    told = capsys.readouterr()
    assert (f"Did you mean {meant!r}?" in told.err) == bool(meant) and not told.out


@pytest.mark.parametrize("name", list(available()))
def test_each_command_has_help_with_an_example(capsys, name):
    with pytest.raises(SystemExit) as left:
        main(["help", name])
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: mmpt {name}") and "example" in told
    assert module_of(name).build_parser().prog == f"mmpt {name}"


def test_help_loads_neither_torch_nor_numpy():
    code = "import sys; from mmpt_cli.main import main; main(['--help']); print({'torch', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert result.stdout.splitlines()[-1] == "set()"


def test_a_closed_pipe_ends_quietly():
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "mmpt_cli.main", "--help"]
    result = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, cwd=REPOSITORY)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, b"")


def test_the_page_of_commands_is_up_to_date():
    assert (REPOSITORY / "docs/command_line.md").read_text(encoding="utf-8") == command_page()


def test_nothing_evaluated_is_a_document_too(capsys):
    from mmpt.evaluators.base import NothingEvaluated
    from mmpt_cli.run_folders import exit_code

    def command():
        raise NothingEvaluated("no test has run")

    for as_json, printed in ((True, '{"error": "no test has run", "exit_code": 1}\n'), (False, "")):
        assert exit_code(command, as_json=as_json) == 1
        told = capsys.readouterr()
        assert (told.out, told.err) == (printed, "error: no test has run\n")
