"""What may import what: a light base, fairseq in its own files, floors that only look down."""

import ast
import graphlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
OPTIONAL = (
    "fairseq",
    "faiss",
    "av",
    "transformers",
    "matplotlib",
    "gradio",
    "submitit",
    "pycocoevalcap",
    "apex",
    "simplejpeg",
)
# other packages that a base install does not bring or that base imports have no use for
HEAVY = (*OPTIONAL, "tensorboard", "sklearn", "sacrebleu", "hydra", "torchvision", "torchaudio")

# Imports every module below mmpt but the fairseq wrappers, with some packages hidden; prints what failed and what
# was loaded all the same.
WALK = """
import importlib, json, pkgutil, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ImportError(f"{name} is hidden")

watched, hide = json.loads(sys.argv[1])
hidden = watched if hide else []
sys.meta_path.insert(0, Hidden())
import mmpt

failed, seen = {}, []
for found in pkgutil.walk_packages(mmpt.__path__, "mmpt.", onerror=lambda name: None):
    if found.name.rpartition(".")[2].startswith("fairseq_"):
        continue
    seen.append(found.name)
    try:
        importlib.import_module(found.name)
    except Exception as error:
        failed[found.name] = f"{type(error).__name__}: {error}"
print(json.dumps({"seen": seen, "failed": failed, "loaded": [name for name in watched if name in sys.modules]}))
"""


def python(code: str, *arguments: str, flags: tuple[str, ...] = ()) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, *flags, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def sources(*tops: str) -> Iterator[Path]:
    for top in tops:
        path = REPOSITORY / top
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def module_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def named_modules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything a module imports, through require() and import_module() too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("require", "import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def test_import_mmpt_needs_nothing_but_the_standard_library() -> None:
    # -S: no site-packages at all; -I would hide the checkout too
    assert python("import mmpt; print(mmpt.__version__)", flags=("-S",)).strip()


@pytest.mark.parametrize("hide", [True, False], ids=["without the optional packages", "with them installed"])
def test_every_base_module_imports_and_loads_no_optional_package(hide: bool) -> None:
    watched = OPTIONAL if hide else HEAVY
    outcome = json.loads(python(WALK, json.dumps([watched, hide])).splitlines()[-1])
    assert outcome["failed"] == {}
    assert outcome["loaded"] == []
    everything = {module_of(path) for path in sources("mmpt") if not path.name.startswith("fairseq_")} - {"mmpt"}
    assert set(outcome["seen"]) == everything  # a folder without __init__.py would be passed over


def test_walking_without_a_package_notices_a_module_that_needs_it(tmp_path: Path) -> None:
    (tmp_path / "mmpt").mkdir()
    (tmp_path / "mmpt" / "__init__.py").touch()
    (tmp_path / "mmpt" / "bad.py").write_text("import av\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{WALK}"
    outcome = json.loads(python(code, json.dumps([OPTIONAL, True])))
    assert "hidden" in outcome["failed"]["mmpt.bad"]


def fairseq_imports(source: str) -> list[int]:
    return [
        line for line, name in named_modules(ast.parse(source)) if name.partition(".")[0] in ("fairseq", "fairseq_cli")
    ]


def test_fairseq_is_imported_in_its_own_files_only() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in sources("mmpt", "mmpt_cli", "scripts", "locallaunch.py")
        if not path.name.startswith("fairseq_")
        for line in fairseq_imports(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import fairseq.data as d", [1]),
        ("def f():\n    from fairseq import tasks", [2]),
        ("from mmpt.utils.extras import require\nx = require('fairseq', 'train')", [2]),
        ("import importlib\nimportlib.import_module('fairseq.options')", [2]),
        ("from mmpt.tasks import fairseq_task\nimport fairseqx", []),
    ],
)
def test_fairseq_scan_finds_every_way_of_importing(source: str, lines: list[int]) -> None:
    assert fairseq_imports(source) == lines


def test_library_imports_no_command() -> None:
    commands = ("mmpt_cli", "scripts", "locallaunch", "tests")
    found = [
        f"{path.relative_to(REPOSITORY)}:{line} {name}"
        for path in sources("mmpt")
        for line, name in named_modules(ast.parse(path.read_text(encoding="utf-8")))
        if name.partition(".")[0] in commands
    ]
    assert found == []


def test_floors_only_import_downwards() -> None:
    pytest.importorskip("importlinter")
    from importlinter.cli import lint_imports

    here = Path.cwd()
    os.chdir(REPOSITORY)  # import-linter analyses what it can import from the working directory
    try:
        assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0
    finally:
        os.chdir(here)


def test_no_cycles_between_modules() -> None:
    modules = {module_of(path): path for path in sources("mmpt", "mmpt_cli")}
    graph = {
        name: {found for found in top_level_imports(path, set(modules)) if found != name}
        for name, path in modules.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming the cycle


def top_level_imports(path: Path, modules: set[str]) -> Iterator[str]:
    """Yield the modules of ours that a file imports when it is imported itself, not inside functions."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    top = ast.Module([node for node in body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    for _, name in named_modules(top):
        while name and name not in modules:
            name = name.rpartition(".")[0]
        if name:
            yield name
