"""``model.gradient_checkpointing`` in every registered model: the same gradients, dropout replayed, less memory."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from mmpt.modules.vocabulary_loss import VocabularyScores
from mmpt.utils.registry import known_names, resolve_class
from tests.models.test_battery import SYSTEMS

MODELS = known_names("model")
#: Models that read more than pairs, or several texts for each video.
OWN_BATCHES = ("MERLOTVCR", "ReserveCloze", "ReserveTVQA", "ReserveVCR")
pytestmark = pytest.mark.parametrize("name", MODELS)


def batch() -> dict[str, Tensor]:
    """Four pairs; every third second and every fourth word is labelled."""
    generator = torch.Generator().manual_seed(7)
    caps = torch.randint(5, 64, (4, 16), generator=generator)
    caps[:, 0], caps[:, 1], caps[:, -1] = 2, 3, 3
    words = torch.arange(16).expand(4, 16) % 4 == 3
    return {
        "caps": caps,
        "cmasks": torch.ones(4, 16, dtype=torch.bool),
        "vfeats": torch.randn(4, 8, 512, generator=generator),
        "vmasks": torch.arange(8)[None] < torch.tensor([[8], [5], [3], [7]]),
        "text_label": caps.masked_fill(~words, -100),
        "video_label": torch.arange(8).expand(4, 8) % 3 == 1,
    }


def framed() -> dict[str, Tensor]:
    """The same words with two frames in place of features, and what the tasks of raw frames have beside."""
    generator = torch.Generator().manual_seed(8)
    own = batch()
    frames = {"vfeats": torch.rand(4, 2, 3, 64, 64, generator=generator), "vmasks": torch.ones(4, 2, dtype=torch.bool)}
    squares = torch.rand(4, 2, 8, 8, generator=generator)
    masks = {"masked_words": own["text_label"] >= 0, "masked_squares": squares < 0.3}
    return {
        **own,
        **frames,
        **masks,
        "visual_codes": (squares * 32).long(),
        "answers": torch.zeros(4, dtype=torch.long),
    }


def build(name: str, checkpointing: bool) -> nn.Module:
    cls: Any = resolve_class("model", name)
    torch.manual_seed(0)
    config = cls.tiny_config()
    model = cls(OmegaConf.merge(config, {"model": {"gradient_checkpointing": checkpointing}}))
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
        if isinstance(module, nn.Dropout):
            module.p = 0.2
    return model.train()


def inputs_of(model: nn.Module) -> dict[str, Tensor]:
    name = type(model).__name__
    if name in OWN_BATCHES:
        return SYSTEMS[name].training_batch(4)
    return framed() if getattr(model, "reads_frames", False) else batch()


def outputs_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a model gives, scores that were put off among them."""
    outputs = {
        key: value.scores() if isinstance(value, VocabularyScores) else value
        for key, value in model(**inputs_of(model)).items()
    }
    return {key: value for key, value in outputs.items() if isinstance(value, Tensor)}


def backward(model: nn.Module) -> tuple[dict[str, Tensor], int]:
    """Return the gradients of all outputs, and the bytes that the forward pass kept for them."""
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(3)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = outputs_of(model)
    floating = [value for value in outputs.values() if value.requires_grad]
    assert floating
    sum(value.square().mean() for value in floating).backward()  # type: ignore[union-attr]
    gradients = {key: weight.grad for key, weight in model.named_parameters() if weight.grad is not None}
    return gradients, sum(kept.values())


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute in float64, and have the plain way recompute feed-forward blocks, whose rounding is another."""
    monkeypatch.setattr("mmpt.modules.linear._FEW", 0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("exact")
def test_gradients_are_equal_and_less_is_kept(name: str) -> None:
    plain, plain_bytes = backward(build(name, checkpointing=False))
    again, again_bytes = backward(build(name, checkpointing=True))
    assert plain.keys() == again.keys()
    for key, gradient in plain.items():
        torch.testing.assert_close(gradient, again[key], msg=lambda text, key=key: f"{key}: {text}")
    assert any(".layer." in key and gradient.abs().max() > 0 for key, gradient in plain.items())
    assert again_bytes < plain_bytes * 0.6  # the plain way keeps nothing of the feed-forward blocks either


def test_dropout_is_there_to_be_replayed(name: str) -> None:
    """Or the test above would hold for a model that redraws it."""
    model = build(name, checkpointing=True)
    if not any(isinstance(module, nn.Dropout) for module in model.modules()):
        return  # MERLOT Reserve has none
    torch.manual_seed(3)
    first, second = outputs_of(model), outputs_of(model)
    assert any(not torch.equal(value, second[key]) for key, value in first.items())
