"""Small VLMs and how their tests run and compare them."""

import torch
from omegaconf import OmegaConf
from published import config_of, from_key, state_keys

from mmpt.models.base import VideoTextModel
from mmpt.models.vlm import MMFusionJoint, MMFusionMTM

POOLED = ("pooled_video", "pooled_text")


def weights(golden, name: str) -> dict[str, torch.Tensor]:
    return {key: from_key(key, shape) for key, shape in state_keys(golden)[name].items()}


def joint(num_iso_layer: int | None = 2, **sections) -> MMFusionJoint:
    model = {"mm_encoder_cls": "MMBertForJoint", "use_seg_emb": True, **sections.pop("model", {})}
    return MMFusionJoint(OmegaConf.create(config_of(model, {"num_iso_layer": num_iso_layer}, **sections))).eval()


def mtm(dataset: dict | None = None, **model) -> MMFusionMTM:
    return MMFusionMTM(config_of({"mm_encoder_cls": "MMBertForMFMMLM", "use_seg_emb": True, **model}, dataset)).eval()


def run(model: VideoTextModel, batch: dict[str, torch.Tensor], **changed: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return model(**{**batch, **changed})


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text)
