"""Without dropout, the published and the own training step of the benchmarks have equal losses, update after update."""

import pytest
import torch

from scripts.benchmarks.published_step import as_published, naive_step, our_step
from scripts.benchmarks.systems import SYSTEMS


def built(system):
    return SYSTEMS[system].model("tiny").eval()  # no dropout, and no layers dropped


@pytest.mark.parametrize(
    "system", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("videoclip", "vlm"))) for name in SYSTEMS]
)
def test_losses_are_equal_after_updates_too(system) -> None:
    known, samples = SYSTEMS[system], 5 if system in ("videoclip", "vlm") else 2
    ours = our_step(built(system), known.loss)
    naive = naive_step(built(system), known.loss, known.published)
    batch = known.batch("tiny", samples)
    before = ours(batch), naive(batch)
    after = ours(batch), naive(batch)
    torch.testing.assert_close(*before, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*after, atol=1e-5, rtol=1e-5)
    assert after[0] != before[0]


def test_the_published_step_computes_padding_and_a_mask_per_layer() -> None:
    model, batch, shapes = built("videoclip"), SYSTEMS["videoclip"].batch("tiny", 3), []
    query = model.text_encoder.encoder.layer[0].attention.self.query
    query.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(output.shape)))
    model(**batch)
    with as_published():
        model(**batch)
        masks = model.text_encoder.pack(batch["cmasks"])
    length = batch["cmasks"].shape[1] - 1
    assert shapes == [(int(batch["cmasks"].sum()) - 3, 64), (3, length, 64)]
    assert len(masks) == len({mask.data_ptr() for mask in masks}) == len(model.text_encoder.encoder.layer)
    assert masks[0].shape == (3, length + 1, length + 1)
