"""mmpt doctor: every check in made-up surroundings; one that crashes hides no other."""

import json
import sys
import types

import pytest

from mmpt_cli import doctor, doctor_findings, doctor_machine, doctor_packages
from mmpt_cli.doctor_findings import Finding, examine


def broken():
    raise RuntimeError("no such thing")


def fine():
    yield Finding("ok", "fine")


def levels(check):
    return [finding.level for finding in check()]


def test_a_check_that_crashes_is_a_finding():
    found = dict(examine([broken, fine]))
    assert found["broken"].level == "error" and "no such thing" in found["broken"].what
    assert found["fine"].level == "ok"


@pytest.mark.parametrize(("checks", "code", "worst"), [((fine,), 0, "ok"), ((broken, fine), 1, "error")])
def test_exit_code_and_json(monkeypatch, capsys, checks, code, worst):
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert doctor.main(["--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["worst"] == worst and len(document["findings"]) == len(checks)


def test_what_a_package_prints_does_not_spoil_the_json(monkeypatch, capsys):
    def greeting():
        print("hello from a package")
        yield Finding("ok", "fine")

    monkeypatch.setattr(doctor, "CHECKS", (greeting,))
    assert doctor.main(["--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["worst"] == "ok" and "hello" in told.err


def test_ranges_come_from_the_metadata(monkeypatch):
    lines = [
        "numpy>=1.26",
        "gone>=1",
        'av<19,>=15; extra == "video"',
        'sphinx>=8; extra == "docs"',
        'faiss>=1; extra == "retrieval"',
    ]
    versions = {"numpy": "1.20", "av": "15.1"}
    monkeypatch.setattr(doctor_packages.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(doctor_packages, "installed", lambda name: versions.get(name, ""))
    found = {finding.what.split()[0]: finding for finding in doctor_packages.required_packages()}
    assert {name: finding.level for name, finding in found.items()} == {
        "numpy": "error", "gone": "error", "av": "ok", "faiss": "note",
    }  # fmt: skip
    assert "1.26" in found["numpy"].fix and "mmpt[retrieval]" in found["faiss"].fix


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, ["ok"]),
        ({"MKL_THREADING_LAYER": "INTEL"}, ["warning"]),
        ({"MKL_THREADING_LAYER": "GNU"}, ["ok"]),
        ({"OMP_NUM_THREADS": "100000"}, ["warning"]),
        ({"OMP_NUM_THREADS": "many"}, ["warning"]),
    ],
)
def test_thread_variables(monkeypatch, variables, found):
    for name in ("MKL_THREADING_LAYER", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert levels(doctor_machine.thread_variables) == found


def test_a_second_copy_of_mmpt(monkeypatch, tmp_path):
    (tmp_path / "mmpt").mkdir()
    (tmp_path / "mmpt" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    (warning,) = [finding for finding in doctor_machine.copies_of_mmpt() if str(tmp_path) in finding.what]
    assert warning.level == "warning" and warning.fix


@pytest.mark.parametrize(("there", "level"), [((), "note"), (("sbatch",), "warning"), (doctor_machine._SLURM, "ok")])
def test_slurm(monkeypatch, there, level):
    monkeypatch.setattr(doctor_machine.shutil, "which", lambda name: name if name in there else None)
    assert levels(doctor_machine.slurm) == [level]
    assert levels(doctor_machine.java) == ["note"]


@pytest.mark.parametrize(
    ("free", "writable", "level"), [(1e9, True, "warning"), (1e12, True, "ok"), (1e12, False, "error")]
)
def test_folders(monkeypatch, free, writable, level):
    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=free))
    monkeypatch.setattr(doctor_machine.os, "access", lambda folder, mode: writable)
    assert set(levels(doctor_machine.folders)) == {level}


def test_offline_flags(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    assert [finding.what.split()[0] for finding in doctor_machine.hubs()] == ["HF_HUB_OFFLINE"]


@pytest.mark.parametrize(
    ("modules", "level"), [((), "ok"), (("apex",), "warning"), (("apex", "apex.multi_tensor_apply"), "ok")]
)
def test_apex(monkeypatch, modules, level):
    monkeypatch.setattr(doctor_packages, "find_spec", lambda name: name if name in modules else None)
    assert levels(doctor_packages.apex) == [level]


def test_torchaudio_of_another_torch(monkeypatch):
    monkeypatch.setattr(doctor_packages, "installed", lambda name: "2.0" if name == "torchaudio" else "")
    monkeypatch.setattr(doctor_packages, "import_problem", lambda name: "OSError: x" if name == "torchaudio" else "")
    (finding,) = doctor_packages.audio_and_vision()
    assert finding.level == "error" and finding.fix.endswith("uninstall -y torchaudio")


def test_fairseq(monkeypatch):
    monkeypatch.setattr(doctor_packages, "find_spec", lambda name: None)
    assert levels(doctor_packages.fairseq) == ["note"]
    monkeypatch.setattr(doctor_packages, "find_spec", lambda name: name)
    monkeypatch.setattr(doctor_packages, "installed", lambda name: "0.12.2" if name == "fairseq" else "")
    monkeypatch.setattr(doctor_packages, "import_problem", lambda name: "ValueError: mutable default")
    assert levels(doctor_packages.fairseq) == ["warning", "error"]


def test_python_version(monkeypatch):
    assert levels(doctor_packages.python_version) == ["ok"]
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    assert levels(doctor_packages.python_version) == ["error"]


def test_gpu_torch_without_a_gpu(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert levels(doctor_packages.torch_build) == ["ok", "warning"]


def test_real_video_and_search():
    pytest.importorskip("av")
    assert levels(doctor_packages.video_decoding) == ["ok"]
    pytest.importorskip("faiss")
    assert levels(doctor_packages.faiss_search) == ["ok"]


def test_import_problem_is_one_line():
    assert doctor_findings.import_problem("no_such_module").startswith("ModuleNotFoundError")
    assert doctor_findings.import_problem("json") == ""


def test_published_weights(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert levels(doctor_machine.published_weights) == ["note"]
    (tmp_path / "pretrained_models").mkdir()
    file = tmp_path / "pretrained_models" / "s3d_howto100m.pth"
    file.write_bytes(b"a page that says: not found")
    wrong, there = doctor_machine.published_weights()
    assert (wrong.level, there.level) == ("error", "ok")
    assert "s3d_howto100m.pth" in wrong.what and "fetch s3d" in wrong.fix and "s3d" in there.what
    monkeypatch.setattr(doctor_machine, "_QUICK_BYTES", 10)
    (there,) = doctor_machine.published_weights()
    assert there.level == "ok" and "1 large" in there.what


def test_repository_with_git_without_it_and_not_there(monkeypatch, tmp_path):
    (finding,) = doctor_machine.repository()
    assert finding.level == "ok"
    monkeypatch.setattr(doctor_machine.shutil, "which", lambda name: None)
    (finding,) = doctor_machine.repository()
    assert finding.level == "ok" and "without git" in finding.what
    monkeypatch.setattr("mmpt.utils.files.REPOSITORY", tmp_path)
    assert levels(doctor_machine.repository) == ["note"]
