"""Every YAML that is shipped: projects expand and their commands can be built, script templates fit their scripts."""

import argparse
import functools
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from mmpt.launch.checkpoints import never_written
from mmpt.launch.commands import build_command
from mmpt.launch.graph import stages
from mmpt.launch.layout import Machine, job_type_of, local_layout
from mmpt.launch.project import Project, expand_project, is_project
from mmpt.utils.config import read_yaml

ROOT = Path(__file__).parents[2]
YAMLS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.yaml", "mlm/*.yaml", "mtm/*.yaml", "mvm/*.yaml", "retri/*.yaml", "script/*.yaml", "task/*.yaml")
    for path in (ROOT / "projects").glob(pattern)
)
PROJECTS = [path for path in YAMLS if path.parent.name != "task"]
#: Merging the included files of all of them would take long at each collection of the tests.
_SCRIPT = re.compile(r"^script:|^includes: .*/extract_segments\.yaml$", re.MULTILINE)
SCRIPTS = [path for path in YAMLS if _SCRIPT.search((ROOT / path).read_text())]


@functools.cache
def expanded(path: str) -> Project:
    """Expand a project once for all tests, which leave it as it is."""
    return expand_project(path)


def test_the_lists_are_not_empty() -> None:
    assert len(PROJECTS) >= 16
    assert len(SCRIPTS) >= 9
    settings = {path: read_yaml(path) for path in YAMLS}
    assert [path for path, config in settings.items() if is_project(config)] == PROJECTS
    assert [path for path, config in settings.items() if config.get("script")] == SCRIPTS


@pytest.mark.parametrize("path", PROJECTS, ids=str)
def test_every_project_expands_into_well_formed_commands(path: Path) -> None:
    pytest.importorskip("fairseq")
    project = expanded(str(path))
    assert path.read_text().startswith("# "), "a project begins with what it is and how to run it"
    for stage in stages(project):
        for job in stage:
            command = build_command(job, job.path, local_layout(job_type_of(job), Machine(gpus=0)), Machine(gpus=0))
            assert all(isinstance(item, str) and item for item in command.argv)
            assert not any(item in ("None", "True", "False") for item in command.argv), command.argv
    assert never_written(project.jobs, again=True) == []


@pytest.mark.parametrize("path", PROJECTS, ids=str)
def test_no_training_asks_for_switches_that_do_not_go_together(path: Path) -> None:
    fairseq_switches = pytest.importorskip("mmpt.tasks.fairseq_switches")
    for job in expanded(str(path)).jobs:
        groups = (job.config.get("fairseq") or {}).values()
        flags = {str(key): value for group in groups if hasattr(group, "items") for key, value in group.items()}
        fairseq_switches.check_switches(argparse.Namespace(**flags))


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
    project = expanded("projects/retri/videoclip.yaml")
    names = [job.name for stage in stages(project) for job in stage]
    assert sorted(names) == sorted({job.name for job in project.jobs})


def test_variants_of_a_pretraining_differ_in_what_they_vary_alone() -> None:
    videoclip, clip_level, milnce = (
        expanded(f"projects/retri/{name}.yaml").jobs[0].config for name in ("videoclip", "clip_level", "milnce")
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


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (("demo_data", "demo", "demo_vlm"), 5),
        (("demo_frames_data", "demo_violet", "demo_lavender"), 3),
        (("demo_stories_data", "demo_merlot", "demo_reserve"), 6),
    ],
)
def test_the_demo_projects_share_the_jobs_that_make_their_data(names: tuple[str, ...], count: int) -> None:
    """So whichever runs second finds them done: same folder, same settings."""
    shared = []
    for name in names:
        jobs = [job for job in expanded(f"projects/{name}.yaml").jobs if job.kind == "script"]
        shared.append({job.run_dir: job.config for job in jobs if job.name != "report.yaml"})
    assert len(shared[0]) == count
    assert shared[0] == shared[1] == shared[2]


@pytest.mark.parametrize(("project", "prefix"), [("mvm/violet", "violet_"), ("mlm/lavender", "lavender_")])
def test_every_task_of_the_args_tables_is_tested_and_all_but_one_are_trained(project: str, prefix: str) -> None:
    jobs = {Path(job.name).stem: job for job in expanded(f"projects/{project}.yaml").jobs}
    tests = {name.removeprefix(f"test_{prefix}") for name in jobs if name.startswith(f"test_{prefix}")}
    zero_shot = {name for name in tests if name.endswith("_zs")}
    trained = {name.removeprefix(prefix) for name in jobs if name.startswith(prefix)} - {"pretrain"}
    assert tests - zero_shot - trained == {"msrvtt_mc"}  # which has no training set
    assert trained < tests
    assert len(tests - zero_shot) == {"violet_": 12, "lavender_": 14}[prefix]
    for name in zero_shot:
        pretrained, fine_tuned = jobs[f"test_{prefix}{name}"], jobs[f"test_{prefix}{name.removesuffix('_zs')}"]
        assert pretrained.config.dataset == fine_tuned.config.dataset
        assert pretrained.reads != fine_tuned.reads
        assert str(pretrained.reads) == f"runs/{project}/checkpoint_best.pt"


def test_what_decays_in_lavender_is_what_decayed_in_the_published_training() -> None:
    """These patterns give the published groups of parameters: tests/models/test_lavender.py."""
    for path in sorted((ROOT / "projects/mlm").glob("lavender*.yaml")):
        for job in expanded(str(path)).jobs:
            if job.kind == "train":
                optim = job.config.optim.weight_decay_multipliers
                assert optim == {"*": 1.0, "*bias*": 0.0, "*LayerNorm.weight": 0.0}, job.name
                assert job.config.fairseq.optimization.optimizer == "mmadamw"
