"""Weights, inputs and numbers of the published MERLOT on tiny sizes, for the parity tests."""

from functools import cache
from typing import Any

import torch
from published import read_golden
from torch import Tensor

from mmpt.models.merlot import MERLOTPretraining
from mmpt.utils.checkpoint import load_checkpoint
from mmpt.utils.files import REPOSITORY

CHECKPOINT = REPOSITORY / "tests/data/merlot_checkpoint/model.ckpt"
SIZES = {
    "hidden_size": 64,
    "num_layers": 2,
    "vision_layers": 2,
    "num_heads": 4,
    "intermediate_size": 256,
    "vocab_size": 400,
    "max_text_positions": 64,
    "max_image_positions": 80,
    "resnet_layers": [2, 1, 1],
    "dropout": 0.0,
}


@cache
def merlot_golden() -> dict[str, Tensor]:
    """Return inputs and outputs: float32, or int64."""
    found = {key: torch.from_numpy(value) for key, value in read_golden("merlot_tiny.npz").items()}
    return {key: value if value.is_floating_point() else value.long() for key, value in found.items()}


def golden_config(**model: Any) -> dict[str, Any]:
    return {"dataset": {"chunks_in_group": 2}, "model": SIZES | model}


def published_model() -> MERLOTPretraining:
    """Build the model with the published weights, in eval mode."""
    model = MERLOTPretraining(golden_config())
    load_checkpoint(model, CHECKPOINT)
    return model.eval()


def golden_batch() -> dict[str, Tensor]:
    """Return the two records, in the layout of the aligner, with the masks that the published code drew."""
    golden = merlot_golden()
    frames = golden["inputs/images"].permute(0, 3, 1, 2)
    return {
        "tokens": golden["inputs/input_ids"],
        "vfeats": frames.unflatten(0, (2, 4)),
        "video_src_ids": golden["inputs/video_src_ids"],
        "shuffled_idx_img": golden["inputs/shuffled_idx_img"].view(2, 4),
        "masked_ids": golden["outputs/masked_ids"],
        "masked_idx": golden["outputs/masked_idx"],
    }


def assert_near(value: Tensor, name: str, rows: Tensor | None = None) -> None:
    """Compare with a published number to 1e-4; of ``rows``, a bool mask of its first dimensions, alone."""
    wanted = merlot_golden()[f"outputs/{name}"]
    value = value.detach().reshape(wanted.shape)
    if rows is not None:
        value, wanted = value[rows], wanted[rows]
    torch.testing.assert_close(value.float(), wanted.float(), atol=1e-4, rtol=1e-4, msg=lambda text: f"{name}: {text}")
