"""The code of MMPT is audited for what could execute what a user's file says, and the audit itself is tested."""

from pathlib import Path

import pytest
from audit import audit

REPOSITORY = Path(__file__).resolve().parents[2]
AUDITED = ("mmpt", "mmpt_cli", "scripts", "locallaunch.py", "setup.py")

#: (file, what is found there) -> why that is right.
ALLOWED: dict[tuple[str, str], str] = {
    ("mmpt/utils/safe_pickle.py", "pickle.Unpickler"): "the base of the restricted unpickler, which refuses all names",
    ("mmpt/utils/registry.py", "import_module of a variable name"): "a YAML may name package.module:Class: a config "
    "chooses the user's own installed code, which is what it is for; it cannot bring any",
    ("mmpt/utils/extras.py", "import_module of a variable name"): "optional packages, whose names are MMPT's own",
    ("mmpt_cli/main.py", "import_module of a variable name"): "modules of commands, whose names are in tables: a word "
    "of the command line is looked up there, so that only the module of the command asked for is imported",
    ("mmpt_cli/doctor_findings.py", "import_module of a variable name"): "the doctor tries whether packages can be "
    "imported, whose names are those of its checks",
    ("scripts/benchmarks/child.py", "import_module of a variable name"): "modules of benchmarks, by their own list",
    ("scripts/benchmarks/run.py", "import_module of a variable name"): "modules of benchmarks, by their own list",
}


def audited_files() -> list[Path]:
    files = [REPOSITORY / name for name in AUDITED]
    return sorted(path for file in files for path in (file.rglob("*.py") if file.is_dir() else [file]))


def findings() -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for path in audited_files():
        name = str(path.relative_to(REPOSITORY))
        for line, what in audit(path.read_text(encoding="utf-8")):
            found.setdefault((name, what), []).append(f"{name}:{line}: {what}")
    return found


def test_no_code_could_execute_what_a_file_says():
    wrong = [line for key, lines in findings().items() if key not in ALLOWED for line in lines]
    assert not wrong, "\n".join(["not allowed, see tests/safety/audit.py:", *wrong])


def test_every_exception_is_still_needed():
    assert set(ALLOWED) <= set(findings())


def test_the_audit_sees_the_code():
    """It cannot pass because it looked nowhere."""
    names = {str(path.relative_to(REPOSITORY)) for path in audited_files()}
    assert len(names) > 150
    for name in ("locallaunch.py", "mmpt/utils/safe_pickle.py", "mmpt_cli/predict.py", "scripts/setup/install.py"):
        assert name in names


FOUND = {
    "eval": "eval(text)",
    "exec": "def f():\n    exec(text)",
    "compile": "compile(text, 'x', 'exec')",
    "__import__": "__import__(name)",
    "builtins": "import builtins\nbuiltins.eval(text)",
    "a builtin by reference": "run = eval",
    "os.system": "import os\nos.system(command)",
    "os.system, renamed": "import os as o\no.system(command)",
    "os.system, imported": "from os import system as call\ncall(command)",
    "os.system, not called": "import os\nrunners = [os.system]",
    "os.popen": "from os import popen\npopen(c)",
    "os.execvp": "import os\nos.execvp(a, b)",
    "os.spawnl": "import os\nos.spawnl(0, 'a')",
    "shell=True": "import subprocess\nsubprocess.run(command, shell=True)",
    "shell of a variable": "import subprocess\nsubprocess.run(command, shell=flag)",
    "shell of Popen": "from subprocess import Popen\nPopen(command, shell=1)",
    "a string": "import subprocess\nsubprocess.run('ls -l')",
    "an f-string": "import subprocess\nsubprocess.check_output(f'ls {folder}')",
    "a sum": "import subprocess\nsubprocess.call('ls ' + folder)",
    "a format": "import subprocess\nsubprocess.call('ls {}'.format(folder))",
    "args": "import subprocess\nsubprocess.Popen(args='ls')",
    "keywords of a dict": "import subprocess\nsubprocess.run(command, **options)",
    "getoutput": "import subprocess\nsubprocess.getoutput(c)",
    "asyncio": "import asyncio\nasyncio.create_subprocess_shell(c)",
    "pickle.load": "import pickle\npickle.load(file)",
    "pickle.loads": "from pickle import loads\nloads(content)",
    "pickle.Unpickler": "import pickle\nclass Mine(pickle.Unpickler): pass",
    "cloudpickle": "import cloudpickle\ncloudpickle.load(file)",
    "marshal": "import marshal\nmarshal.loads(content)",
    "dill": "import dill\ndill.load(file)",
    "joblib": "import joblib\njoblib.load(path)",
    "shelve": "import shelve\nshelve.open(path)",
    "pandas": "import pandas as pd\npd.read_pickle(path)",
    "torch.load": "import torch\ntorch.load(path)",
    "torch.load, False": "import torch\ntorch.load(path, weights_only=False)",
    "torch.load, variable": "import torch as t\nt.load(path, weights_only=flag)",
    "torch.load, **": "from torch import load\nload(path, weights_only=True, **more)",
    "torch.load in a function": "def f():\n    import torch\n    return torch.load(p)",
    "torch.hub": "import torch\ntorch.hub.load(a, b)",
    "torch.jit": "import torch\ntorch.jit.load(a)",
    "np.load": "import numpy as np\nnp.load(path, allow_pickle=True)",
    "np.load, variable": "import numpy as np\nnp.load(path, allow_pickle=flag)",
    "np.load, by position": "import numpy as np\nnp.load(path, None, True)",
    "np.save of objects": "import numpy as np\nnp.save(path, array, allow_pickle=True)",
    "yaml.load": "import yaml\nyaml.load(text)",
    "yaml.load, Loader": "import yaml\nyaml.load(text, Loader=yaml.Loader)",
    "yaml.load, own": "import yaml\nyaml.load(text, Mine)",
    "yaml.full_load": "import yaml\nyaml.full_load(text)",
    "yaml.unsafe_load": "from yaml import unsafe_load\nunsafe_load(text)",
    "mktemp": "import tempfile\ntempfile.mktemp()",
    "trust_remote_code": "AutoModel.from_pretrained(name, trust_remote_code=True)",
    "import_module": "import importlib\nimportlib.import_module(name)",
    "star": "from os import *",
    "tar": "archive.extractall(folder)",
    "runpy": "import runpy\nrunpy.run_path(path)",
}
NOT_FOUND = [
    "model.eval()",
    "import re\nre.compile(text)",
    "import subprocess\nsubprocess.run(['ls', '-l'], check=True)",
    "import subprocess\nsubprocess.run([command, f'{x}'], shell=False)",
    "import pickle\npickle.dump(value, file)\ntry: pass\nexcept pickle.UnpicklingError: pass",
    "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
    "import numpy as np\nnp.load(path)\nnp.load(path, mmap_mode='r', allow_pickle=False)",
    "import yaml\nyaml.safe_load(text)\nyaml.load(text, Loader=yaml.SafeLoader)\nyaml.compose(text, yaml.SafeLoader)",
    "import os\nos.path.exists(path)\nos.replace(a, b)",
    "import importlib\nimportlib.import_module('mmpt.models')",
    "from mmpt.utils.safe_pickle import load\nload(path)",
    "evaluate(text)\nself.exec(x)\nsystem(x)",
]


@pytest.mark.parametrize("case", FOUND)
def test_the_audit_finds(case):
    assert audit(FOUND[case])


@pytest.mark.parametrize("source", NOT_FOUND)
def test_the_audit_does_not_cry_wolf(source):
    assert audit(source) == []
