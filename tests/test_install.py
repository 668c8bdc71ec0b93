"""scripts/setup/install.py: what is installed, when nothing is, and what an interruption leaves behind."""

import importlib.util
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "setup" / "install.py"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that works on an empty checkout, with pip and venv replaced by records of their calls."""
    spec = importlib.util.spec_from_file_location("mmpt_install", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "main.txt").write_text("numpy==1\n")
    for name in ("pyproject.toml", "setup.py"):
        (tmp_path / name).touch()
    venv = tmp_path / ".venv"
    places = {
        "ROOT": tmp_path,
        "VENV": venv,
        "PYTHON": venv / "bin" / "python",
        "STAMP": venv / ".mmpt-installed",
        "OWN": venv / ".mmpt-created",
        "REQUIREMENTS": tmp_path / "requirements",
    }
    for name, value in places.items():
        monkeypatch.setattr(module, name, value)
    module.calls = []

    def run(command: list[str]) -> None:
        module.calls.append("venv" if "venv" in command else " ".join(command[3:]))
        module.PYTHON.parent.mkdir(parents=True, exist_ok=True)
        module.PYTHON.touch()

    monkeypatch.setattr(module, "_run", run)
    monkeypatch.setattr(module, "_fairseq_build", lambda: nullcontext(None))
    return module


def fail_at(install: ModuleType, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    def pip(*arguments: str) -> None:
        if any(word in item for item in arguments):
            raise install.SetupError("no space left")

    monkeypatch.setattr(install, "_pip", pip)


def test_second_call_installs_nothing(install: ModuleType) -> None:
    assert install.main(["--check"]) == 1
    assert install.main([]) == 0
    assert install.calls[0] == "venv"
    assert [name for name in ("build.txt", "main.txt", "-e") if not any(name in call for call in install.calls)] == []
    install.calls.clear()
    assert install.main([]) == 0
    assert install.main(["--check"]) == 0
    assert install.calls == []


def test_changed_requirements_are_installed_into_the_same_environment(install: ModuleType) -> None:
    install.main([])
    (install.VENV / "kept").touch()
    install.calls.clear()
    (install.REQUIREMENTS / "main.txt").write_text("numpy==2\n")
    assert install.main(["--check"]) == 1
    assert install.main([]) == 0
    assert "venv" not in install.calls
    assert any("main.txt" in call for call in install.calls)
    assert (install.VENV / "kept").exists()
    assert install.main(["--check"]) == 0


@pytest.mark.parametrize("step", ["build.txt", "main.txt", "-e"])
def test_interrupted_installation_begins_again(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    with monkeypatch.context() as broken:
        fail_at(install, broken, step)
        assert install.main([]) == 1
    assert "no space left" in capsys.readouterr().err
    assert install.main(["--check"]) == 1
    (install.VENV / "half-written").touch()
    assert install.main([]) == 0
    assert not (install.VENV / "half-written").exists()


def test_interrupted_update_begins_again(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    install.main([])
    (install.REQUIREMENTS / "main.txt").write_text("numpy==2\n")
    with monkeypatch.context() as broken:
        fail_at(install, broken, "main.txt")
        assert install.main([]) == 1
    (install.REQUIREMENTS / "main.txt").write_text("numpy==1\n")  # what the old stamp said: still not installed
    (install.VENV / "half-written").touch()
    assert install.main([]) == 0
    assert not (install.VENV / "half-written").exists()


def test_environment_of_the_user_is_added_to_and_never_removed(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    install.PYTHON.parent.mkdir(parents=True)
    install.PYTHON.touch()
    (install.VENV / "my-torch").touch()
    with monkeypatch.context() as broken:
        fail_at(install, broken, "main.txt")
        assert install.main([]) == 1
    assert install.main([]) == 0
    assert (install.VENV / "my-torch").exists()
    assert "venv" not in install.calls


def test_moved_checkout_is_installed_anew(install: ModuleType) -> None:
    install.main([])
    stamp = json.loads(install.STAMP.read_text())
    install.STAMP.write_text(json.dumps({**stamp, "venv": "/elsewhere/.venv"}))
    (install.VENV / "old").touch()
    assert install.main([]) == 0
    assert not (install.VENV / "old").exists()


def test_only_one_installation_at_a_time(install: ModuleType, tmp_path: Path) -> None:
    code = f"import fcntl, os; fcntl.flock(os.open({str(tmp_path)!r}, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"

    def attempt() -> int:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode

    with install._locked():
        assert attempt() != 0
    assert attempt() == 0


@pytest.mark.parametrize("lacking", ["compiler", "version"])
def test_unfit_machine_is_told_what_to_install(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lacking: str
) -> None:
    if lacking == "compiler":
        monkeypatch.setattr(install.shutil, "which", lambda name: None)
    else:
        monkeypatch.setattr(install, "SUPPORTED", ((2, 7), (3, 0)))
    assert install.main([]) == 1
    assert "apt-get install" in capsys.readouterr().err
    assert not install.VENV.exists()


def test_build_environment_is_the_same_everywhere(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", "/usr/local/cuda")
    monkeypatch.setenv("READTHEDOCS", "1")
    monkeypatch.setenv("CFLAGS", "-O2")
    environment = install._build_environment()
    assert not {"CUDA_HOME", "READTHEDOCS"} & set(environment)
    assert environment["CFLAGS"] == "-O2 -O1 -g0"


def test_failed_fairseq_build_shows_the_end_of_its_log(install: ModuleType, tmp_path: Path) -> None:
    install.VENV.mkdir()
    install.PYTHON = Path(sys.executable)
    (install.REQUIREMENTS / "fairseq.txt").write_text(f"{tmp_path}/no-such-package\n")
    build = install._Build(tmp_path)
    with pytest.raises(install.SetupError, match="no-such-package"):
        build.install()
