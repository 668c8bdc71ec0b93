"""What every system must pass on its tiny config. A new system joins with one line in SYSTEMS."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from reserve_samples import reserve_images, reserve_records, reserve_videos
from torch import Tensor, nn

from mmpt.losses import (
    MFMMLM,
    MTM,
    CrossEntropy,
    LAVENDERLoss,
    MERLOTLoss,
    MMContraLoss,
    ReserveLoss,
    ReserveTVQALoss,
    T2VContraLoss,
    VIOLETLoss,
)
from mmpt.models.base import VideoTextModel
from mmpt.utils.checkpoint import load_checkpoint
from mmpt.utils.registry import resolve_class
from mmpt.utils.weight_files import save_safetensors

Batch = dict[str, Tensor]


class System(NamedTuple):
    """How the battery drives one model: a seeded batch, its objective, the inputs that carry padding.

    ``training`` is the batch of the objective, where that is another one; ``run`` makes the outputs, where that is not
    the model's forward.
    """

    batch: Callable[[int], Batch]
    loss: Callable[..., Tensor]
    outputs: tuple[str, ...]
    masked: dict[str, str]  # input -> its mask
    training: Callable[[int], Batch] | None = None
    run: Callable[[Any, Batch], Batch] | None = None

    def training_batch(self, count: int) -> Batch:
        return (self.training or self.batch)(count)


def pairs(count: int) -> Batch:
    """Pairs of 1 to 8 seconds and 0 to 13 words, in the layout of the aligners."""
    generator = torch.Generator().manual_seed(7)
    words = torch.arange(count)[:, None] * 5 % 14
    positions = torch.arange(16)[None]
    caps = torch.randint(5, 64, (count, 16), generator=generator)
    caps[:, 0], caps[:, 1] = 2, 3
    caps = caps.where(positions != words + 2, 3).where(positions <= words + 2, 0)
    seconds = 1 + torch.arange(count)[:, None] * 3 % 8
    vmasks = torch.arange(8)[None] < seconds
    vfeats = torch.randn(count, 8, 512, generator=generator) * vmasks[..., None]
    return {"caps": caps, "cmasks": positions <= words + 2, "vfeats": vfeats, "vmasks": vmasks}


def masked_pairs(count: int) -> Batch:
    """Pairs of which every third second and every fourth word is masked."""
    batch = pairs(count)
    words = (batch["caps"] > 4) & (torch.arange(16) % 4 == 3)
    return {
        **batch,
        "caps": batch["caps"].masked_fill(words, 4),
        "text_label": batch["caps"].masked_fill(~words, -100),
        "video_label": batch["vmasks"] & (torch.arange(8) % 3 == 1),
    }


def framed_pairs(count: int) -> Batch:
    """Pairs of 1 to 2 frames and 0 to 13 words, in the layout ``[CLS] w.. [SEP]``."""
    batch = pairs(count)
    caps, cmasks = (torch.cat([batch[key][:, :1], batch[key][:, 2:]], dim=1) for key in ("caps", "cmasks"))
    frames = 1 + torch.arange(count)[:, None] % 2
    vfeats = torch.rand(count, 2, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    return {"caps": caps, "cmasks": cmasks, "vfeats": vfeats, "vmasks": torch.arange(2)[None] < frames}


def asked_pairs(count: int) -> dict[str, Any]:
    """Pairs of which every fourth word is masked, with the [MASK] of LAVENDER's pre-training at their end."""
    batch = framed_pairs(count)
    words = (batch["caps"] > 4) & (torch.arange(15) % 4 == 3)
    pad = torch.nn.functional.pad
    return {
        **batch,
        "objective": "pretraining",
        "caps": pad(batch["caps"].masked_fill(words, 4), (0, 1), value=4),
        "cmasks": pad(batch["cmasks"], (0, 1), value=True),
        "text_label": pad(batch["caps"].masked_fill(~words, -100), (0, 1), value=-100),
    }


def fused(model: Any, batch: Batch) -> Batch:
    """The state of the text's [CLS], which sees the whole pair."""
    video, text = (
        model.encode_video(batch["vfeats"], batch["vmasks"]),
        model.encode_text(batch["caps"], batch["cmasks"]),
    )
    return {"fused": model.fuse(video, text).last_hidden_state[:, video.values.shape[1]]}


def masked_framed_pairs(count: int) -> Batch:
    """Pairs of frames and text of which every fourth word and every fifth square are to be told."""
    batch, squares = framed_pairs(count), torch.arange(128).view(2, 8, 8)
    return {
        **batch,
        "visual_codes": squares.expand(count, 2, 8, 8) % 32,
        "masked_words": (batch["caps"] > 4) & (torch.arange(15) % 4 == 3),
        "masked_squares": (squares % 5 == 2).expand(count, 2, 8, 8),
    }


def framed_questions(count: int) -> Batch:
    """Pairs of frames and question, and the numbers of the answers."""
    return {**framed_pairs(count), "answers": torch.arange(count) % 5}


def records(count: int) -> Batch:
    """Records of two groups of two chunks, each a frame and 0 to 13 words, of which some are masked already."""
    batch = framed_pairs(4 * count)
    tokens = torch.where(batch["cmasks"], batch["caps"] + 90, 0).view(count, 4, -1)
    tokens[..., 0] = 2
    groups = tokens.view(2 * count, -1)
    hidden = torch.arange(3, 9)
    return {
        "tokens": tokens,
        "vfeats": batch["vfeats"][:, 0].view(count, 4, 3, 64, 64),
        "video_src_ids": (torch.arange(4) // 2 + torch.arange(count)[:, None]) // 2,
        "shuffled_idx_img": torch.tensor([0, 1, 65, 64]).expand(count, 4),
        "masked_ids": groups.index_fill(1, hidden, 1).where(groups >= 100, groups).view_as(tokens),
        "masked_idx": hidden.expand(2 * count, -1),
    }


def read_choices(count: int) -> Batch:
    """Questions of three options each, about 1 to 2 frames, and which option is right."""
    videos, options = framed_pairs(count), framed_pairs(3 * count)
    texts = {key: options[key].view(count, 3, -1) for key in ("caps", "cmasks")}
    return {**videos, **texts, "answers": torch.arange(count) % 3}


def reasoning(count: int) -> Batch:
    """Questions of which every second one asks for a rationale."""
    return {**read_choices(count), "question_kind": torch.arange(count) % 2}


def gaps(count: int) -> Batch:
    """Texts of which the last token is a gap, beside frames, and five phrases for each that could fill it."""
    batch = framed_questions(count)
    spans = torch.arange(count * 5 * 3).view(count, 5, 3) % 50 + 10
    return {**batch, "segments": batch["cmasks"].long() - 1, "answer_spans": spans}


def in_one_row(model: Any, batch: Batch) -> Batch:
    """All scores of an item side by side: it has several questions, or is read in several ways."""
    return {"logits": model(**batch)["logits"].flatten(1)}


POOLED = ("pooled_video", "pooled_text")
PADDED = {"caps": "cmasks", "vfeats": "vmasks"}

SYSTEMS = {
    "MMFusionSeparate": System(pairs, MMContraLoss(), POOLED, PADDED),
    "MMFusionShare": System(pairs, MMContraLoss(), POOLED, PADDED),
    "MMFusionJoint": System(pairs, T2VContraLoss(), POOLED, PADDED),
    "MMFusionMTM": System(pairs, MTM(), POOLED, PADDED, masked_pairs),
    "MMFusionMFMMLM": System(pairs, MFMMLM(), POOLED, PADDED, masked_pairs),
    "VIOLETPretraining": System(framed_pairs, VIOLETLoss(), ("fused",), PADDED, masked_framed_pairs, fused),
    "VIOLETOpenEnded": System(framed_questions, CrossEntropy(), ("logits",), PADDED),
    "LAVENDER": System(framed_pairs, LAVENDERLoss(), ("fused",), PADDED, asked_pairs, fused),
    "MERLOTPretraining": System(framed_pairs, MERLOTLoss(), POOLED, PADDED, records),
    "MERLOTAnswering": System(read_choices, CrossEntropy(), ("logits",), PADDED),
    "MERLOTVCR": System(reasoning, CrossEntropy(), ("logits",), PADDED),
    "MERLOTOpenEnded": System(framed_questions, CrossEntropy(), ("logits",), PADDED),
    "ReservePretraining": System(framed_pairs, ReserveLoss(), POOLED, PADDED, reserve_records),
    "ReserveVCR": System(reserve_images, CrossEntropy(), ("logits",), {}, run=in_one_row),
    "ReserveCloze": System(gaps, CrossEntropy(), ("logits",), PADDED),
    "ReserveTVQA": System(reserve_videos, ReserveTVQALoss(), ("logits",), {"vfeats": "vmasks"}, run=in_one_row),
}

pytestmark = pytest.mark.parametrize("name", SYSTEMS)


def build(name: str, seed: int = 0, dropout: float = 0.0) -> VideoTextModel:
    torch.manual_seed(seed)
    cls = resolve_class("model", name)
    model = cls(cls.tiny_config())
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
    return model


def run(name: str, model: nn.Module, batch: Batch) -> Batch:
    make = SYSTEMS[name].run
    with torch.no_grad():
        outputs = model(**batch) if make is None else make(model, batch)
    return {key: outputs[key] for key in SYSTEMS[name].outputs}


def assert_equal(one: Batch, other: Batch, atol: float = 5e-6) -> None:
    assert set(one) == set(other)
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], atol=atol, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


def test_interface_is_declared(name: str) -> None:
    model = build(name)
    assert isinstance(model, VideoTextModel) and model.capabilities and model.config_options
    if "retrieval" in model.capabilities:
        batch = SYSTEMS[name].batch(3)
        with torch.no_grad():
            video = model.eval().encode_video(batch["vfeats"], batch["vmasks"])
            text = model.encode_text(batch["caps"], batch["cmasks"])
        assert model.score_pairs(text[:2], video).shape == (2, 3)
        assert_equal({"pooled_video": video, "pooled_text": text}, run(name, model, batch))


def test_save_and_load_round_trip(name: str, tmp_path) -> None:
    model, other = build(name).eval(), build(name, seed=1).eval()
    batch = SYSTEMS[name].batch(4)
    save_safetensors(tmp_path / "model.safetensors", model.state_dict())
    load_checkpoint(other, tmp_path / "model.safetensors")
    wanted, got = run(name, model, batch), run(name, other, batch)
    assert all(torch.equal(wanted[key], got[key]) for key in wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_training_checkpoint_of_the_published_layout_loads(name: str, tmp_path, dtype: torch.dtype) -> None:
    model, other = build(name).eval(), build(name, seed=1).eval()
    state = {"mmmodel." + key: value.to(dtype) for key, value in model.state_dict().items()}
    content = {
        "args": None,
        "cfg": {"task": argparse.Namespace(_name="mmtask", taskconfig="run.yaml")},
        "model": state,
        "optimizer_history": [],
        "extra_state": {"epoch": 2},
        "last_optimizer_state": {},
    }
    torch.save(content, tmp_path / "checkpoint_best.pt")
    report = load_checkpoint(other, tmp_path / "checkpoint_best.pt")
    assert len(report.loaded) == len(state) and not report.missing
    batch = SYSTEMS[name].batch(4)
    assert_equal(run(name, model, batch), run(name, other, batch), 5e-6 if dtype == torch.float32 else 2e-2)


def test_a_batch_of_n_equals_n_batches_of_one(name: str) -> None:
    model, batch = build(name).eval(), SYSTEMS[name].batch(20)
    singles = [run(name, model, {key: value[row : row + 1] for key, value in batch.items()}) for row in range(20)]
    together = {key: torch.cat([single[key] for single in singles]) for key in singles[0]}
    assert_equal(run(name, model, batch), together)


def test_masked_positions_never_change_the_output(name: str) -> None:
    model, batch = build(name).eval(), SYSTEMS[name].batch(6)
    wanted = run(name, model, batch)
    changed = dict(batch)
    for key, mask in SYSTEMS[name].masked.items():
        noise = torch.full_like(batch[key], torch.nan) if batch[key].is_floating_point() else (batch[key] + 17) % 64
        keep = batch[mask].reshape(batch[mask].shape + (1,) * (batch[key].dim() - batch[mask].dim()))
        changed[key] = torch.where(keep, batch[key], noise)
        assert not torch.equal(changed[key], batch[key])
    assert_equal(wanted, run(name, model, changed))


def test_valid_positions_do_change_the_output(name: str) -> None:
    model, batch = build(name).eval(), SYSTEMS[name].batch(6)
    wanted = run(name, model, batch)
    for key, mask in SYSTEMS[name].masked.items():
        changed = dict(batch)
        last = batch[mask].flatten(0, -2).sum(1) - 1
        values = batch[key].flatten(0, batch[mask].dim() - 2).clone()
        rows = torch.arange(len(values))
        value = values[rows, last]
        values[rows, last] = value + 1 if value.is_floating_point() else (value + 17) % 64
        changed[key] = values.view_as(batch[key])
        got = run(name, model, changed)
        assert any(((got[output] - wanted[output]).abs().amax(1) > 1e-4).all() for output in wanted), key


def test_bf16_is_close_to_fp32(name: str) -> None:
    model, batch = build(name).eval(), SYSTEMS[name].batch(4)
    wanted = run(name, model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = run(name, model, batch)
    whole = run(name, model.bfloat16(), batch)
    for key, value in wanted.items():
        for other in (mixed[key], whole[key]):
            assert nn.functional.cosine_similarity(value, other.float()).min() > 0.995, key


def test_gradient_checkpointing_equals_plain(name: str) -> None:
    batch, gradients = SYSTEMS[name].training_batch(4), []
    for flag in (False, True):
        model = build(name, dropout=0.1).train()
        for module in model.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = flag
        torch.manual_seed(3)
        SYSTEMS[name].loss(**{**batch, **model(**batch)}).backward()
        gradients.append({key: parameter.grad for key, parameter in model.named_parameters()})
    for key, plain in gradients[0].items():
        assert (plain is None) == (gradients[1][key] is None)
        if plain is not None:
            torch.testing.assert_close(plain, gradients[1][key])


def test_one_optimisation_step_lowers_the_loss(name: str) -> None:
    model, batch = build(name).train(), SYSTEMS[name].training_batch(6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(2):
        loss = SYSTEMS[name].loss(**{**batch, **model(**batch)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


def test_train_and_eval_differ_only_by_dropout(name: str) -> None:
    batch = SYSTEMS[name].batch(4)
    without, with_dropout = build(name), build(name, dropout=0.3)
    assert_equal(run(name, without.train(), batch), run(name, without.eval(), batch))
    trained = run(name, with_dropout.train(), batch)
    evaluated = run(name, with_dropout.eval(), batch)
    assert all(not torch.allclose(trained[key], evaluated[key], atol=1e-3) for key in trained)
    assert_equal(evaluated, run(name, without, batch))
