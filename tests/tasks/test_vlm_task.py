"""VLM's task: the order in which a batch's samples are flattened."""

import pytest
import torch
from omegaconf import OmegaConf

from mmpt.losses import MTM
from mmpt.models import MMFusionMTM
from mmpt.tasks.task import Task, config_task
from mmpt.tasks.vlm_task import VLMTask


def batch(videos: int, clips: int) -> dict:
    numbers = torch.arange(videos * clips).reshape(videos, clips)
    return {
        "caps": numbers[..., None].expand(videos, clips, 16),
        "vfeats": numbers[..., None, None].expand(videos, clips, 8, 2).float(),
        "text_start": numbers,
        "idx": torch.arange(videos),
        "video_id": [f"v{number}" for number in range(videos)],
    }


@pytest.mark.parametrize(
    ("videos", "clips", "order"),
    [(1, 4, [0, 2, 1, 3]), (2, 4, [0, 2, 4, 6, 1, 3, 5, 7]), (2, 3, [0, 2, 4, 1, 3, 5]), (3, 1, [0, 2, 1])],
)
def test_even_samples_come_first(videos: int, clips: int, order: list[int]) -> None:
    task = config_task(OmegaConf.create({"task": "VLMTask"}))
    assert type(task) is VLMTask
    given = batch(videos, clips)
    flat = task.flat_subsample(given)
    assert flat["caps"][:, 0].tolist() == order and flat["caps"].shape == (videos * clips, 16)
    assert flat["vfeats"][:, 0, 0].tolist() == order and flat["vfeats"].shape == (videos * clips, 8, 2)
    assert flat["text_start"].tolist() == order
    assert flat["idx"].tolist() == list(range(videos)) and flat["video_id"] == given["video_id"]


def test_a_batch_without_clips_stays() -> None:
    given = {"caps": torch.arange(6)[:, None].expand(6, 16), "video_id": list("abcdef")}
    flat = VLMTask(OmegaConf.create({})).flat_subsample(given)
    assert torch.equal(flat["caps"], given["caps"]) and flat["video_id"] is given["video_id"]


def test_the_loss_does_not_depend_on_the_order() -> None:
    torch.manual_seed(0)
    model, loss = MMFusionMTM(MMFusionMTM.tiny_config()).eval(), []
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(4, 17, (2, 3, 1), generator=generator)
    cmasks = torch.arange(16) < lengths
    caps = torch.randint(5, 64, (2, 3, 16), generator=generator) * cmasks
    vmasks = torch.arange(8) < torch.randint(2, 9, (2, 3, 1), generator=generator)
    chosen = cmasks & (torch.arange(16) % 4 == 3)
    given = {
        "caps": caps,
        "cmasks": cmasks,
        "vfeats": torch.randn(2, 3, 8, 512, generator=generator),
        "vmasks": vmasks,
        "video_label": vmasks & (torch.arange(8) % 2 == 1),
        "text_label": caps.masked_fill(~chosen, -100),
    }
    for cls in (Task, VLMTask):
        task = cls(OmegaConf.create({}))
        task.loss_fn = MTM()
        result = task(model, given)
        assert result["batch_size"] == 6 and result["sample_size"] == 1
        loss.append(result["loss_scalar"])
    torch.testing.assert_close(*loss)
