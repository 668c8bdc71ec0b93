"""What the aligner lays out is what the model reads: a step of pre-training on stored segments."""

import pytest
import torch
from omegaconf import OmegaConf
from segment_samples import dataset, reserve_settings, write_sample

from mmpt.losses import ReserveLoss
from mmpt.models.reserve import ReservePretraining
from mmpt.modules.reserve_tokens import MASK

SIZES = {"hidden_size": 64, "joint_layers": 1, "vision_layers": 1, "audio_layers": 1, "span_layers": 1}


@pytest.mark.parametrize("random_text", [True, False])
def test_a_step_on_stored_segments(tmp_path, random_text: bool) -> None:
    section = reserve_settings(write_sample(tmp_path), **({} if random_text else {"random_text_path": None}))
    data = dataset(section, "Reserve")
    batch = data.collater([data[index] for index in range(3)])
    tensors = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
    torch.manual_seed(0)
    size = 1 + max(int(batch[key].max()) for key in ("text_spans", "text2audio", "audio2text", "audio_text_matching"))
    size = max(size, 1 + int(batch["random_text"].max())) if random_text else size
    model = ReservePretraining(
        OmegaConf.create({"dataset": section, "model": {**SIZES, "size_per_head": 32, "vocab_size": size}})
    )
    rows, loss = model(**tensors), ReserveLoss()
    videos, segments = batch["vfeats"].shape[:2]
    assert len(rows["imgs_to_audio_x"]) == len(rows["imgs_to_audio_y"]) == videos * segments
    masks = sum(int((batch[name] == MASK).sum()) for name in ("text2audio", "audio2text"))
    masks += int((batch["random_text"] == MASK).sum()) if random_text else 0
    assert 0 < len(rows["stuff_to_span_x"]) <= masks
    assert (rows["span_sources"] == 2).any() == random_text
    before = loss(**rows)
    before.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.05 * parameter.grad
        assert loss(**model(**tensors)) < before
