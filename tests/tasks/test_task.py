"""Tasks in process: datasets, model and loss of a config, and one step of learning."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from mmpt.datasets.mmdataset import PADDING_STEP
from mmpt.models.videoclip import MMFusionSeparate
from mmpt.tasks.retri_task import VideoRetriTask
from mmpt.tasks.task import Task, config_task, data_workers
from mmpt.utils.errors import CheckpointError, ConfigError, DataError
from mmpt.utils.registry import register
from mmpt.utils.schema import validate


def built(config: dict[str, Any]) -> VideoRetriTask:
    torch.manual_seed(0)
    task = config_task(OmegaConf.create(config))
    task.build_dataset()
    task.build_model()
    task.build_loss()
    assert isinstance(task, VideoRetriTask)
    return task


def test_a_batch_is_a_group_of_videos_and_a_step_lowers_the_loss(pretraining_config: dict[str, Any]) -> None:
    task = built(pretraining_config)
    dataset = task.train_data
    batch = next(iter(DataLoader(dataset, batch_size=1, collate_fn=dataset.collater)))
    assert batch["caps"].shape == (1, 4, 3, 16)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.003)
    losses = []
    for _ in range(30):
        outputs = task(task.model, batch)
        assert outputs["batch_size"] == 12
        optimizer.zero_grad()
        outputs["loss"].backward()
        optimizer.step()
        losses.append(float(outputs["loss_scalar"]))
    assert losses[-1] < 0.7 * losses[0]


def test_the_model_handed_in_is_the_one_that_runs(pretraining_config: dict[str, Any]) -> None:
    task = built(pretraining_config)
    dataset = task.train_data
    batch = dataset.collater([dataset[0]])

    class Constant(nn.Module):
        def forward(self, caps: torch.Tensor, **kwargs: Any) -> dict[str, torch.Tensor]:
            return {"pooled_video": torch.zeros(len(caps), 4), "pooled_text": torch.zeros(len(caps), 4)}

    assert float(task(Constant(), batch)["loss"]) == pytest.approx(2 * np.log(12), rel=1e-6)


def test_a_padding_step_runs_the_model_and_does_not_count(pretraining_config: dict[str, Any]) -> None:
    pretraining_config["loss"]["global_negatives"] = True
    task = built(pretraining_config)
    batch = {**task.train_data.collater([task.train_data[0]]), PADDING_STEP: True}
    outputs = task(task.model, batch)
    assert batch[PADDING_STEP], "the batch is not ours to change"
    assert (outputs["sample_size"], outputs["batch_size"], float(outputs["loss_scalar"])) == (0, 0, 0.0)
    outputs["loss"].backward()
    gradients = [value.grad for value in task.model.parameters() if value.grad is not None]
    assert len(gradients) > 20 and not any(gradient.any() for gradient in gradients)
    task.loss_fn = lambda pooled_video, **others: pooled_video.square().mean()  # one's own, which knows of nothing
    assert float(task(task.model, batch)["loss_scalar"]) == 0


def test_retrieved_groups_hold_similar_videos_and_are_kept(pretraining_config: dict[str, Any], tmp_path: Path) -> None:
    task = built(pretraining_config)
    folder = tmp_path / "retri"
    state = torch.get_rng_state()
    task.prepare_epoch(task.model, 1, folder)
    assert torch.equal(state, torch.get_rng_state())
    first = [task.train_data.meta_processor[i][0] for i in range(len(task.train_data))]
    again = built(pretraining_config)
    again.prepare_epoch(again.model, 1, folder)
    assert [again.train_data.meta_processor[i][0] for i in range(len(again.train_data))] == first
    (folder / "batched_e1_videos.json").unlink()
    again.prepare_epoch(again.model, 1, folder)
    assert [again.train_data.meta_processor[i][0] for i in range(len(again.train_data))] == first, "same weights, same"
    task.prepare_epoch(task.model, 2, folder)
    second = [task.train_data.meta_processor[i][0] for i in range(len(task.train_data))]
    assert second != first
    assert all(len(group) <= 4 for group in first + second)


def test_groups_before_retri_epoch_are_random_and_cover_every_video(
    pretraining_config: dict[str, Any], tmp_path: Path
) -> None:
    task = built({**pretraining_config, "retri_epoch": 5})
    groups = task.random_groups(1)
    assert sorted(name for group in groups for name in group) == sorted(task.train_data.meta_processor.video_ids)
    assert groups != task.random_groups(2)
    task.prepare_epoch(task.model, 1, tmp_path / "retri")
    assert not (tmp_path / "retri").exists()


def test_groups_made_with_other_settings_are_made_again(
    pretraining_config: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = built(pretraining_config)
    task.prepare_epoch(task.model, 1, tmp_path)
    other = built({**pretraining_config, "num_cands": 5})
    other.prepare_epoch(other.model, 1, tmp_path)
    assert "other settings" in caplog.text
    (tmp_path / "batched_e1_videos.json").write_text("{}")
    with pytest.raises(DataError, match="batched_e1_videos.json"):
        task.prepare_epoch(task.model, 1, tmp_path)


def test_wrong_configs_say_what_is_wrong(pretraining_config: dict[str, Any]) -> None:
    config = OmegaConf.create(pretraining_config)
    config.fairseq.dataset.batch_size = 8
    with pytest.raises(ConfigError, match="num_video_per_batch"):
        config_task(config)
    config = OmegaConf.create(pretraining_config)
    config.dataset.aligner = None
    with pytest.raises(ConfigError, match=r"dataset\.aligner"):
        config_task(config).build_dataset()


def test_checkpoints_load_strictly(pretraining_config: dict[str, Any], tmp_path: Path) -> None:
    task = built(pretraining_config)
    state = {f"mmmodel.{key}": value for key, value in task.model.state_dict().items()}
    torch.save({"model": state}, tmp_path / "good.pt")
    torch.manual_seed(9)
    other = config_task(OmegaConf.create(pretraining_config))
    model = other.build_model(str(tmp_path / "good.pt"))
    assert all(torch.equal(value, state[f"mmmodel.{key}"]) for key, value in model.state_dict().items())
    state.pop("mmmodel.text_encoder.pooler.dense.bias")
    torch.save({"model": state}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match=r"text_encoder\.pooler\.dense\.bias"):
        other.load_checkpoint(str(tmp_path / "bad.pt"))


def test_features_of_another_width_stop_the_job_before_training(pretraining_config: dict[str, Any]) -> None:
    pretraining_config["model"]["input_dim"] = 99
    folder = pretraining_config["dataset"]["vfeat_dir"]
    with pytest.raises(
        DataError, match=r"features of video 'v00' have width 16, expected model\.input_dim=99"
    ) as caught:
        config_task(OmegaConf.create(pretraining_config)).build_dataset()
    assert folder in str(caught.value)
    pretraining_config["model"] = {}
    config_task(OmegaConf.create(pretraining_config)).build_dataset()


def test_features_of_single_videos_are_checked_too(pretraining_config: dict[str, Any], tiny_corpus: Path) -> None:
    pretraining_config["task"] = "Task"
    pretraining_config["dataset"] |= {
        "meta_processor": "MSRVTTMetaProcessor",
        "video_processor": "VideoProcessor",
        "text_processor": "MSRVTTTextProcessor",
        "aligner": "DSAligner",
        "split": "test",
        "test_path": str(tiny_corpus / "test.csv"),
        "vfeat_dir": str(tiny_corpus / "features"),
    }
    config_task(OmegaConf.create(pretraining_config)).build_dataset()
    pretraining_config["model"]["input_dim"] = 512
    with pytest.raises(DataError, match=r"features of video 'v18' have width 16, expected model\.input_dim=512"):
        config_task(OmegaConf.create(pretraining_config)).build_dataset()


def test_the_width_of_the_features_comes_from_the_data(pretraining_config: dict[str, Any]) -> None:
    del pretraining_config["model"]["input_dim"]
    task = config_task(OmegaConf.create(pretraining_config))
    task.build_dataset()
    assert task.build_model().video_encoder.videomlp.linear1.in_features == 16  # type: ignore[union-attr]
    assert "input_dim" not in task.config.model, "the settings that are saved stay the user's"


def test_contrasting_a_batch_needs_videos_and_texts_encoded_apart(pretraining_config: dict[str, Any]) -> None:
    pretraining_config["model"] = {"model_cls": "MMFusionJoint", "mm_encoder_cls": "MMBertForJoint", "init": "random"}
    task = config_task(OmegaConf.create(pretraining_config))
    task.build_dataset()
    task.build_loss()
    with pytest.raises(ConfigError, match=r"MMContraLoss compares every video.*MMFusionJoint.*num_iso_layer"):
        task.build_model()
    pretraining_config["dataset"]["num_iso_layer"] = 2
    task = config_task(OmegaConf.create(pretraining_config))
    task.build_dataset()
    task.build_loss()
    task.build_model()


def test_an_unknown_split_names_the_nearest(pretraining_config: dict[str, Any]) -> None:
    pretraining_config["dataset"]["split"] = "tset"
    with pytest.raises(ConfigError, match=r"dataset\.split: 'tset' is none of train, valid, test.*'test'"):
        config_task(OmegaConf.create(pretraining_config)).build_dataset()


def test_losses_are_configured_by_their_section(pretraining_config: dict[str, Any]) -> None:
    def loss_of(**section: Any) -> Any:
        pretraining_config["loss"] = {"loss_cls": "MMContraLoss", **section}
        config = OmegaConf.create(pretraining_config)
        validate(config, "job.yaml")
        return config_task(config).build_loss()

    loss = loss_of()
    assert (loss.temperature, loss.normalize) == (1.0, False)
    loss = loss_of(temperature=0.05, normalize=True)
    assert (loss.temperature, loss.normalize) == (0.05, True)
    for wrong in (0, -1.0, "warm", float("nan")):
        with pytest.raises(ConfigError, match="temperature"):
            loss_of(temperature=wrong)
    with pytest.raises(ConfigError, match=r"loss\.temprature.*'temperature'"):
        loss_of(temprature=0.1)
    assert config_task(OmegaConf.create({**pretraining_config, "loss": None})).build_loss() is None


def test_keys_of_a_loss_that_are_not_set_stay_with_its_preset(pretraining_config: dict[str, Any]) -> None:
    register("loss", "WarmLoss", "mmpt.losses.contrastive:MMContraLoss", temperature=7.0)
    pretraining_config["loss"] = {"loss_cls": "WarmLoss", "normalize": True}
    loss = config_task(OmegaConf.create(pretraining_config)).build_loss()
    assert (loss.temperature, loss.normalize) == (7.0, True)


def test_data_workers_come_from_either_section() -> None:
    config = OmegaConf.create({"dataset": {}, "fairseq": {"dataset": {"num_workers": 4}}})
    assert data_workers(config) == 4
    config.dataset.num_workers = 0
    assert data_workers(config) == 0
    assert data_workers(OmegaConf.create({})) == 0
    for wrong in (-1, "many"):
        config.dataset.num_workers = wrong
        with pytest.raises(ConfigError, match=r"dataset\.num_workers"):
            data_workers(config)


def test_videos_are_embedded_with_the_workers_of_training(
    pretraining_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretraining_config["fairseq"]["dataset"]["num_workers"] = 1
    used = []

    def loader(*args: Any, num_workers: int = 0, **kwargs: Any) -> DataLoader:
        used.append(num_workers)
        return DataLoader(*args, num_workers=num_workers, **kwargs)

    monkeypatch.setattr("mmpt.tasks.retri_task.DataLoader", loader)
    task = built(pretraining_config)
    assert task.retrieve_groups(task.model, 1) and used == [1]


def test_vectors_of_videos_are_the_same_for_any_number_of_workers(
    pretraining_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = built(pretraining_config)
    vectors: dict[int, dict[str, np.ndarray]] = {}
    for size in (1, 2, 3, 7):
        vectors[size] = {}
        for rank in range(size):
            handed: list[Any] = []

            def gather(states: list[Any], handed: list[Any] = handed) -> Any:
                handed.extend(states)
                raise KeyboardInterrupt  # the other workers are not there

            monkeypatch.setattr("mmpt.tasks.retri_task.world", lambda rank=rank, size=size: (rank, size))
            monkeypatch.setattr("mmpt.tasks.retri_task.gather_items", gather)
            with pytest.raises(KeyboardInterrupt):
                task.retrieve_groups(task.model, 1)
            ids, sums, _ = handed[0]
            assert not vectors[size].keys() & set(ids)
            vectors[size] |= dict(zip(ids, sums, strict=True))
        assert vectors[size].keys() == vectors[1].keys() and len(vectors[1]) == 18
        assert all(np.array_equal(vectors[size][name], vectors[1][name]) for name in vectors[1])


def test_groups_tell_what_they_were_made_from(pretraining_config: dict[str, Any], tmp_path: Path) -> None:
    task = built(pretraining_config)
    task.prepare_epoch(task.model, 1, tmp_path)
    path = tmp_path / "batched_e1_videos.json"
    content = json.loads(path.read_text())
    assert content["stats"]["videos"] == 18 and content["stats"]["clusters"] == len(content["groups"])
    pretraining_config["dataset"]["num_workers"] = 0
    assert built(pretraining_config)._read_groups(path) == content["groups"]
    for section, key, value in (("dataset", "max_len", 20), ("model", "num_hidden_video_layers", 2)):
        other = {**pretraining_config, section: {**pretraining_config[section], key: value}}
        assert built(other)._read_groups(path) is None


def test_a_test_takes_the_weights_that_its_config_names(tmp_path: Path) -> None:
    config = OmegaConf.merge(MMFusionSeparate.tiny_config(), {"eval": {"weights": "ema"}})
    state = {f"mmmodel.{key}": value for key, value in MMFusionSeparate(config).state_dict().items()}
    average = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save({"model": state, "extra_state": {"ema": average}}, tmp_path / "checkpoint_last.pt")
    assert not any(
        weight.any() for weight in Task(config).build_model(str(tmp_path / "checkpoint_last.pt")).parameters()
    )
    config.eval.weights = "model"
    assert any(weight.any() for weight in Task(config).build_model(str(tmp_path / "checkpoint_last.pt")).parameters())
    config.eval.weights = "mean"
    with pytest.raises(ConfigError, match="eval.weights: 'mean' is none of model, ema"):
        Task(config).build_model(str(tmp_path / "checkpoint_last.pt"))
