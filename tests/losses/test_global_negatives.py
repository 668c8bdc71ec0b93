"""Contrastive learning across workers: real processes against one process that holds the whole batch."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmpt.losses import NCE, MILNCELoss, MMContraLoss, MultipleChoiceLoss, T2VContraLoss, V2TContraLoss
from mmpt.losses.candidates import symmetric_cross_entropy
from mmpt.utils.distributed import gather_rows
from mmpt.utils.registry import build
from mmpt.utils.schema import declared_options
from tests.processes import spawn

WIDTH = 6
CANDIDATES = 3


class AlignedNCE(NCE):
    """NCE of a model of one's own: a pair that is not aligned is each text turned round."""

    def __call__(self, pooled_video: Tensor, pooled_text: Tensor, **kwargs: Any) -> Tensor:
        scores = [(pooled_video * text).sum(1) for text in (pooled_text, pooled_text.flip(1))]
        return super().__call__(torch.cat(scores)[:, None], **kwargs)


class Symmetric:
    """The building block of MERLOT and Reserve."""

    def __init__(self, global_negatives: bool = False) -> None:
        self.global_negatives = global_negatives

    def __call__(self, pooled_video: Tensor, pooled_text: Tensor, **kwargs: Any) -> Tensor:
        return symmetric_cross_entropy(pooled_video, pooled_text, 1 / 0.5, self.global_negatives, **kwargs)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cosine": {"temperature": 0.2, "normalize": True},
    "learned": {"temperature": 0.3, "normalize": True, "learn_temperature": True},
}
LOSSES: dict[str, type] = {"T2V": T2VContraLoss, "V2T": V2TContraLoss, "both": MMContraLoss, "MIL-NCE": MILNCELoss}
OTHERS: dict[str, type] = {"NCE": AlignedNCE, "symmetric": Symmetric}
CASES = [(loss, options) for loss in LOSSES for options in OPTIONS] + [(loss, "plain") for loss in OTHERS]
SIZES = {2: ([4, 4], [1, 5], [0, 3]), 4: ([3, 3, 3, 3], [3, 1, 0, 4])}


def make(name: str, options: str, **more: Any) -> Any:
    loss_fn = (LOSSES | OTHERS)[name](**OPTIONS[options], **more)
    return loss_fn.double() if isinstance(loss_fn, nn.Module) else loss_fn


def towers() -> nn.ModuleDict:
    generator = torch.Generator().manual_seed(1)
    model = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH).double() for name in ("video", "text")})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def whole_batch(count: int, name: str = "both") -> tuple[Tensor, Tensor]:
    """Return videos (count, W) and their texts (count, W), or (count, candidates, W)."""
    generator = torch.Generator().manual_seed(2)
    texts = 1 + CANDIDATES * (name == "MIL-NCE")
    rows = torch.randn(count, 1 + texts, WIDTH, generator=generator, dtype=torch.float64)
    return rows[:, 0], rows[:, 1:] if name == "MIL-NCE" else rows[:, 1]


def step(loss_fn: Any, video: Tensor, text: Tensor, padding: bool = False) -> list[Tensor]:
    """Return the loss and the gradients of inputs and parameters."""
    model = towers()
    video, text = video.clone().requires_grad_(), text.clone().requires_grad_()
    pooled_text = model["text"](text).flatten(0, -2)
    loss = loss_fn(pooled_video=model["video"](video), pooled_text=pooled_text, padding_step=padding)
    loss.backward()
    assert loss.dtype == torch.float64
    learned = list(loss_fn.parameters()) if isinstance(loss_fn, nn.Module) else []
    gradients = [value.grad for value in (video, text, *model.parameters(), *learned)]
    return [loss.detach(), *(gradient for gradient in gradients if gradient is not None)]


def averaged(value: Tensor, workers: int) -> Tensor:
    """Do what fairseq does to gradients: add up, and divide by the workers whose sample_size is 1."""
    value = value / workers
    dist.all_reduce(value)
    return value


def worker(rank: int, workers: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=workers)
    results: dict[Any, Any] = {}
    for number, sizes in enumerate(SIZES[workers]):
        counting = sum(size > 0 for size in sizes)
        for name, options in CASES:
            batch = whole_batch(sum(sizes), name)
            # A worker that has run out of batches repeats one, which does not count.
            own = [rows.split(sizes)[rank] if sizes[rank] else rows[:2] for rows in batch]
            loss_fn = make(name, options, global_negatives=True)
            loss, *gradients = step(loss_fn, *own, padding=not sizes[rank])
            shared = [averaged(value, counting) for value in (loss, *gradients[2:])]
            inputs = [value / counting for value in gradients[:2]]
            results[number, name, options] = {"shared": shared, "inputs": inputs}
            with torch.no_grad():
                model = towers()
                video, text = (rows.split(sizes)[rank] for rows in batch)
                if name == "both":  # no rows at all are as good as a padding step
                    quiet = averaged(loss_fn(model["video"](video), model["text"](text)), counting)
                    results[number, name, options]["without gradient"] = quiet
    video, text = (rows.split(SIZES[workers][0])[rank] for rows in whole_batch(sum(SIZES[workers][0])))
    results["per worker"] = averaged(step(MMContraLoss(), video, text)[0], workers)
    results["half"] = MMContraLoss(global_negatives=True)(video.bfloat16(), text.bfloat16())
    # worker r has r rows of value r, and weighs row n by (r + 1) * n
    rows = torch.full((rank, 2, 3), float(rank), requires_grad=True)
    everyone, offset = gather_rows(rows)
    weights = (rank + 1) * torch.arange(len(everyone))
    (everyone * weights[:, None, None]).sum().backward()
    results["gather"] = (everyone.detach(), offset, rows.grad)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def run_workers(workers: int, folder: Path) -> list[dict[Any, Any]]:
    spawn(worker, (workers, str(folder)), nprocs=workers)
    return [torch.load(folder / f"{rank}.pt") for rank in range(workers)]


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)], ids=["2 workers", "4 workers"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    return run_workers(request.param, tmp_path_factory.mktemp("workers"))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_loss_and_gradients_are_those_of_one_process_with_all_pairs(
    results: list[dict[Any, Any]], name: str, options: str
) -> None:
    for number, sizes in enumerate(SIZES[len(results)]):
        loss, video, text, *parameters = step(make(name, options), *whole_batch(sum(sizes), name))
        assert loss > 0.1
        assert len(parameters) == 4 + (options == "learned")
        for rank, result in enumerate(results):
            case = result[number, name, options]
            torch.testing.assert_close(case["shared"], [loss, *parameters], atol=1e-9, rtol=1e-9)
            if "without gradient" in case:
                torch.testing.assert_close(case["without gradient"], loss, atol=1e-9, rtol=1e-9)
            if sizes[rank]:
                inputs = [video.split(sizes)[rank], text.split(sizes)[rank]]
                torch.testing.assert_close(case["inputs"], inputs, atol=1e-9, rtol=1e-9)
            else:
                assert all(not value.any() for value in case["inputs"])


def test_negatives_stay_with_the_worker_unless_asked_for(results: list[dict[Any, Any]]) -> None:
    sizes = SIZES[len(results)][0]
    batches = zip(*(rows.split(sizes) for rows in whole_batch(sum(sizes))), strict=True)
    alone = torch.stack([step(MMContraLoss(), video, text)[0] for video, text in batches])
    torch.testing.assert_close(results[0]["per worker"], alone.mean())
    assert alone.mean() < step(MMContraLoss(), *whole_batch(sum(sizes)))[0] - 0.1


def test_half_precision_is_compared_in_float32(results: list[dict[Any, Any]]) -> None:
    video, text = (rows.bfloat16() for rows in whole_batch(sum(SIZES[len(results)][0])))
    losses = torch.stack([result["half"] for result in results])
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.mean(), MMContraLoss()(video, text))


def test_gathered_rows_get_the_gradients_of_all_workers(results: list[dict[Any, Any]]) -> None:
    workers = len(results)
    starts = [sum(range(rank)) for rank in range(workers + 1)]
    for rank, (first, last) in enumerate(pairwise(starts)):
        everyone, offset, gradient = results[rank]["gather"]
        assert everyone[:, 0, 0].tolist() == [float(owner) for owner in range(workers) for _ in range(owner)]
        assert offset == first
        assert gradient[:, 0, 0].tolist() == [n * sum(range(1, workers + 1)) for n in range(first, last)]


def test_without_workers_the_option_changes_nothing() -> None:
    rows = torch.ones(3, 2, requires_grad=True)
    everyone, offset = gather_rows(rows)
    assert everyone is rows
    assert offset == 0
    batch = whole_batch(5)
    torch.testing.assert_close(step(MMContraLoss(global_negatives=True), *batch), step(MMContraLoss(), *batch))


def test_the_option_is_read_by_every_loss_with_negatives_from_the_batch() -> None:
    for name in ("MMContraLoss", "T2VContraLoss", "V2TContraLoss", "MILNCELoss", "NCE"):
        assert build("loss", name, global_negatives=True).global_negatives
        assert not build("loss", name).global_negatives
        assert hasattr(declared_options("loss", name)["loss"], "global_negatives")
    assert not hasattr(MultipleChoiceLoss.config_options["loss"], "global_negatives")


def test_the_symmetric_cross_entropy_is_the_equation() -> None:
    x, y = whole_batch(5)
    total = 0.0
    for one, other in ((x, y), (y, x)):
        total += float(sum(torch.logsumexp(other @ row, 0) - row @ pair for row, pair in zip(one, other, strict=True)))
    assert symmetric_cross_entropy(x, y).item() == pytest.approx(total / 10, abs=1e-12)
    scaled = symmetric_cross_entropy(3 * x, y, across_workers=False)
    torch.testing.assert_close(symmetric_cross_entropy(x, y, scale=3.0), scaled)
    assert symmetric_cross_entropy(x.bfloat16(), y.bfloat16()).dtype == torch.float32
