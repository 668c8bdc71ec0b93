"""Find, in the syntax tree of a Python file, what could execute what a user's file says.

Names are followed through ``import``, ``import .. as`` and ``from .. import .. as``. It is no sandbox: it keeps
honest code honest, and makes every exception a line that someone reviewed.
"""

import ast
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Finding", "audit"]


class Finding(NamedTuple):
    """A place and what was found there, under the name that the allow-list uses."""

    line: int
    what: str


#: May not be mentioned at all, called or not.
FORBIDDEN = {
    *("os.system", "os.popen", "os.startfile", "pty.spawn", "commands.getoutput", "tempfile.mktemp"),
    *(f"os.{kind}{ending}" for kind in ("exec", "spawn") for ending in ("l", "le", "lp", "lpe")),
    *(f"os.{kind}{ending}" for kind in ("exec", "spawn") for ending in ("v", "ve", "vp", "vpe")),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
    *(f"{module}.{name}" for module in ("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal")
      for name in ("load", "loads", "Unpickler")),
    *("joblib.load", "shelve.open", "pandas.read_pickle"),
    *("torch.hub.load", "torch.jit.load", "torch.package.PackageImporter"),
    *("yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all", "yaml.UnsafeLoader"),
    *("yaml.Loader", "yaml.FullLoader", "yaml.CLoader", "code.interact", "code.InteractiveInterpreter"),
    *("runpy.run_path", "runpy.run_module", "importlib.util.spec_from_file_location", "shutil.unpack_archive"),
}  # fmt: skip
BUILTINS = {"eval", "exec", "compile", "__import__", "execfile"}
SHELLS = {f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen")}
SAFE_YAML = {"yaml.SafeLoader", "yaml.CSafeLoader", "yaml.BaseLoader"}
#: A keyword that must be this constant wherever it is given.
KEYWORDS = {"allow_pickle": False, "shell": False, "trust_remote_code": False, "weights_only": True}


def audit(source: str) -> list[Finding]:
    """Return what is found in the source of a module, in the order of its lines."""
    tree = ast.parse(source)
    names = _imported(tree)
    return sorted({finding for node in ast.walk(tree) for finding in _look(node, names)})


def _imported(tree: ast.AST) -> dict[str, str]:
    """Return the full names behind the local names of all imports of a module."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                names[alias.asname or name] = name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def _full_name(node: ast.AST, names: dict[str, str]) -> str:
    """Return ``package.module.name`` of a reference, as far as imports tell; an empty string of anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id if node.id in BUILTINS else "")
    if isinstance(node, ast.Attribute):
        owner = _full_name(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def _look(node: ast.AST, names: dict[str, str]) -> Iterator[Finding]:
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
        name = _full_name(node, names)
        name = name.removeprefix("builtins.")
        if name in FORBIDDEN or name in BUILTINS:
            yield Finding(node.lineno, name)
    elif isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
        yield Finding(node.lineno, f"from {node.module} import *")
    elif isinstance(node, ast.Call):
        yield from _look_at_call(node, _full_name(node.func, names), names)


def _look_at_call(call: ast.Call, name: str, names: dict[str, str]) -> Iterator[Finding]:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    for key, wanted in KEYWORDS.items():
        if key in keywords and not _is_constant(keywords[key], wanted):
            yield Finding(call.lineno, f"{key} is not {wanted}")
    if name == "torch.load" and "weights_only" not in keywords:
        yield Finding(call.lineno, "torch.load without weights_only")
    if name in ("yaml.load", "yaml.load_all"):
        loader = keywords.get("Loader", call.args[1] if len(call.args) > 1 else None)
        if loader is None or _full_name(loader, names) not in SAFE_YAML:
            yield Finding(call.lineno, f"{name} without SafeLoader")
    if name in ("numpy.load", "numpy.lib.format.read_array") and len(call.args) > (2 if name == "numpy.load" else 1):
        yield Finding(call.lineno, "allow_pickle is not False")
    if name in SHELLS and _is_text(call.args[0] if call.args else keywords.get("args")):
        yield Finding(call.lineno, f"{name} of a string")
    if name == "importlib.import_module" and not (call.args and isinstance(call.args[0], ast.Constant)):
        yield Finding(call.lineno, "import_module of a variable name")
    if (
        isinstance(call.func, ast.Attribute)
        and call.func.attr in ("extractall", "extract")
        and "filter" not in keywords
    ):
        yield Finding(call.lineno, f"{call.func.attr} without filter")
    if None in keywords and (name == "torch.load" or name in SHELLS):
        yield Finding(call.lineno, f"{name} with **")


def _is_constant(node: ast.AST, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_text(node: ast.AST | None) -> bool:
    """Tell whether an argument is visibly one string, which a shell or a search of the path would take apart."""
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "join"):
        return _is_text(node.func.value)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
