"""Reserve's objective over two workers: real processes against a second implementation with both batches."""

from pathlib import Path
from typing import Any

import reserve_reference as reference
import torch
import torch.distributed as dist
from reserve_goldens import GRID, GROUPS, golden_batch, golden_model, golden_noise, parameters, tensor
from torch import Tensor

from mmpt.losses import ReserveLoss
from mmpt.modules.reserve_towers import patches_of
from tests.processes import spawn

OBJECTIVES = ("imgs_to_audio", "text_to_audio", "stuff_to_span")
LEARNED = ("contrastive_scales", "head.weight", "audio_encoder.embedding.weight", "token_encoder.weight")


def replica(number: int) -> dict[str, Tensor]:
    """One example and the published noise of its replica."""
    names = ("split_t2a", "split_a2t", "gumbel")
    noise = golden_noise(*(tensor(f"noise_rep{number}/{name}") for name in names))
    return {**{key: value[number : number + 1] for key, value in golden_batch().items()}, **noise}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = golden_model()
    found = model(**replica(rank))
    loss = ReserveLoss()
    total = loss(**found)
    total.backward()
    results: dict[str, Any] = {"parts": {}, "gradients": {}}
    with torch.no_grad():
        for name, value in {**loss.parts(**found), "total": total.detach()}.items():
            dist.all_reduce(value)
            results["parts"][name] = value / 2
    for name in LEARNED:
        gradient = model.get_parameter(name).grad
        dist.all_reduce(gradient)
        results["gradients"][name] = gradient / 2
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_replicas_are_one_process_with_both_batches(tmp_path: Path) -> None:
    spawn(worker, (str(tmp_path),), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    published = {key: value.requires_grad_() for key, value in parameters().items()}
    each = []
    for number in range(2):
        batch = replica(number)
        batch["patches"] = patches_of(batch["vfeats"])
        each.append(reference.pretraining(published, batch, GRID, GROUPS, 8, 0.25))
    joined = {key: torch.cat([one[key] for one in each]) for key in each[0]}
    wanted = {
        name: reference.contrast(joined[f"{name}_x"], joined[f"{name}_y"], joined.get(f"{name}_y_extra"))
        for name in OBJECTIVES
    }
    wanted["total"] = sum(wanted.values())
    wanted["total"].backward()
    alone = reference.loss(each[0])
    assert float(wanted["total"].detach()) > float(alone.detach()) + 0.5
    for result in results:
        for name, value in wanted.items():
            torch.testing.assert_close(result["parts"][name], value.detach(), atol=1e-4, rtol=0, msg=name)
        gradients = result["gradients"]
        for ours, name, turn in (
            ("contrastive_scales", "contrastive_scales", lambda value: value),
            ("head.weight", "head/kernel", lambda value: value.T),
            ("token_encoder.weight", "token_encoder/Embed_0/embedding", lambda value: value),
            ("audio_encoder.embedding.weight", "audio_encoder/embedding/kernel", lambda value: value.permute(2, 1, 0)),
        ):
            torch.testing.assert_close(gradients[ours], turn(published[name].grad), atol=1e-5, rtol=1e-3, msg=ours)
