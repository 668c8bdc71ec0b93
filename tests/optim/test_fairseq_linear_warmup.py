"""``warmup_linear``: LAVENDER's curve, and where it learns how long the training is."""

import json
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
from mmpt.optim.fairseq_linear_warmup import LinearWarmup, LinearWarmupConfig, linear_warmup
from mmpt.utils.errors import ConfigError
from mmpt.utils.files import REPOSITORY


def schedule(**settings: Any) -> LinearWarmup:
    config = LinearWarmupConfig(**{"lr": [2e-5], **settings})
    adamw: Any = SimpleNamespace(lr=[2e-5], adam_betas=(0.9, 0.98), adam_eps=1e-8, weight_decay=0.0)
    return LinearWarmup(config, FairseqMMAdamW(adamw, [torch.nn.Parameter(torch.ones(1))]))


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda updates: monkeypatch.setattr(LinearWarmup, "planned", updates)


def test_it_is_registered_with_its_flags() -> None:
    assert LR_SCHEDULER_REGISTRY["warmup_linear"] is LinearWarmup
    assert {"warmup_share", "min_lr", "total_num_update"} <= training_flags().keys()


@pytest.mark.parametrize("told", ["by the config", "by the task"])
def test_the_curve_is_the_published_one(told: str, planned) -> None:
    with np.load(REPOSITORY / "tests/data/lavender_tiny.npz") as golden:
        published = json.loads(str(golden["recipes"]))["lr_100"]
    assert len(published) == 105
    planned(100 if told == "by the task" else None)
    chosen = schedule(total_num_update=100 if told == "by the config" else 0)
    rates = [chosen.step_update(update) for update in range(105)]
    assert max(abs(one - other) for one, other in zip(rates, published, strict=True)) <= 1e-12


def test_the_rate_is_the_floor_until_the_length_is_known(planned) -> None:
    planned(None)
    chosen = schedule()
    assert chosen.optimizer.get_lr() == chosen.step_update(40) == chosen.step_begin_epoch(2) == 1e-8
    planned(100)
    assert chosen.step_update(10) == 2e-5


def test_lengths_at_the_edges() -> None:
    assert [linear_warmup(update, 1, 0.1) for update in range(3)] == [1, 0, 0]
    assert [linear_warmup(update, 4, 0.5) for update in range(6)] == [0, 0.5, 1, 0.5, 0, 0]


def test_an_endless_training_and_a_wrong_share_are_refused(planned) -> None:
    planned(math.inf)
    with pytest.raises(ConfigError, match="max_epoch, max_update or total_num_update"):
        schedule()
    with pytest.raises(ConfigError, match=r"warmup_share: 1\.5 is not in"):
        schedule(warmup_share=1.5)
