"""MERLOT's objective against plain sums, with gradients in double precision, and across workers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mmpt.losses import MERLOTLoss
from mmpt.utils.errors import ConfigError
from mmpt.utils.registry import build
from mmpt.utils.schema import declared_options
from tests.processes import spawn

SIZES = [3, 1]  # groups of each worker
CHUNKS, WIDTH, WORDS, MASKED = 2, 5, 11, 3
LEARNED = ("image_vectors", "text_vectors", "word_logits", "text_image_logits", "image_image_logits")


def outputs(groups: int = 4) -> dict[str, Tensor]:
    """What a model gives for so many groups of two chunks, in float64."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    vectors = torch.nn.functional.normalize(normal(2, groups * CHUNKS, WIDTH), dim=-1)
    targets = torch.randint(1, WORDS, (groups * MASKED,), generator=generator)
    targets[::MASKED] = 0  # of each group one position is not to be told
    targets[-2:] = 0  # and of the last one none at all: the workers have unlike numbers of words, too
    return {
        "image_vectors": vectors[0],
        "text_vectors": vectors[1],
        "word_logits": normal(groups * MASKED, WORDS),
        "word_targets": targets,
        "text_image_logits": normal(groups, CHUNKS, CHUNKS, 4),
        "image_image_logits": normal(groups, CHUNKS, CHUNKS, 4),
        "order_targets": torch.randint(0, 4, (groups, CHUNKS, CHUNKS), generator=generator),
        "order_weights": torch.where(torch.rand(groups, CHUNKS, CHUNKS, generator=generator) < 0.5, 0.01, 1.0),
    }


def part(whole: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The rows of one worker."""
    groups = sum(SIZES)
    first = sum(SIZES[:rank])
    found = {}
    for key, value in whole.items():
        each = len(value) // groups
        found[key] = value[each * first : each * (first + SIZES[rank])]
    return found


def test_the_loss_is_the_weighted_sum_of_three_means() -> None:
    given = outputs()
    text, image = given["text_vectors"].tolist(), given["image_vectors"].tolist()

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / 0.05

    rows = range(len(text))
    contrastive = 0.0
    for one, other in ((text, image), (image, text)):
        for row in rows:
            total = sum(math.exp(cosine(one[row], other[column])) for column in rows)
            contrastive -= math.log(math.exp(cosine(one[row], other[row])) / total) / len(rows) / 2
    told = [row for row, target in enumerate(given["word_targets"].tolist()) if target]
    words = -sum(given["word_logits"][row].log_softmax(0)[given["word_targets"][row]] for row in told)
    order = 0.0
    for logits in (given["text_image_logits"], given["image_image_logits"]):
        for place in range(16):
            chosen = logits.view(16, 4)[place].log_softmax(0)[given["order_targets"].flatten()[place]]
            order -= float(given["order_weights"].flatten()[place] * chosen) / 16
    parts = MERLOTLoss().parts(**given, video_id=["a"])
    assert parts["contrastive"].item() == pytest.approx(contrastive)
    assert parts["mlm"].item() == pytest.approx(float(words) / (len(told) + 1e-5))
    assert parts["temporal"].item() == pytest.approx(order)
    assert MERLOTLoss()(**given).item() == pytest.approx(0.25 * contrastive + parts["mlm"].item() + order)
    weighted = MERLOTLoss(contrast_coef=0.5, mask_coef=2.0, temporal_coef=0.0)(**given)
    assert weighted.item() == pytest.approx(0.5 * contrastive + 2 * parts["mlm"].item())


def test_the_gradient_is_that_of_the_equations() -> None:
    given = outputs()
    leaves = {key: given[key].clone().requires_grad_() for key in LEARNED}
    MERLOTLoss()(**given | leaves).backward()
    text, image = given["text_vectors"], given["image_vectors"]
    scores = text @ image.T / 0.05
    own = torch.eye(len(text), dtype=torch.float64)
    # d/ds of both directions: softmax over images, and over texts, less what is right
    slope = (scores.softmax(1) - own + scores.softmax(0) - own) / (2 * len(text)) / 0.05 * 0.25
    torch.testing.assert_close(leaves["text_vectors"].grad, slope @ image)
    torch.testing.assert_close(leaves["image_vectors"].grad, slope.T @ text)
    told = (given["word_targets"] != 0).double()
    right = torch.nn.functional.one_hot(given["word_targets"], WORDS)
    wanted = (given["word_logits"].softmax(1) - right) * told[:, None] / (told.sum() + 1e-5)
    torch.testing.assert_close(leaves["word_logits"].grad, wanted)
    right = torch.nn.functional.one_hot(given["order_targets"], 4)
    for key in ("text_image_logits", "image_image_logits"):
        wanted = (given[key].softmax(-1) - right) * given["order_weights"][..., None] / 16
        torch.testing.assert_close(leaves[key].grad, wanted)


def test_half_precision_is_summed_in_float32() -> None:
    given = {key: value.bfloat16() if value.is_floating_point() else value for key, value in outputs().items()}
    exact = {key: value.float() if value.is_floating_point() else value for key, value in given.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = MERLOTLoss().parts(**given)
    for name, value in MERLOTLoss().parts(**exact).items():
        assert parts[name].dtype == torch.float32
        torch.testing.assert_close(parts[name], value, atol=1e-6, rtol=1e-6)


def test_where_nothing_is_told_the_loss_has_a_gradient_of_zeros() -> None:
    given = outputs()
    logits = given["word_logits"].requires_grad_()
    loss = MERLOTLoss().parts(**given | {"word_targets": torch.zeros_like(given["word_targets"])})["mlm"]
    loss.backward()
    assert loss == 0 and logits.grad is not None and not logits.grad.any()


def test_what_is_measured_is_how_often_each_objective_is_right() -> None:
    eye = torch.eye(4)
    given = {
        "text_vectors": eye,
        "image_vectors": eye[[0, 1, 3, 2]],
        "word_logits": eye[:3],
        "word_targets": torch.tensor([0, 1, 3]),
        "text_image_logits": eye.view(1, 2, 2, 4),
        "order_targets": torch.tensor([[[0, 1], [2, 2]]]),
    }
    measures = MERLOTLoss().measures(**given)
    assert {key: float(value) for key, value in measures.items()} == {
        "mlm_accuracy": 0.5,
        "text_to_image_accuracy": 0.5,
        "image_to_text_accuracy": 0.5,
        "text_image_order_accuracy": 0.75,
    }
    assert MERLOTLoss().measures(**given, image_image_logits=eye.flip(0).view(1, 2, 2, 4)).keys() - measures.keys()


def averaged(value: Tensor) -> Tensor:
    """Do what fairseq does: add up, and divide by the workers whose sample_size is 1."""
    value = value.detach() / len(SIZES)
    dist.all_reduce(value)
    return value


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(SIZES))
    results: dict[str, Any] = {}
    whole = outputs()
    for name, given in (("unlike", part(whole, rank)), ("alike", alike(whole, rank))):
        leaves = {key: given[key].clone().requires_grad_() for key in LEARNED}
        loss = MERLOTLoss()
        parts = loss.parts(**given | leaves)
        loss(**given | leaves).backward()
        results[name] = {
            "parts": {key: averaged(value) for key, value in parts.items()},
            "gradients": {key: value.grad / len(SIZES) for key, value in leaves.items()},
        }
    # the second worker has run out of batches: its rows do not count
    padding = MERLOTLoss().parts(**part(whole, 0), padding_step=rank == 1)
    results["padding"] = {key: value.detach() for key, value in padding.items()}
    results["apart"] = MERLOTLoss(global_negatives=False).parts(**part(whole, rank))["contrastive"]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def alike(whole: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The rows of one of two workers with equally many."""
    return {key: value.chunk(2)[rank] for key, value in whole.items()}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("workers")
    spawn(worker, (str(folder),), nprocs=len(SIZES))
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(SIZES))]


def test_two_workers_have_the_loss_and_the_gradients_of_one(results: list[dict[str, Any]]) -> None:
    whole = outputs()
    leaves = {key: whole[key].clone().requires_grad_() for key in LEARNED}
    parts = MERLOTLoss().parts(**whole | leaves)
    MERLOTLoss()(**whole | leaves).backward()
    for rank, result in enumerate(results):
        for case, own in (("alike", alike), ("unlike", part)):
            for name in parts:
                torch.testing.assert_close(result[case]["parts"][name], parts[name].detach(), atol=1e-6, rtol=1e-6)
            for key, value in leaves.items():
                assert value.grad is not None
                wanted = own(whole | {key: value.grad}, rank)[key]
                torch.testing.assert_close(result[case]["gradients"][key], wanted, atol=1e-6, rtol=1e-6)


def test_frames_are_compared_with_those_of_all_workers_however_many_each_has(results: list[dict[str, Any]]) -> None:
    whole = outputs()
    leaves = {key: whole[key].clone().requires_grad_() for key in ("image_vectors", "text_vectors")}
    loss = MERLOTLoss().parts(**whole | leaves)["contrastive"]
    (0.25 * loss).backward()
    for rank, result in enumerate(results):
        torch.testing.assert_close(result["unlike"]["parts"]["contrastive"], loss.detach(), atol=1e-9, rtol=1e-9)
        for key, value in leaves.items():
            assert value.grad is not None
            wanted = part(whole | {key: value.grad}, rank)[key]
            torch.testing.assert_close(result["unlike"]["gradients"][key], wanted, atol=1e-9, rtol=1e-9)
    alone = MERLOTLoss().parts(**part(whole, 0))
    torch.testing.assert_close(results[0]["apart"], alone["contrastive"])
    torch.testing.assert_close(results[0]["padding"], alone)
    assert not any(results[1]["padding"].values())


def test_the_options_are_those_of_the_class() -> None:
    assert build("loss", "MERLOTLoss", contrast_coef=0.5).weights["contrastive"] == 0.5
    declared = vars(declared_options("loss", "MERLOTLoss")["loss"]())
    assert declared == {
        "temperature": 0.05, "contrast_coef": 0.25, "mask_coef": 1.0, "temporal_coef": 1.0, "global_negatives": True
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"loss\.temperature"):
        MERLOTLoss(temperature=0)
    with pytest.raises(ConfigError, match=r"loss\.temporal_coef: must not be negative"):
        MERLOTLoss(temporal_coef=-1)
