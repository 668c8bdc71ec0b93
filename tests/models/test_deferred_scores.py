"""In training the scores of words are put off: losses and gradients are those of whole scores, for every system."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmpt.losses import MFMMLM, MTM, LAVENDERLoss, MERLOTLoss, NLGLoss, VIOLETLoss
from mmpt.losses.lavender import LAVENDERTaskSpecificLoss
from mmpt.modules.masking import IGNORED
from mmpt.modules.vocabulary_loss import VocabularyScores
from tests.models.test_battery import SYSTEMS, asked_pairs, build, masked_pairs

Batch = dict[str, Any]


def captions(count: int) -> Batch:
    batch = masked_pairs(count)
    return {key: batch[key] for key in ("caps", "cmasks", "vfeats", "vmasks", "text_label")}


def lavender(objective: str) -> Batch:
    batch = asked_pairs(4)
    if objective == "options":
        return {**batch, "objective": objective, "vfeats": batch["vfeats"][:2], "vmasks": batch["vmasks"][:2]} | {
            "answers": torch.tensor([1, 0])
        }
    return {**batch, "objective": objective}


#: Name of a model -> its loss and batch, and which outputs are put off.
TOLD = {
    "vlm": ("MMFusionMTM", MTM(), masked_pairs(4), {"video_logits", "text_logits"}),
    "vlm without zero": ("MMFusionMTM", MTM(pad_with_zero=False), masked_pairs(4), {"video_logits", "text_logits"}),
    "vlm apart": ("MMFusionMFMMLM", MFMMLM(), masked_pairs(4), {"text_logits"}),
    "vlm captions": ("MMFusionNLG", NLGLoss(), captions(4), {"logits"}),
    "violet": ("VIOLETPretraining", VIOLETLoss(), SYSTEMS["VIOLETPretraining"].training_batch(4), {"text_logits"}),
    "lavender": ("LAVENDER", LAVENDERLoss(), asked_pairs(4), {"logits", "match_logits"}),
    "lavender captions": ("LAVENDER", LAVENDERLoss(), lavender("captioning"), {"logits"}),
    "lavender retrieval": ("LAVENDER", LAVENDERLoss(), lavender("retrieval"), {"logits"}),
    "lavender options": ("LAVENDER", LAVENDERLoss(), lavender("options"), {"logits"}),
    "baseline": ("LAVENDERTaskSpecificPretraining", LAVENDERTaskSpecificLoss(), asked_pairs(4), {"logits"}),
    "merlot": ("MERLOTPretraining", MERLOTLoss(), SYSTEMS["MERLOTPretraining"].training_batch(4), {"word_logits"}),
}


def learned(model: nn.Module, loss: Any, batch: Batch, whole: bool = False) -> tuple[set[str], dict[str, Tensor]]:
    """Return which outputs were put off, and the loss, what is logged and the gradients, some maybe of None."""
    model.zero_grad()
    torch.manual_seed(0)
    outputs = model(**batch)
    told = {key for key, value in outputs.items() if isinstance(value, VocabularyScores)}
    if whole:
        outputs = {key: value.scores() if key in told else value for key, value in outputs.items()}
    inputs = {**batch, **outputs}
    total = loss(**inputs)
    total.backward()
    measured = loss.measures(**inputs) if hasattr(loss, "measures") else {}
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return told, {"loss": total.detach(), **measured, **gradients}


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, value in got.items():
        # Sums of terms as large as the largest element round by its last places, in parts of a model in float32 always.
        atol = 1e-5 * max(1.0, float(value.nan_to_num().abs().max()))
        torch.testing.assert_close(
            value, wanted[name], rtol=1e-5, atol=atol, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TOLD)
def test_losses_and_gradients_are_those_of_whole_scores(name: str, dtype: torch.dtype) -> None:
    system, loss, batch, wanted_told = TOLD[name]
    model = build(system).train().to(dtype)
    batch = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in batch.items()}
    told, got = learned(model, loss, batch)
    assert told == wanted_told
    assert_same(got, learned(model, loss, batch, whole=True)[1])
    evaluated, plain = learned(model.eval(), loss, batch)  # where scores are whole
    assert not evaluated
    assert_same(got, plain)


@pytest.mark.parametrize("name", ["vlm", "vlm apart", "lavender", "baseline"])
def test_a_batch_of_which_nothing_is_masked_gives_every_weight_the_gradient_of_whole_scores(name: str) -> None:
    system, loss, batch, _ = TOLD[name]
    batch = {**batch, "text_label": torch.full_like(batch["text_label"], IGNORED)}
    if "video_label" in batch:
        batch["video_label"] = torch.zeros_like(batch["video_label"])
    model = build(system).train()
    got = learned(model, loss, batch)[1]
    assert any("predictions.transform" in key for key in got) and all(
        value.isfinite().all() or "accuracy" in key for key, value in got.items()
    )
    assert_same(got, learned(model, loss, batch, whole=True)[1])


@pytest.mark.parametrize("unused", [False, True])
@pytest.mark.parametrize("name", ["vlm", "lavender", "merlot"])
def test_distributed_training_finds_what_scores_that_are_put_off_learn(name: str, unused: bool, tmp_path) -> None:
    system, loss, batch, _ = TOLD[name]
    model = build(system).train()
    wanted = learned(model, loss, batch)[1]
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model, find_unused_parameters=unused)
        got = learned(wrapped, loss, batch)[1]
    finally:
        dist.destroy_process_group()
    found = {name.removeprefix("module."): value for name, value in got.items()}
    assert_same({key: found[key] for key in wanted}, wanted)
    assert all(not found[key].any() for key in found.keys() - wanted.keys())  # what nothing uses has zeros there
