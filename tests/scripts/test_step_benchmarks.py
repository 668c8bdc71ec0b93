"""The random batches of the benchmarks fit the models that they measure, and a command prints its table."""

import functools
from typing import Any

import pytest
import torch
from torch import nn

from scripts.benchmarks import bench_frame_training, bench_segment_training
from scripts.benchmarks.training_step import Work, measure


@pytest.mark.parametrize("name", ["merlot-tiny", "reserve-tiny"])
def test_a_random_record_gives_every_objective_something_to_tell(name: str) -> None:
    work = bench_segment_training.works()[name]
    torch.manual_seed(0)
    batch = work.batch(1)
    with torch.no_grad():
        outputs = work.model(False).eval()(**batch)
    parts = work.loss.parts(**batch, **outputs)  # type: ignore[attr-defined]
    assert len(parts) == 3 and all(part > 0.01 for part in parts.values())
    told = outputs.get("stuff_to_span_x")
    assert told is None or len(told) == 24


def test_every_size_is_listed() -> None:
    assert list(bench_frame_training.works()) == ["tiny", "base"]
    assert list(bench_segment_training.works()) == ["merlot-tiny", "merlot-base", "reserve-tiny", "reserve-base"]


def _linear(checkpointing: bool) -> nn.Module:
    return Named(4, 4)


class Named(nn.Linear):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return {"y": super().forward(x)}


def _loss(y: torch.Tensor, **_: Any) -> torch.Tensor:
    return y.square().mean()


def _batch(samples: int) -> dict[str, torch.Tensor]:
    return {"x": torch.ones(samples, 4)}


def _works() -> dict[str, Work]:
    return {"small": Work(_linear, _loss, _batch, 2, 1, "rows")}


@pytest.mark.slow
def test_a_table_is_printed_and_written(tmp_path, capsys) -> None:
    run = functools.partial(measure, "what it does", _works)
    assert run(["--threads", "1", "--json", str(tmp_path / "figures.json")]) == 0
    assert "small, 2 rows, gradient_checkpointing" in capsys.readouterr().out
    assert '"samples_per_second"' in (tmp_path / "figures.json").read_text()
