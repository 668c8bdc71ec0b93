"""Inputs and numbers of the published implementation, and models that hold its weights."""

import numpy as np
import pytest
import torch
from published import pair_inputs, read_golden
from vlm_samples import joint, mtm, weights

from mmpt.models.vlm import MMFusionJoint, MMFusionMTM
from mmpt.utils.checkpoint import load_into


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    return {**read_golden("mmpt_videoclip.npz"), **read_golden("mmpt_vlm.npz")}


@pytest.fixture(scope="session")
def batch(golden) -> dict[str, torch.Tensor]:
    return pair_inputs(golden)


@pytest.fixture(scope="session")
def masked(golden, batch) -> dict[str, torch.Tensor]:
    labels = {name: torch.from_numpy(golden["in." + name]) for name in ("video_label", "text_label")}
    return {**batch, **labels, "caps": torch.from_numpy(golden["in.caps_masked"])}


@pytest.fixture
def joint_model(golden) -> MMFusionJoint:
    built = joint()
    load_into(built, weights(golden, "MMFusionJoint.iso2.trainTrue"))
    return built


@pytest.fixture
def mtm_model(golden) -> MMFusionMTM:
    built = mtm()
    load_into(built, weights(golden, "MMFusionMTM.train"))
    return built
