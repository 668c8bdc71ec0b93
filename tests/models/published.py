"""Weights, inputs and numbers of the published implementation, for the parity tests."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mmpt.utils.files import REPOSITORY

TINY = REPOSITORY / "tests/data/tiny_bert"
INPUTS = ("caps", "cmasks", "vfeats", "vmasks")


def read_golden(name: str) -> dict[str, np.ndarray]:
    with np.load(REPOSITORY / "tests/data" / name) as file:
        return dict(file)


def pair_inputs(golden: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(golden["in." + name]) for name in INPUTS}


def from_key(key: str, shape: list[int]) -> torch.Tensor:
    """The published weights of the parity tests are a function of their name."""
    if key.endswith("position_ids"):
        return torch.arange(shape[1])[None]
    noise = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(1 + 0.1 * noise if len(shape) == 1 and key.endswith("weight") else 0.1 * noise)


def state_keys(golden: Mapping[str, np.ndarray]) -> Any:
    """Return what the file lists: name and shape of the entries of a state dict, or that by model."""
    return json.loads(str(golden["state_keys"]))


def assert_published(value: torch.Tensor, wanted: np.ndarray, what: str) -> None:
    assert value.shape == wanted.shape, what
    assert np.abs(value.detach().numpy() - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max()), what


def config_of(model: Mapping[str, Any], dataset: Mapping[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """The config of the parity tests' models."""
    common = {"bert_name": str(TINY), "max_video_len": 8, "max_len": 24, "split": "test", "use_fast": False}
    return {"dataset": {**common, **(dataset or {})}, "model": dict(model), **sections}
