"""MILNCETask: candidates side by side for the model, and a step of learning with the loss that reads them."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from mmpt.losses.nce import MILNCELoss
from mmpt.tasks.milnce_task import MILNCETask
from mmpt.tasks.task import config_task
from mmpt.utils.errors import DataError
from mmpt.utils.schema import validate


@pytest.fixture
def milnce_config(pretraining_config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a small MIL-NCE pre-training."""
    dataset = pretraining_config["dataset"]
    for key in [key for key in dataset if key.startswith("sampled") or key == "num_video_per_batch"]:
        del dataset[key]
    dataset |= {
        "meta_processor": "ShardedHow2MetaProcessor",
        "video_processor": "ShardedVideoProcessor",
        "text_processor": "ShardedTextProcessor",
        "aligner": "How2MILNCEAligner",
        "num_candidates": 2,
        "min_time": 4.0,
    }
    return {
        "task": "MILNCETask",
        "dataset": dataset,
        "model": pretraining_config["model"],
        "loss": {"loss_cls": "MILNCELoss"},
        "fairseq": pretraining_config["fairseq"],
    }


def built(config: dict[str, Any]) -> MILNCETask:
    torch.manual_seed(0)
    task = config_task(OmegaConf.create(config))
    task.build_dataset()
    task.build_model()
    task.build_loss()
    assert isinstance(task, MILNCETask)
    return task


def test_the_settings_are_known(milnce_config: dict[str, Any]) -> None:
    validate(OmegaConf.create(milnce_config), "milnce.yaml")


def test_candidates_become_texts_and_their_clips_stay_one_video_each(milnce_config: dict[str, Any]) -> None:
    task = built(milnce_config)
    batch = task.train_data.collater([task.train_data[i] for i in range(5)])
    assert batch["caps"].shape == (5, 3, 2, 16) and batch["vfeats"].shape == (5, 3, 8, 16)
    flat = task.flat_subsample(batch)
    assert flat["caps"].shape == flat["cmasks"].shape == (30, 16)
    assert flat["vfeats"].shape == (15, 8, 16) and flat["vmasks"].shape == (15, 8)
    assert flat["video_start"].shape == (15,) and flat["video_id"] == batch["video_id"]
    for video in range(15):
        assert torch.equal(flat["vfeats"][video], batch["vfeats"][video // 3, video % 3])
        for candidate in range(2):
            for key in ("caps", "cmasks"):
                expected = batch[key][video // 3, video % 3, candidate]
                assert torch.equal(flat[key][2 * video + candidate], expected)
    assert batch["caps"].shape == (5, 3, 2, 16), "the batch is left alone"


def test_the_loss_is_that_of_the_pooled_clips_and_texts(milnce_config: dict[str, Any]) -> None:
    task = built(milnce_config)
    task.model.eval()
    batch = task.train_data.collater([task.train_data[i] for i in range(4)])
    outputs = task(task.model, batch)
    flat = task.flat_subsample(batch)
    video = task.model.encode_video(flat["vfeats"], flat["vmasks"])
    text = task.model.encode_text(flat["caps"], flat["cmasks"])
    assert video.shape == (12, 32) and text.shape == (24, 32)
    torch.testing.assert_close(outputs["loss"], MILNCELoss()(video, text))
    assert outputs["batch_size"] == 24 and outputs["max_len"] == 16 and outputs["sample_size"] == 1


@pytest.mark.parametrize("model_cls", ["MMFusionSeparate", "MMFusionShare"])
def test_steps_lower_the_loss(milnce_config: dict[str, Any], model_cls: str) -> None:
    milnce_config["model"]["model_cls"] = model_cls
    if model_cls == "MMFusionShare":
        milnce_config["model"] = {"model_cls": model_cls, "input_dim": 16, "init": "random"}
    task = built(milnce_config)
    dataset = task.train_data
    batch = next(iter(DataLoader(dataset, batch_size=4, collate_fn=dataset.collater)))
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.003)
    losses = []
    for _ in range(30):
        outputs = task(task.model, batch)
        optimizer.zero_grad()
        outputs["loss"].backward()
        optimizer.step()
        losses.append(float(outputs["loss_scalar"]))
    assert losses[-1] < 0.7 * losses[0]


def test_texts_without_candidates_are_refused(milnce_config: dict[str, Any]) -> None:
    milnce_config["dataset"]["aligner"] = "FixedLenAligner"
    task = built(milnce_config)
    batch = task.train_data.collater([task.train_data[0]])
    with pytest.raises(DataError, match=r"dataset\.aligner: texts \(1, 3, 16\)"):
        task(task.model, batch)
