"""What an installation holds: every module and data file, the stated dependencies, no surprises."""

import ast
import email.message
import email.parser
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mmpt

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("mmpt", "mmpt_cli")
EXTRAS = {"docs", "train", "retrieval", "video", "report", "slurm", "app", "caption", "parquet", "dev", "jpeg"}
# import name -> distribution, where they differ
DISTRIBUTION = {
    "yaml": "pyyaml",
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "fairseq": "fairseq-fixed",
    "fairseq_cli": "fairseq-fixed",
}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def pins() -> dict[str, Requirement]:
    found = {}
    for path in (REPOSITORY / "requirements").glob("*.txt"):
        for line in path.read_text().splitlines():
            if line and not line.startswith(("#", "-")):
                requirement = Requirement(line)
                name = canonicalize_name(requirement.name)
                assert found.setdefault(name, requirement) == requirement, f"{path}: {name} is pinned twice"
    return found


def declared(project: dict[str, Any]) -> list[Requirement]:
    extras = project["project"]["optional-dependencies"].values()
    return [Requirement(item) for group in (project["project"]["dependencies"], *extras) for item in group]


def packaged_files() -> set[str]:
    return {
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_extras(project: dict[str, Any]) -> None:
    assert set(project["project"]["optional-dependencies"]) == EXTRAS


def test_apex_of_the_package_index_is_no_dependency(project: dict[str, Any]) -> None:
    # NVIDIA's apex is not on the index; the package of that name is something else
    assert "apex" not in pins()
    assert "apex" not in {canonicalize_name(item.name) for item in declared(project)}


def test_what_would_break_the_environment_is_not_pinned() -> None:
    assert not {"torchaudio", "torchvision"} & set(pins())


def test_requirements_are_exact_and_within_the_declared_ranges(project: dict[str, Any]) -> None:
    pinned = pins()
    assert all(re.fullmatch(r"==[\w.]+", str(item.specifier)) for item in pinned.values())
    for item in declared(project):
        pin = pinned.get(canonicalize_name(item.name))
        if pin is not None:
            assert item.specifier.contains(str(pin.specifier).removeprefix("==")), f"{pin} is outside of {item}"
    base = {canonicalize_name(Requirement(item).name) for item in project["project"]["dependencies"]}
    assert base <= set(pinned)


def test_every_third_party_import_is_declared(project: dict[str, Any]) -> None:
    known = {canonicalize_name(name) for name in (*(item.name for item in declared(project)), *PACKAGES, "scripts")}
    missing = set()
    for path in (file for top in (*PACKAGES, "scripts") for file in (REPOSITORY / top).rglob("*.py")):
        beside = {file.stem for file in path.parent.glob("*.py")}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in (full.partition(".")[0] for full in names):
                if name in sys.stdlib_module_names or name in beside:
                    continue
                if canonicalize_name(DISTRIBUTION.get(name, name)) not in known:
                    missing.add(f"{path.relative_to(REPOSITORY)}: {name}")
    assert not missing


def test_every_folder_with_code_is_a_package() -> None:
    # setuptools would leave the folder out of a normal installation, and only an editable one would work
    missing = {
        str(path.parent.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }
    assert not missing


def test_installed_metadata_agrees_with_the_checkout() -> None:
    try:
        distribution = importlib.metadata.distribution("mmpt")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("mmpt is on the path but not installed (make install does that)")
    assert distribution.version == mmpt.__version__
    assert set(distribution.metadata.get_all("Provides-Extra") or []) == EXTRAS
    source = json.loads(distribution.read_text("direct_url.json") or "{}")
    assert source.get("dir_info", {}).get("editable"), "an installed copy would shadow this checkout"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, so that no build folder is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in (*PACKAGES, "tests", "scripts", "projects"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    result = subprocess.run(build, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("*.whl")
    return path


def metadata_of(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


@pytest.mark.slow
def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == packaged_files()


@pytest.mark.slow
def test_wheel_metadata(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert (metadata["Name"], metadata["Version"]) == ("mmpt", mmpt.__version__)
    assert metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("Provides-Extra") or []) == EXTRAS
    base = {Requirement(item).name for item in metadata.get_all("Requires-Dist") or [] if "extra ==" not in item}
    assert {"torch", "transformers", "omegaconf"} <= base
    assert not base & {"fairseq-fixed", "faiss-cpu", "av", "matplotlib", "apex"}


@pytest.mark.slow
def test_installed_wheel_imports_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True)
    code = (
        "import mmpt.modules.s3d, mmpt_cli.launch, mmpt_cli.predict, sys; "
        "print(mmpt.__file__); sys.exit(mmpt_cli.launch.main(['--help']))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONPATH": str(site)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(site))
    assert "locallaunch.py" in result.stdout
