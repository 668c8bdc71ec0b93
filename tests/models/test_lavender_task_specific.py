"""LAVENDER's baselines: VIOLET's heads on LAVENDER's frames, and their objective of pre-training by itself."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses import CrossEntropy, LAVENDERTaskSpecificLoss
from mmpt.models import lavender_task_specific as baselines
from mmpt.models.base import VideoTextModel
from mmpt.utils.errors import ConfigError


def tiny(cls: Any, **model: Any) -> Any:
    torch.manual_seed(0)
    built = cls(OmegaConf.merge(cls.tiny_config(), {"model": model})).eval()
    for parameter in built.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return built


def pairs(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "caps": torch.randint(5, 64, (count, 7), generator=generator),
        "cmasks": torch.arange(7) < 4 + torch.arange(count)[:, None] % 4,
        "vfeats": torch.rand(count, 2, 3, 64, 64, generator=generator),
        "vmasks": torch.ones(count, 2, dtype=torch.bool),
    }


def states(model: VideoTextModel, batch: dict[str, Tensor], video: int, text: int) -> Tensor:
    """States (X, H) of one text, fused with one video, by themselves."""
    clip = model.encode_video(batch["vfeats"][video : video + 1], batch["vmasks"][video : video + 1])
    words = model.encode_text(batch["caps"][text : text + 1], batch["cmasks"][text : text + 1])
    return model.fuse(clip, words).last_hidden_state[0, clip.values.shape[1] :]


def scored(model: Any, state: Tensor) -> Tensor:
    weights = model.fc.state_dict(keep_vars=True)
    return F.linear(
        F.relu(F.linear(state, weights["1.weight"], weights["1.bias"])), weights["3.weight"], weights["3.bias"]
    )


def test_pretraining_is_each_word_and_each_video_by_itself() -> None:
    model, batch = tiny(baselines.LAVENDERTaskSpecificPretraining, matching_texts=3), pairs(4)
    label = torch.full_like(batch["caps"], -100)
    label[1, 2], label[1, 3], label[3, 1] = 20, 21, 22
    words = [
        F.cross_entropy(model.fc_mtm["predictions"](states(model, batch, row, row)[at]), label[row, at])
        for row, at in ((1, 2), (1, 3), (3, 1))
    ]
    matching = []
    for video in range(4):
        scores = [scored(model, states(model, batch, video, (video + step) % 4)[0])[0] for step in range(3)]
        matching.append(F.cross_entropy(torch.stack(scores) / 0.05, torch.tensor(0)))
    wanted = torch.stack(words).mean() + torch.stack(matching).mean()
    wanted.backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    outputs = model(**batch, text_label=label)
    loss = LAVENDERTaskSpecificLoss()(**{"text_label": label, **outputs})
    loss.backward()
    torch.testing.assert_close(loss, wanted)
    for name, value in gradients.items():
        found = dict(model.named_parameters())[name].grad
        torch.testing.assert_close(found, value, atol=2e-4, rtol=2e-3, msg=lambda text, name=name: f"{name}: {text}")
    named = model(**batch, text_label=label, negatives=torch.tensor([[2], [3], [0], [0]]))["matching_scores"]
    assert named.shape == (4, 2)
    torch.testing.assert_close(named[3, 1], scored(model, states(model, batch, 3, 0)[0])[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
@torch.no_grad()
def test_another_text_of_the_same_video_is_no_negative() -> None:
    model, batch = tiny(baselines.LAVENDERTaskSpecificPretraining, matching_texts=3), pairs(3)
    batch["text_label"] = torch.full_like(batch["caps"], -100)
    scores = model(**batch)["matching_scores"]
    found = model(**batch, video_key=torch.tensor([7, 8, 7]))["matching_scores"]
    same = torch.tensor([[False, False, True], [False] * 3, [False, True, False]])
    torch.testing.assert_close(found, scores.masked_fill(same, -torch.inf))


def test_choice_is_among_the_numbers_that_there_are() -> None:
    model, batch = tiny(baselines.LAVENDERTaskSpecificChoice), pairs(2)
    mask, answers = torch.tensor([[True, True, True], [True, True, False]]), torch.tensor([[2], [0]])
    scores = model.option_scores(**batch, option_mask=mask)
    wanted = torch.stack([scored(model, states(model, batch, row, row)[0]) for row in range(2)])
    torch.testing.assert_close(scores, wanted[:, :3].masked_fill(~mask, -torch.inf), atol=1e-5, rtol=1e-4)
    outputs = model(**batch, option_mask=mask, answers=answers)
    independent = F.cross_entropy(wanted[:1, :3], answers[0]) + F.cross_entropy(wanted[1:, :2], answers[1])
    torch.testing.assert_close(CrossEntropy()(**outputs), independent / 2, atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="num_options: 5, but questions have 6"):
        model.option_scores(**batch, option_mask=torch.ones(2, 6))
    with pytest.raises(ConfigError, match="not pairs"):
        model.score_aligned(None, None)
    with pytest.raises(ConfigError, match="leaves no choice"):
        tiny(baselines.LAVENDERTaskSpecificChoice, num_options=1)


@torch.no_grad()
@pytest.mark.parametrize("name", ["LAVENDERTaskSpecificRetrieval", "LAVENDERTaskSpecificOptions"])
def test_pairs_are_scored_by_the_head_on_the_first_word(name) -> None:
    model, batch = tiny(getattr(baselines, name)), pairs(2)
    video, text = (
        model.encode_video(batch["vfeats"], batch["vmasks"]),
        model.encode_text(batch["caps"], batch["cmasks"]),
    )
    wanted = torch.stack([scored(model, states(model, batch, row, row)[0])[0] for row in range(2)])
    torch.testing.assert_close(model.score_aligned(text, video), wanted, atol=1e-5, rtol=1e-4)
    assert "enc_img.emb_odr" in model.state_dict() and "emb_task" not in model.state_dict()
    assert model.fc[3].out_features == 1
