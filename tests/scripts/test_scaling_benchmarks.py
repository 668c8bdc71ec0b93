"""The benchmarks of many workers: what they count is right, and docs/scaling.md says what they print."""

from pathlib import Path

import pytest
import torch

from mmpt.losses.candidates import gather_candidates
from scripts.benchmarks import scaling_plan
from scripts.benchmarks.bench_contrastive import WORKS, PretendedWorkers, loss_memory, peak_bytes
from scripts.benchmarks.videoclip_step import random_pairs, videoclip


def test_peak_memory_is_counted_to_the_byte() -> None:
    rows = torch.zeros(1000, 100)

    def call() -> None:
        first = rows + 1
        second = first + 1
        del first
        (second + 1).sum()

    assert 800_000 <= peak_bytes(call) <= 800_000 + 1024


def test_the_loss_grows_with_local_x_global_and_the_naive_one_with_global_x_global() -> None:
    peaks = {}
    for workers in (2, 4, 8):
        with PretendedWorkers(workers):
            peaks[workers] = loss_memory(local=64, width=16)
    grows = {name: [peaks[n][name] / peaks[n // 2][name] for n in (4, 8)] for name in peaks[2]}
    assert grows["per worker"] == [1, 1]
    assert all(1.5 < ratio < 2.2 for ratio in grows["local x global"])
    assert all(ratio > 3 for ratio in grows["naive"])
    assert peaks[8]["naive"] > 4 * peaks[8]["local x global"]


def test_pretended_workers_are_put_back_and_have_equal_rows() -> None:
    with PretendedWorkers(3):
        rows, first, share = gather_candidates(torch.ones(2, 4), across_workers=True)
    assert rows.shape == (6, 4) and first == 0 and share == pytest.approx(3 / 6)
    assert gather_candidates(torch.ones(2, 4), across_workers=True).share == 1 / 2


@pytest.mark.slow
def test_grad_cache_takes_less_memory(tmp_path: Path) -> None:
    work = next(work for work in WORKS if work.name == "grad-cache")
    sizes = {"pairs": 64, "rows": 4, "layers": 6}
    cached, whole = (work.way(side)(tmp_path, **sizes).figures() for side in ("ours", "reference"))
    assert cached["the step, MiB"] < 0.7 * whole["the step, MiB"]


def test_the_plan_counts_the_model_and_is_the_one_in_the_docs(
    capsys: pytest.CaptureFixture[str], repository: Path
) -> None:
    small = videoclip(1, num_hidden_layers=2)
    assert {parameter.device.type for parameter in small.parameters()} == {"cpu"}
    assert small(**random_pairs(3))["pooled_video"].shape == (3, 384)
    assert scaling_plan.main([]) == 0
    page = (repository / "docs" / "scaling.md").read_text()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(printed) == 4 * 5
    assert [line for line in printed if line not in page] == []
    assert f"{scaling_plan.parameters():,}" in page


def test_the_plan_of_one_gpu_moves_nothing_and_of_two_nodes_what_the_formulas_say() -> None:
    alone = scaling_plan.Plan(1, 1000)
    assert alone.gradient_traffic() == alone.gather_traffic() == (0, 0)
    assert alone.step_seconds(everyone=False) == alone.compute_seconds()
    two = scaling_plan.Plan(16, 1000)
    assert two.gradient_traffic() == (2 * 7 / 8 * 4000, 2 * 1 / 2 * 4000 / 8)
    rows = 512 * 2 * 768 * 4
    assert two.gather_traffic() == (2 * 15 * rows, 2 * 8 * rows / 8)
    assert two.loss_bytes() == 512 * 8192 * 4
