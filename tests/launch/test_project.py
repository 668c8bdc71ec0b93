"""Project expansion: parity with the published settings, order, corrections, bad projects."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmpt.launch.graph import dependencies, stages
from mmpt.launch.project import Project, expand_project, job_from_yaml, write_jobs
from mmpt.utils.errors import ConfigError

PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "expanded_jobs.json").read_text())
PROJECTS = ["mfmmlm", "mtm/mmfusionmtm", "mtm/vlm", "retri/videoretri", "retri/videoclip"]
#: Every key in which our jobs differ from the published ones, and why (mmpt/launch/corrections.py).
CORRECTED = {"mfmmlm/how2.yaml": {"model.mm_encoder_cls"}}
_ENCODERS = ("model_cls", "mm_encoder_cls", "video_encoder_cls", "text_encoder_cls", "num_hidden_video_layers")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result = {}
    for key, value in values.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return result


@pytest.mark.parametrize("name", PROJECTS)
def test_jobs_have_the_published_settings(name: str) -> None:
    project = expand_project(f"projects/{name}.yaml")
    expected = {key for key in PUBLISHED if key.startswith(f"{name}/") and "/" not in key[len(name) + 1 :]}
    assert {f"{name}/{job.name}" for job in project.jobs} == expected
    test_paths = {PUBLISHED[key].get("dataset.test_path") for key in expected}
    for job in project.jobs:
        key = f"{name}/{job.name}"
        ours, theirs = flat(OmegaConf.to_container(job.config)), PUBLISHED[key]
        missing = object()
        differ = {item for item in ours | theirs if ours.get(item, missing) != theirs.get(item, missing)}
        allowed = set(CORRECTED.get(key, ()))
        if name == "retri/videoretri" and job.name != "how2.yaml":  # its checkpoints are of one shared encoder
            allowed |= {f"model.{item}" for item in _ENCODERS}
            assert "Separate" not in ours["model.model_cls"]
        if theirs.get("dataset.val_path") in test_paths and job.kind == "train":
            allowed |= {"dataset.val_path", "dataset.val_holdout"}
            assert ours["dataset.val_holdout"] > 0
            assert ours["dataset.val_path"] == ours["dataset.train_path"], "selection on held-out training videos"
        if theirs.get("fairseq.common_eval.path", "").endswith("checkpoint_last.pt"):
            allowed.add("fairseq.common_eval.path")
            assert ours["fairseq.common_eval.path"].endswith("checkpoint_best.pt"), "chosen on the held-out videos"
        assert differ <= allowed, (key, differ - allowed)


def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: str, **tasks: str) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "projects" / "base").mkdir(parents=True)
    for name, text in tasks.items():
        (tmp_path / "projects" / "base" / f"{name}.yaml").write_text(text)
    path = tmp_path / "projects" / "mine.yaml"
    path.write_text(f"project_dir: mine\nbase_dir: base\n{project}")
    return Path("projects/mine.yaml")


TRAIN = "dataset: {train_path: a.lst, val_path: b.lst}\nfairseq: {checkpoint: {save_dir: runs/base}}\n"
TUNE = (
    "dataset: {train_path: t.csv, val_path: test.csv}\n"
    "fairseq: {checkpoint: {save_dir: runs/base/ft, restore_file: runs/base/checkpoint_best.pt}}\n"
)
ZERO = (
    "task_type: local_predict\ndataset: {split: test, test_path: test.csv}\n"
    "fairseq: {common_eval: {path: runs/base/checkpoint_best.pt}}\neval: {save_path: runs/base/zs/eval}\n"
)
TEST = ZERO.replace("runs/base/checkpoint", "runs/base/ft/checkpoint").replace("runs/base/zs", "runs/base/ft")
ALL = """
task_group:
  test: {task_list: [test.yaml, zero.yaml]}
  finetune: {task_list: [tune.yaml]}
  pretrain: {task_list: [train.yaml], fairseq: {optimization: {max_epoch: 7}}}
"""


def names(project: Project) -> list[list[str]]:
    return [[job.name for job in stage] for stage in stages(project)]


def test_order_follows_checkpoints_not_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, monkeypatch, ALL, train=TRAIN, tune=TUNE, zero=ZERO, test=TEST)
    project = expand_project(path)
    assert names(project) == [["train.yaml"], ["zero.yaml", "tune.yaml"], ["test.yaml"]]
    by_name = {job.name: job for job in project.jobs}
    assert by_name["train.yaml"].config.fairseq.optimization.max_epoch == 7
    assert str(by_name["test.yaml"].reads) == "runs/mine/ft/checkpoint_best.pt", "runs/base became runs/mine"
    assert dependencies(project.jobs)["test.yaml"] == {"tune.yaml"}


def test_selection_on_test_data_is_corrected_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, monkeypatch, ALL, train=TRAIN, tune=TUNE, zero=ZERO, test=TEST)
    project = expand_project(path)
    tune = next(job for job in project.jobs if job.name == "tune.yaml")
    assert (tune.config.dataset.val_path, tune.config.dataset.val_holdout) == ("t.csv", 0.05)
    assert {(item.job, item.key) for item in project.corrections} == {
        ("tune.yaml", "dataset.val_path"),
        ("tune.yaml", "dataset.val_holdout"),
    }
    back = expand_project(path, ["dataset.val_path=test.csv", "dataset.val_holdout=0"])
    assert next(job for job in back.jobs if job.name == "tune.yaml").config.dataset.val_path == "test.csv"


def test_a_file_that_names_its_splits_itself_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune = TUNE.replace("dataset: {", "dataset: {meta_processor: ClipRetrievalMetaProcessor, ")
    assert tune != TUNE
    project = expand_project(make(tmp_path, monkeypatch, ALL, train=TRAIN, tune=tune, zero=ZERO, test=TEST))
    assert not project.corrections


def test_the_class_that_never_existed_is_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = "task_group: {a: {task_list: [train.yaml], model: {mm_encoder_cls: MMFusionForMFMMLM}}}\n"
    project = expand_project(make(tmp_path, monkeypatch, group, train=TRAIN))
    assert project.jobs[0].config.model.mm_encoder_cls == "MMBertForMFMMLM"


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("", "MMFusionShare"),
        ("ActionLocalization", "MMFusionShareActionLocalization"),
        ("ActionSegmentation", "MMFusionActionSegmentation"),
    ],
)
def test_what_begins_from_a_shared_encoder_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, model: str
) -> None:
    towers = (
        f"model: {{model_cls: MMFusionSeparate{task}, mm_encoder_cls: null, video_encoder_cls: MMBertForEncoder,"
        " text_encoder_cls: BertModel, num_hidden_video_layers: 6}\n"
    )
    shared = "model: {model_cls: MMFusionShare, mm_encoder_cls: MMBertForEncoder}\n"
    tasks = {"tune": TUNE + towers, "zero": ZERO + towers, "test": TEST + towers}
    path = make(tmp_path, monkeypatch, ALL, train=TRAIN + shared, **tasks)
    jobs = {job.name: job.config.model for job in expand_project(path).jobs}
    for name in ("tune.yaml", "zero.yaml", "test.yaml"):
        assert jobs[name].model_cls == model
        assert set(jobs[name]) == {"model_cls", "mm_encoder_cls"}
    (tmp_path / "projects" / "base" / "train.yaml").write_text(TRAIN + towers)
    kept = {job.name: job.config.model for job in expand_project(path).jobs}
    assert kept["test.yaml"].model_cls == f"MMFusionSeparate{task}"


def test_overrides_reach_jobs_or_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, monkeypatch, ALL, train=TRAIN, tune=TUNE, zero=ZERO, test=TEST)
    every = expand_project(path, ["fairseq.optimization.max_epoch=2"])
    assert {job.config.fairseq.optimization.max_epoch for job in every.jobs} == {2}
    one = expand_project(path, ["task_group.pretrain.fairseq.optimization.max_epoch=2", "project_dir=other"])
    by_name = {job.name: job.config for job in one.jobs}
    assert by_name["train.yaml"].fairseq.optimization.max_epoch == 2
    assert "optimization" not in by_name["tune.yaml"].fairseq
    assert by_name["train.yaml"].fairseq.checkpoint.save_dir == "runs/other"


@pytest.mark.parametrize("turned", [False, True])
def test_an_override_of_one_group_wins_over_a_general_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turned: bool
) -> None:
    path = make(tmp_path, monkeypatch, ALL, train=TRAIN, tune=TUNE, zero=ZERO, test=TEST)
    overrides = [
        "fairseq.optimization.max_epoch=2",
        "task_group.pretrain.fairseq.optimization.max_epoch=3",
        "fairseq.checkpoint.restore_file=x.pt",
        "task_group.finetune.fairseq.checkpoint.restore_file=runs/base/checkpoint_last.pt",
    ]
    jobs = {job.name: job for job in expand_project(path, overrides[::-1] if turned else overrides).jobs}
    assert jobs["train.yaml"].config.fairseq.optimization.max_epoch == 3
    assert jobs["tune.yaml"].config.fairseq.optimization.max_epoch == 2
    assert str(jobs["train.yaml"].reads) == "x.pt"
    assert str(jobs["tune.yaml"].reads) == "runs/mine/checkpoint_last.pt", "moved as the templates' paths are"


def test_run_task_restricts_orders_and_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = "run_task: [train.yaml, [zero.yaml, vttcap.yaml]]\n" + ALL
    project = expand_project(make(tmp_path, monkeypatch, text, train=TRAIN, tune=TUNE, zero=ZERO, test=TEST))
    assert names(project) == [["train.yaml"], ["zero.yaml"]]
    assert "vttcap.yaml" in caplog.text
    (tmp_path / "projects" / "mine.yaml").write_text(
        "project_dir: mine\nbase_dir: base\nrun_task: [zero.yaml, train.yaml]\n" + ALL
    )
    with pytest.raises(ConfigError, match=r"zero\.yaml before or beside train\.yaml"):
        stages(expand_project("projects/mine.yaml"))


def test_scripts_come_before_later_groups_and_after_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
task_group:
  prepare: {task_list: [make.yaml, cut.yaml]}
  pretrain: {task_list: [train.yaml]}
  report: {task_list: [show.yaml]}
"""
    script = "script: scripts/x.py\nargs: {out: data/x}\n"
    path = make(tmp_path, monkeypatch, text, make=script, cut=script, train=TRAIN, show=script)
    assert names(expand_project(path)) == [["make.yaml"], ["cut.yaml"], ["train.yaml"], ["show.yaml"]]


def test_bad_projects_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, monkeypatch, "task_group: {a: {task_list: [trian.yaml]}}\n", train=TRAIN, copy=TRAIN)
    with pytest.raises(ConfigError, match=r"mine\.yaml.*trian\.yaml.*'train\.yaml'"):
        expand_project(path)
    path.write_text("project_dir: mine\nbase_dir: base\ntask_grup: {}\n")
    with pytest.raises(ConfigError, match=r"'task_grup'.*'task_group'"):
        expand_project(path)
    path.write_text("project_dir: mine\nbase_dir: base\ntask_group: {a: {task_list: [train.yaml, copy.yaml]}}\n")
    with pytest.raises(ConfigError, match="both write"):
        expand_project(path)


def test_writing_is_idempotent_and_jobs_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, monkeypatch, ALL, train=TRAIN, tune=TUNE, zero=ZERO, test=TEST)
    project = expand_project(path)
    write_jobs(project)
    before = {file: file.stat().st_mtime_ns for file in Path("projects/mine").iterdir()}
    assert len(before) == 4
    write_jobs(expand_project(path))
    assert before == {file: file.stat().st_mtime_ns for file in Path("projects/mine").iterdir()}
    for job in project.jobs:
        alone = job_from_yaml(job.path)
        assert (alone.config, alone.kind, alone.run_dir) == (job.config, job.kind, job.run_dir)
