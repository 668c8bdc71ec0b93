"""Tasks in process: datasets, model and loss of a config, and one step of learning."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from mmpt.tasks.retri_task import VideoRetriTask
from mmpt.tasks.task import config_task, flatten_samples
from mmpt.utils.errors import CheckpointError, ConfigError, DataError


def built(config: dict[str, Any]) -> VideoRetriTask:
    torch.manual_seed(0)
    task = config_task(OmegaConf.create(config))
    task.build_dataset()
    task.build_model()
    task.build_loss()
    assert isinstance(task, VideoRetriTask)
    return task


def test_leading_dimensions_are_merged_in_order() -> None:
    caps = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    batch = {"caps": caps, "vfeats": torch.rand(2, 3, 4, 6, 7), "idx": torch.tensor([1, 2]), "video_id": ["a"]}
    flat = flatten_samples(batch)
    assert flat["caps"].shape == (24, 5)
    assert torch.equal(flat["caps"][1 * 12 + 2 * 4 + 3], caps[1, 2, 3])
    assert flat["vfeats"].shape == (24, 6, 7)
    assert flat["idx"].shape == (2,)
    assert flatten_samples(flat) is flat


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
    config.model.input_dim = 99
    task = built(config)
    with pytest.raises(DataError, match="input_dim"):
        task(task.model, task.train_data.collater([task.train_data[0]]))
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
