"""``warmup_decay``: MERLOT's published curve, Reserve's cosine, and what it refuses."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("fairseq")

from fairseq.optim.lr_scheduler import LR_SCHEDULER_REGISTRY

from mmpt.launch.fairseq_flags import training_flags
from mmpt.optim.fairseq_adamw import FairseqMMAdamW
from mmpt.optim.fairseq_linear_warmup import LinearWarmup
from mmpt.optim.fairseq_warmup_decay import WarmupDecay, WarmupDecayConfig, warmup_decay
from mmpt.utils.errors import ConfigError
from mmpt.utils.files import REPOSITORY


def schedule(**settings: Any) -> WarmupDecay:
    config = WarmupDecayConfig(**{"lr": [3e-4], **settings})
    adamw: Any = SimpleNamespace(lr=[3e-4], adam_betas=(0.9, 0.98), adam_eps=1e-6, weight_decay=0.0)
    return WarmupDecay(config, FairseqMMAdamW(adamw, [torch.nn.Parameter(torch.ones(1))]))


def test_it_is_registered_with_its_flags() -> None:
    assert LR_SCHEDULER_REGISTRY["warmup_decay"] is WarmupDecay
    assert {"decay_shape", "final_share", "warmup_share", "warmup_updates"} <= training_flags().keys()


def test_merlots_curve_is_the_published_one() -> None:
    with np.load(REPOSITORY / "tests/data/merlot_opt.npz") as golden:
        published = golden["sched_T20_W3"]
    chosen = schedule(warmup_updates=3, total_num_update=20)
    rates = [chosen.step_update(update) for update in range(25)]
    assert np.abs(np.array(rates) - 3e-4 * published).max() < 1e-12


def test_reserves_curve_goes_down_along_a_cosine() -> None:
    """750 000 updates of which 3750 warm up, down to 0.02 of the highest rate (specification B3)."""
    total, warm_up = 750_000, 3750
    curve = {t: warmup_decay(t, total, warm_up, "cosine", 0.02) for t in (0, 1875, 3750, 376_875, total - 1, total + 9)}
    assert curve[0] == 0 and curve[1875] == 0.5 and curve[3750] == 1
    assert abs(curve[376_875] - 0.51) < 1e-5
    assert abs(curve[total - 1] - 0.02) < 1e-5 and curve[total + 9] == pytest.approx(0.02)


def test_the_length_may_come_from_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LinearWarmup, "planned", 40)
    chosen = schedule(warmup_share=0.25)
    assert [chosen.step_update(update) for update in (0, 5, 10)] == pytest.approx([0, 1.5e-4, 3e-4 * 40 / 31 * 0.75])


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"decay_shape: 'square' is none of linear, cosine"):
        schedule(decay_shape="square")
    with pytest.raises(ConfigError, match=r"final_share: 2 is not in"):
        schedule(final_share=2)
    for warm_up in (20, 21, 400):
        with pytest.raises(ConfigError, match=rf"warmup_updates: {warm_up}, and the training has 20 updates"):
            schedule(warmup_updates=warm_up, total_num_update=20)
    assert schedule(warmup_updates=19, total_num_update=20).step_update(19) == pytest.approx(3e-4 * 20 / 2 / 20)
    monkeypatch.setattr(LinearWarmup, "planned", math.inf)
    with pytest.raises(ConfigError, match="lr_scheduler: warmup_decay ends with the training"):
        schedule()
