"""Projects that are repeated for several seeds."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmpt.launch.graph import dependencies, stages
from mmpt.launch.project import Project, expand_project, jobs_of
from mmpt.utils.config import read_yaml
from mmpt.utils.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PLAIN = """\
project_dir: seeds_test
base_dir: task
task_group:
  data: {task_list: [demo_corpus.yaml]}
  pretrain: {task_list: [how2.yaml]}
  finetune:
    task_list: [vtt_videoclip.yaml]
    fairseq: {checkpoint: {restore_file: runs/task/checkpoint_last.pt}}
  zero_shot:
    task_list: [test_vtt_zs.yaml]
    fairseq: {common_eval: {path: runs/task/checkpoint_last.pt}}
  fine_tuned: {task_list: [test_vtt_videoclip.yaml]}
  report: {task_list: [report.yaml]}
"""
SEEDS = "seeds: [3, 7]\n"


def _project(tmp_path: Path, more: str = SEEDS, overrides: tuple[str, ...] = ()) -> Project:
    path = tmp_path / "project.yaml"
    path.write_text(PLAIN + more, encoding="utf-8")
    return expand_project(path, overrides)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return _project(tmp_path_factory.mktemp("seeds"))


def test_each_training_and_each_of_its_tests_is_there_once_for_every_seed(project: Project, tmp_path: Path) -> None:
    plain = _project(tmp_path, "").jobs
    scripts = [job.name for job in plain if job.kind == "script"]
    others = [job.name for job in plain if job.kind != "script"]
    expected = {f"{Path(name).stem}_seed{seed}.yaml" for name in others for seed in (3, 7)}
    assert sorted(job.name for job in project.jobs) == sorted([*scripts, *expected])
    assert {job.task for job in project.jobs} == {job.name for job in plain}


def test_only_the_seed_and_the_folders_of_runs_differ(project: Project) -> None:
    by_name = {job.name: job for job in project.jobs}
    for name, job in by_name.items():
        if job.seed != 3:
            continue
        other = by_name[name.replace("_seed3", "_seed7")]
        text = OmegaConf.to_yaml(job.config).replace("runs/seeds_test/seed3", "runs/seeds_test/seed7")
        text = text.replace("    seed: 3\n", "    seed: 7\n")
        assert text == OmegaConf.to_yaml(other.config)
        if job.kind == "train":
            assert (job.config.fairseq.common.seed, other.config.fairseq.common.seed) == (3, 7)
    folders = [job.run_dir for job in project.jobs]
    assert len(set(folders)) == len(folders)


def test_a_test_waits_for_the_training_of_its_own_seed_alone(project: Project) -> None:
    kinds = {job.name: job.kind for job in project.jobs}
    needs = {
        name: {other for other in before if kinds[other] != "script"}
        for name, before in dependencies(project.jobs).items()
    }
    assert needs["how2_seed3.yaml"] == set()
    assert needs["test_vtt_zs_seed3.yaml"] == {"how2_seed3.yaml"}
    assert needs["test_vtt_videoclip_seed7.yaml"] == {"vtt_videoclip_seed7.yaml"}
    assert needs["vtt_videoclip_seed7.yaml"] == {"how2_seed7.yaml"}


def test_a_script_behind_the_tests_waits_for_those_of_all_seeds(project: Project) -> None:
    report = next(job for job in project.jobs if job.name == "report.yaml")
    assert report.seed is None
    assert dependencies(project.jobs)["report.yaml"] == {job.name for job in project.jobs} - {"report.yaml"}
    assert [job.name for job in stages(project)[-1]] == ["report.yaml"]


def test_tests_of_a_checkpoint_from_elsewhere_are_not_repeated(tmp_path: Path) -> None:
    elsewhere = "task_group.zero_shot.fairseq.common_eval.path=runs/else/checkpoint_last.pt"
    names = [job.name for job in _project(tmp_path, overrides=(elsewhere,)).jobs]
    assert "test_vtt_zs.yaml" in names
    assert "test_vtt_zs_seed3.yaml" not in names


def test_run_task_and_only_name_the_jobs_of_all_seeds_or_of_one(tmp_path: Path) -> None:
    project = _project(tmp_path, SEEDS + "run_task: [how2.yaml, test_vtt_zs_seed7.yaml]\n")
    assert [[job.name for job in stage] for stage in stages(project)] == [
        ["how2_seed3.yaml", "how2_seed7.yaml"],
        ["test_vtt_zs_seed7.yaml"],
    ]
    assert [job.name for job in jobs_of(project.path, only=["how2"])] == ["how2_seed3.yaml", "how2_seed7.yaml"]
    assert [job.name for job in jobs_of(project.path, only=["how2_seed7.yaml"])] == ["how2_seed7.yaml"]
    with pytest.raises(ConfigError, match="has no job 'how3'"):
        jobs_of(project.path, only=["how3"])


def test_what_is_set_for_a_group_lies_in_the_folder_of_each_seed(tmp_path: Path) -> None:
    item = "task_group.zero_shot.fairseq.common_eval.path=runs/task/checkpoint_best.pt"
    by_name = {job.name: job for job in _project(tmp_path, overrides=(item,)).jobs}
    for seed in (3, 7):
        assert str(by_name[f"test_vtt_zs_seed{seed}.yaml"].reads) == f"runs/seeds_test/seed{seed}/checkpoint_best.pt"


@pytest.mark.parametrize("seeds", ["[]", "[1, 1]", "[1, -2]", "[a]", "3", "[true]"])
def test_seeds_that_are_none_are_refused(tmp_path: Path, seeds: str) -> None:
    with pytest.raises(ConfigError, match="seeds must be a list of different whole numbers"):
        _project(tmp_path, f"seeds: {seeds}\n")


def test_one_seed_for_all_is_refused_where_the_project_has_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has seeds of its own"):
        _project(tmp_path, overrides=("fairseq.common.seed=5",))
    names = [job.name for job in _project(tmp_path, overrides=("seeds=[5]",)).jobs]
    assert "how2_seed5.yaml" in names


ABLATIONS = sorted((ROOT / "projects/ablations").glob("*.yaml"))


@pytest.fixture(scope="module")
def groups() -> Any:
    return read_yaml("projects/compare.yaml").task_group


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_runs_and_changes_the_same_systems_and_no_others(path: Path, groups: Any) -> None:
    ablation = read_yaml(path)
    trained, tested = ([str(name) for name in stage] for stage in ablation.run_task)
    systems = [name.removeprefix("compare_").removesuffix(".yaml") for name in trained]
    assert tested == [name for system in systems for name in groups[f"test_{system}"].task_list]
    assert trained == [name for system in systems for name in groups[system].task_list]
    changed = {name for name, group in ablation.task_group.items() if group != groups[name]}
    assert set(systems) <= changed <= {*systems, *(f"test_{system}" for system in systems)}
    assert ablation.seeds == [1, 2]
    assert ablation.project_dir == f"ablations/{path.stem}"


@pytest.mark.slow
@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_every_ablation_expands(path: Path) -> None:
    project = expand_project(path, ["seeds=[1]"])
    run = [job for stage in stages(project) for job in stage]
    trained = [job for job in run if job.kind == "train"]
    assert len(run) == 3 * len(trained)
    assert {job.reads for job in run if job.kind == "predict"} == {
        job.run_dir / "checkpoint_last.pt" for job in trained
    }
    assert not project.corrections
