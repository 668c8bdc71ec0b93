"""Every YAML that is shipped: projects expand and their commands can be built, script templates fit their scripts."""

import importlib
import importlib.util
from pathlib import Path

import pytest

from mmpt.launch.checkpoints import never_written
from mmpt.launch.commands import build_command
from mmpt.launch.graph import stages
from mmpt.launch.layout import Machine, job_type_of, local_layout
from mmpt.launch.project import expand_project, is_project
from mmpt.utils.config import read_yaml

ROOT = Path(__file__).parents[2]
YAMLS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.yaml", "mtm/*.yaml", "retri/*.yaml", "task/*.yaml")
    for path in (ROOT / "projects").glob(pattern)
)
PROJECTS = [path for path in YAMLS if is_project(read_yaml(path))]
SCRIPTS = [path for path in YAMLS if read_yaml(path).get("script")]


def test_the_lists_are_not_empty() -> None:
    assert len(PROJECTS) >= 7
    assert len(SCRIPTS) >= 6


@pytest.mark.parametrize("path", PROJECTS, ids=str)
def test_every_project_expands_into_well_formed_commands(path: Path) -> None:
    pytest.importorskip("fairseq")
    project = expand_project(path)
    assert path.read_text().startswith("# "), "a project begins with what it is and how to run it"
    for stage in stages(project):
        for job in stage:
            command = build_command(job, job.path, local_layout(job_type_of(job), Machine(gpus=0)), Machine(gpus=0))
            assert all(isinstance(item, str) and item for item in command.argv)
            assert not any(item in ("None", "True", "False") for item in command.argv), command.argv
    assert never_written(project.jobs, again=True) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_script_templates_use_flags_their_script_has(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_yaml(path)
    if str(config.script).startswith("-m "):
        module = importlib.import_module(str(config.script).removeprefix("-m "))
    else:
        spec = importlib.util.spec_from_file_location(path.stem, ROOT / str(config.script))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    help_text = capsys.readouterr().out
    flags = [f"--{str(name).replace('_', '-')}" for name in config.args if name != "positional"]
    for flag in [*flags, *([str(config.force_flag)] if config.get("force_flag") else [])]:
        assert f"{flag} " in help_text or f"{flag}," in help_text or f"{flag}]" in help_text, flag


def test_the_largest_project_lists_every_job_once() -> None:
    project = expand_project("projects/retri/videoclip.yaml")
    names = [job.name for stage in stages(project) for job in stage]
    assert sorted(names) == sorted({job.name for job in project.jobs})


def test_variants_of_a_pretraining_differ_in_what_they_vary_alone() -> None:
    videoclip, clip_level, milnce = (
        expand_project(f"projects/retri/{name}.yaml").jobs[0].config for name in ("videoclip", "clip_level", "milnce")
    )
    clips = videoclip.dataset.num_video_per_batch * videoclip.dataset.clip_per_video
    assert clip_level.fairseq.dataset.batch_size == clips
    assert milnce.fairseq.dataset.batch_size * milnce.dataset.num_candidates == clips
    for variant in (clip_level, milnce):
        videos = variant.fairseq.dataset.batch_size / variant.dataset.subsampling
        assert videos == videoclip.dataset.num_video_per_batch
    assert milnce.loss.loss_cls != clip_level.loss.loss_cls == videoclip.loss.loss_cls
    for variant in (clip_level, milnce):
        assert variant.model == videoclip.model
        for group in ("common", "optimization"):
            assert variant.fairseq[group] == videoclip.fairseq[group]
        for key in ("train_path", "val_path", "vfeat_dir", "tfeat_dir", "bert_name", "max_video_len", "max_len"):
            assert variant.dataset[key] == videoclip.dataset[key]
    for key in ("sampled_min_len", "sampled_max_len", "sampled_video_min_len", "sampled_video_max_len"):
        assert clip_level.dataset[key] == videoclip.dataset[key]


def test_the_demo_projects_share_the_jobs_that_make_their_data() -> None:
    """So whichever runs second finds them done: same folder, same settings."""
    shared = []
    for name in ("demo_data", "demo", "demo_vlm"):
        jobs = [job for job in expand_project(f"projects/{name}.yaml").jobs if job.kind == "script"]
        shared.append({job.name: (job.run_dir, job.config) for job in jobs if job.name != "report.yaml"})
    assert len(shared[0]) == 5
    assert shared[0] == shared[1] == shared[2]
