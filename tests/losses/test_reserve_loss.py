"""Reserve's objective by its equation, and what is logged beside it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mmpt.losses import ReserveLoss
from mmpt.losses.candidates import symmetric_cross_entropy
from mmpt.utils.registry import build
from tests.processes import spawn

OBJECTIVES = ("imgs_to_audio", "text_to_audio", "stuff_to_span")


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_further_candidates_are_those_of_x_alone() -> None:
    x, y, extra = rows(4), rows(4, 1), rows(7, 2)
    there = torch.stack([-(x @ torch.cat([y, extra]).T).log_softmax(1)[k, k] for k in range(4)]).mean()
    back = torch.stack([-(y @ x.T).log_softmax(1)[k, k] for k in range(4)]).mean()
    torch.testing.assert_close(symmetric_cross_entropy(x, y, y_extra=extra), (there + back) / 2)
    torch.testing.assert_close(symmetric_cross_entropy(x, y, y_extra=extra[:0]), symmetric_cross_entropy(x, y))
    doubled = symmetric_cross_entropy(x * 2, y, y_extra=extra)
    torch.testing.assert_close(symmetric_cross_entropy(x, y, 2.0, y_extra=extra), doubled)


def outputs(count: int = 3) -> dict[str, Tensor]:
    found = {f"{name}_{side}": rows(count, k) for k, name in enumerate(OBJECTIVES) for side in ("x", "y")}
    return {**found, "text_to_audio_y_extra": rows(5, 9), "span_sources": torch.tensor([0, 2, 2])}


def test_accuracies_and_sources_are_measured() -> None:
    given = outputs()
    given["imgs_to_audio_y"] = given["imgs_to_audio_x"] = torch.eye(3, 6).double()
    given["text_to_audio_y"] = given["text_to_audio_x"] = torch.eye(3, 6).double()
    given["text_to_audio_y_extra"] = 2 * torch.eye(6).double()[:1]
    measures = ReserveLoss().measures(**given)
    assert measures["imgs_to_audio_accuracy"] == 1
    assert float(measures["text_to_audio_accuracy"]) == pytest.approx(2 / 3)
    assert measures["stuff_to_span_from_audio2text"].isnan()
    x, y = given["stuff_to_span_x"], given["stuff_to_span_y"]
    first = (torch.logsumexp(x[0] @ y.T, 0) + torch.logsumexp(y[0] @ x.T, 0)) / 2 - x[0] @ y[0]
    torch.testing.assert_close(measures["stuff_to_span_from_text2audio"], first)


def test_a_padding_step_and_no_spans_at_all() -> None:
    loss = ReserveLoss(global_negatives=False)
    assert type(build("loss", "ReserveLoss")) is ReserveLoss
    assert float(loss(**outputs(), padding_step=True)) == 0
    empty = {**outputs(), **{f"stuff_to_span_{side}": rows(3)[:0] for side in ("x", "y")}}
    assert loss(**empty).isfinite()
    measures = loss.measures(**{**empty, "span_sources": torch.tensor([], dtype=torch.long)})
    assert measures["stuff_to_span_accuracy"].isnan()


#: Rows of two workers: frames, told sounds, told spans, and sounds that are not told. Nobody speaks to the second one.
ROWS = {"imgs_to_audio": (2, 4), "text_to_audio": (3, 1), "stuff_to_span": (3, 0)}
OTHERS = (5, 2)
SPANS = ("stuff_to_span_x", "stuff_to_span_y")


def unlike() -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Return the rows of one process with both batches, and those of each of two."""
    sizes = {f"{name}_{side}": count for name, count in ROWS.items() for side in ("x", "y")}
    sizes["text_to_audio_y_extra"] = OTHERS
    whole = {key: rows(sum(counts), seed) for seed, (key, counts) in enumerate(sizes.items())}
    parts = [{key: whole[key].split(counts)[rank] for key, counts in sizes.items()} for rank in range(2)]
    return whole, parts


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results: dict[str, Any] = {}
    for case in ("unlike", "padding", "silent"):
        leaves = {key: value.clone().requires_grad_() for key, value in unlike()[1][rank].items()}
        padding = case == "padding" and rank == 1
        if case == "silent":
            leaves |= {key: rows(0).requires_grad_() for key in SPANS}
        loss = ReserveLoss()(**leaves, padding_step=padding) * (not padding)  # as the task does
        loss.backward()
        counting = 1 if case == "padding" else 2
        value = loss.detach() / counting
        dist.all_reduce(value)
        results[case] = value, {key: leaf.grad / counting for key, leaf in leaves.items()}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_workers_are_one_process_though_one_of_them_has_no_text(tmp_path: Path) -> None:
    spawn(worker, (str(tmp_path),), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    whole, parts = unlike()
    silent = whole | {key: rows(0) for key in SPANS}
    for case, given in (("unlike", whole), ("padding", parts[0]), ("silent", silent)):
        leaves = {key: value.clone().requires_grad_() for key, value in given.items()}
        loss = ReserveLoss()(**leaves)
        loss.backward()
        for rank in range(2):
            value, gradients = results[rank][case]
            torch.testing.assert_close(value, loss.detach())
            for key, gradient in gradients.items():
                if case == "padding":
                    wanted = leaves[key].grad if rank == 0 else torch.zeros_like(gradient)
                else:
                    first = 0 if rank == 0 else len(leaves[key]) - len(gradient)
                    wanted = leaves[key].grad[first : first + len(gradient)]
                torch.testing.assert_close(gradient, wanted, msg=f"{case}: {key}")
