"""Without dropout, the naive and the own training step of the benchmarks have equal losses, update after update."""

import pytest
import torch

from scripts.benchmarks import videoclip_step, vlm_step

SIZES = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 48}


@pytest.mark.parametrize(
    ("module", "model", "batch"),
    [
        (videoclip_step, videoclip_step.videoclip, videoclip_step.random_pairs),
        (vlm_step, vlm_step.vlm, vlm_step.masked_pairs),
    ],
)
def test_losses_are_equal_after_updates_too(module, model, batch) -> None:
    steps = []
    for make in (module.our_step, module.naive_step):
        built = model(**SIZES)
        for part in built.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        steps.append(make(built))
    for seed in range(2):
        pairs = batch(5, seed=seed)
        ours, naive = (step(pairs) for step in steps)
        torch.testing.assert_close(ours, naive, atol=1e-5, rtol=1e-5)
