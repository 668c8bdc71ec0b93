"""What a model may be loaded from, and what is said where it cannot be."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from mmpt.api.loading import find_model
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.utils.errors import CheckpointError, ConfigError, MMPTError
from mmpt.utils.weight_files import load_state_dict_file, save_safetensors
from tests.api.tiny_models import write_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder with the best and the last checkpoint, which differ in every weight."""
    run = write_model(tmp_path_factory.mktemp("sources"), "MMFusionSeparate")
    stored = torch.load(run / "checkpoint_best.pt", weights_only=False)
    stored["model"] = {key: value + 1 if value.is_floating_point() else value for key, value in stored["model"].items()}
    torch.save(stored, run / "checkpoint_last.pt")
    return run


def settings_of(run: Path, **fairseq: Any) -> Any:
    config = OmegaConf.load(run / "config.yaml")
    return OmegaConf.merge(config, {"fairseq": {"dataset": {"batch_size": 2}, **fairseq}})


def weights_of(pipeline: VideoTextPipeline) -> float:
    return float(next(pipeline.model.parameters()).detach().flatten()[0])


def test_every_kind_of_source_gives_the_weights_it_means(run: Path, tmp_path: Path) -> None:
    job, test = tmp_path / "job.yaml", tmp_path / "test.yaml"
    OmegaConf.save(settings_of(run, checkpoint={"save_dir": str(run)}), job)
    OmegaConf.save(settings_of(run, common_eval={"path": str(run / "checkpoint_last.pt")}), test)
    tested = tmp_path / "eval"
    tested.mkdir()
    shutil.copy(test, tested / "config.yaml")
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copy(run / "config.yaml", plain)
    state = load_state_dict_file(run / "checkpoint_last.pt")
    save_safetensors(plain / "mine.safetensors", {f"mmmodel.{key}": value for key, value in state.items()}, {})
    load = VideoTextPipeline.from_pretrained
    best = weights_of(load(run))
    for source, options, more in (
        (str(run), {}, 0),
        (run, {"checkpoint": "checkpoint_last.pt"}, 1),
        (run, {"checkpoint": run / "checkpoint_last.pt"}, 1),
        (run / "checkpoint_last.pt", {}, 1),
        (job, {}, 0),
        (job, {"checkpoint": "checkpoint_last.pt"}, 1),
        (test, {}, 1),
        (tested, {}, 1),
        (plain / "mine.safetensors", {}, 1),
    ):
        pipeline = load(source, **options)
        assert weights_of(pipeline) == pytest.approx(best + more), (source, options)
        assert pipeline.source == str(source)


def test_a_job_that_a_project_would_write_is_expanded_in_memory(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "projects" / "base").mkdir(parents=True)
    shutil.copytree(Path(__file__).parents[1] / "data" / "tiny_bert", tmp_path / "tests" / "data" / "tiny_bert")
    OmegaConf.save(settings_of(run), tmp_path / "projects" / "base" / "how2.yaml")
    group = {"task_list": ["how2.yaml"], "task_type": "local_single", "model": {"init": "random"}}
    group["fairseq"] = {"checkpoint": {"save_dir": str(run)}}
    project = {"project_dir": "mine", "base_dir": "base", "task_group": {"pretrain": group}}
    (tmp_path / "projects" / "mine.yaml").write_text(yaml.safe_dump(project))
    place = find_model("projects/mine/how2.yaml", overrides=["dataset.max_video_len=7"])
    assert place.weights == run / "checkpoint_best.pt" and place.settings.dataset.max_video_len == 7
    assert not (tmp_path / "projects" / "mine").exists()
    with pytest.raises(ConfigError, match=r"expands to no such job, but to how2\.yaml"):
        find_model("projects/mine/other.yaml")
    with pytest.raises(ConfigError, match="is a project, of several jobs"):
        find_model("projects/mine.yaml")


def test_what_cannot_be_loaded_is_named_with_what_to_do(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs" / "one").mkdir(parents=True)
    OmegaConf.save(settings_of(run), tmp_path / "runs" / "one" / "config.yaml")
    other = write_model(tmp_path, "MMFusionJoint")
    shutil.copy(other / "checkpoint_best.pt", tmp_path / "alone.pt")
    (tmp_path / "cut.pt").write_bytes((other / "checkpoint_best.pt").read_bytes()[:5000])
    shutil.copy(other / "config.yaml", tmp_path / "empty" / "kept.txt")
    cases: list[tuple[Any, dict[str, Any], type[MMPTError], str]] = [
        (tmp_path / "no", {}, CheckpointError, "no: no such file or folder. Name the YAML of a job"),
        (tmp_path / "no.yaml", {}, ConfigError, r"no\.yaml: no such file, nor a project"),
        (tmp_path / "empty", {}, CheckpointError, "neither a run folder nor one of save_pretrained"),
        (tmp_path / "runs", {}, CheckpointError, "There are runs below: .*one"),
        (tmp_path / "runs" / "one", {}, CheckpointError, "the training has written no checkpoint"),
        (run, {"checkpoint": "none.pt"}, CheckpointError, r"none\.pt: there is no such checkpoint"),
        (tmp_path / "alone.pt", {}, ConfigError, r"alone\.pt: nothing says what model it is of"),
        (run, {"checkpoint": tmp_path / "cut.pt"}, CheckpointError, r"cut\.pt: damaged"),
        (run, {"checkpoint": tmp_path / "alone.pt"}, CheckpointError, r"alone\.pt: does not fit MMFusionSeparate"),
        (run, {"overrides": ["model.nope=1"]}, ConfigError, "unknown key 'model.nope'"),
        (run, {"device": "tpu9"}, ConfigError, "device 'tpu9' is not known"),
    ]
    for source, options, kind, match in cases:
        with pytest.raises(kind, match=match):
            VideoTextPipeline.from_pretrained(source, **options)


def test_a_hub_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("no route to host\nand more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match=r"^org/name: .* at revision v2 \(no route to host\)$"):
        VideoTextPipeline.from_pretrained("org/name", revision="v2")


def test_features_of_shards_are_known_by_the_shards_of_features(run: Path, tmp_path: Path) -> None:
    """Beside them lie those of captions, which know nothing of an encoder and come first by name."""
    known = {"encoder": "conv3d", "random_init": 3}
    for name, producer in (("raw.bert.train_0.caps_ids", {"tool": "t"}), ("train_0", {"provenance": known})):
        (tmp_path / f"{name}_index.json").write_text(json.dumps({"producer": producer}))
    pipeline = VideoTextPipeline.from_pretrained(run, overrides=[f"dataset.vfeat_dir={tmp_path}"])
    assert pipeline.provenance == known


def test_no_call_leaves_tensors_where_the_model_is_not(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second device of a machine without one: what reaches the model must have been moved there."""
    pipeline = VideoTextPipeline.from_pretrained(run, device="cpu")
    moved: list[torch.device] = []
    device = torch.device("cpu", 0)
    monkeypatch.setattr(type(pipeline.comparer), "device", device)
    plain = torch.Tensor.to

    def noted(self: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if device in arguments:
            moved.append(device)
            return plain(self, *arguments, **options).as_subclass(_There)
        return plain(self, *arguments, **options)

    def seen(module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        assert all(isinstance(one, _There) for one in (*arguments, *options.values()) if isinstance(one, torch.Tensor))

    monkeypatch.setattr(torch.Tensor, "to", noted)
    for name in ("encode_video", "encode_text"):
        call = getattr(pipeline.model, name)
        monkeypatch.setattr(pipeline.model, name, lambda *a, _call=call, **o: (seen(None, a, o), _call(*a, **o))[1])
    found = pipeline.similarity(["w5", "w6"], torch.ones(3, 512))
    assert found.shape == (2, 1) and len(moved) == 4


class _There(torch.Tensor):
    """A tensor that was moved."""
