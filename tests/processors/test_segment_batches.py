"""Batches of a tiny store through the models that they are made for: everything is there, and something is learned."""

import pytest
import torch
from omegaconf import OmegaConf
from segment_samples import dataset, merlot_settings, reserve_settings, write_sample

from mmpt.losses.merlot import MERLOTLoss
from mmpt.losses.reserve import ReserveLoss
from mmpt.models.merlot import MERLOTPretraining
from mmpt.models.reserve import ReservePretraining


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("segments"))


def trained(model, loss, batch, steps=6):
    """Return the loss of the first and the last of some steps on one batch."""
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    inputs = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor) and key != "idx"}
    for _ in range(steps):
        losses.append(loss(**model(**inputs)))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    return losses[0].item(), losses[-1].item()


def test_merlot(folder):
    section = merlot_settings(folder, image_size=[32, 64])
    data = dataset(section, "MERLOT")
    config = OmegaConf.merge(
        MERLOTPretraining.tiny_config(), {"dataset": section, "model": {"vocab_size": data.aligner.vocab_size}}
    )
    torch.manual_seed(0)
    first, last = trained(MERLOTPretraining(config), MERLOTLoss(), data.collater([data[0], data[2]]))
    assert last < first


@pytest.mark.parametrize("text", [True, False])
def test_reserve(folder, text):
    section = reserve_settings(folder, **({} if text else {"random_text_path": None}))
    data = dataset(section, "Reserve")
    config = OmegaConf.merge(
        ReservePretraining.tiny_config(), {"dataset": section, "model": {"vocab_size": 266, "text_spans": 12}}
    )
    torch.manual_seed(0)
    batch = data.collater([data[0], data[2]])
    assert ("random_text" in batch) is text
    first, last = trained(ReservePretraining(config), ReserveLoss(), batch)
    assert last < first
