"""Weights, inputs and numbers of the published VIOLET and LAVENDER on tiny sizes, for the parity tests."""

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from published import read_golden
from torch import Tensor, nn

SIZES = {
    "violet": {"swin_embed_dim": 8, "swin_heads": [1, 2, 2, 4]},
    # Its images are normalised before the model sees them.
    "lavender": {"swin_embed_dim": 16, "swin_heads": [1, 2, 4, 8], "pixel_mean": [0, 0, 0], "pixel_std": [1, 1, 1]},
}


@cache
def frame_golden(system: str) -> dict[str, np.ndarray]:
    """Return inputs and outputs of one system, ``"violet"`` (two frames of 96 pixels) or ``"lavender"``."""
    golden = read_golden(f"{system}_tiny.npz")
    if system == "lavender":
        golden["img"] = torch.randn(3, 4, 3, 224, 224, generator=torch.Generator().manual_seed(99)).numpy()
    return golden


def tensors(golden: dict[str, np.ndarray], *names: str) -> list[Tensor]:
    return [torch.from_numpy(golden[name]) for name in names]


def golden_bert(system: str, folder: Path) -> str:
    """Write the folder of the tiny BERT that the numbers were computed with; return its path."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(str(frame_golden(system)["bert_config"]))
    (folder / "vocab.txt").write_text("\n".join(frame_golden("lavender")["vocab"].tolist()) + "\n")
    return str(folder)


def golden_config(system: str, model_cls: str, bert: str, **sections: Any) -> dict[str, Any]:
    model = {"model_cls": model_cls, "init": "random", "swin": "custom", "swin_depths": [2, 2, 2, 2], **SIZES[system]}
    dataset = {"bert_name": bert, "use_fast": False, "num_frames": 4, "max_text_len": 12}
    return {
        "dataset": {**dataset, **sections.pop("dataset", {})},
        "model": {**model, **sections.pop("model", {})},
        **sections,
    }


def published_weight(key: str, tensor: Tensor) -> Tensor:
    """The published weights of the parity tests are a function of their name."""
    if not tensor.is_floating_point():
        return tensor
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if key.endswith("relative_position_bias_table"):
        return 0.5 * noise
    return 1 + 0.05 * noise if tensor.dim() == 1 and key.endswith("weight") else 0.04 * noise


def fill(model: nn.Module) -> nn.Module:
    """Give a model the weights that the numbers were computed with; tied ones are those of their first name."""
    state = {key: published_weight(key, value) for key, value in model.state_dict().items()}
    if "fc_mtm.predictions.bias" in state:
        state["fc_mtm.predictions.decoder.bias"] = state["fc_mtm.predictions.bias"]
    model.load_state_dict(state)
    return model.eval()


def assert_close(value: Tensor, wanted: np.ndarray, what: str = "") -> None:
    assert value.shape == wanted.shape, what
    assert np.abs(value.detach().numpy() - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max()), what


def listed_keys(system: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the published state dict at its base size."""
    return {key: tuple(shape) for key, shape in json.loads(str(frame_golden(system)["state_keys"]))}
