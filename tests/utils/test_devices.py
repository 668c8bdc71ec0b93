"""The choice of a device."""

import pytest
import torch

from mmpt.utils.devices import pick_device
from mmpt.utils.errors import ConfigError


def test_pick_device():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="gpuu"):
        pick_device("gpuu")
    if not torch.cuda.is_available():
        assert pick_device("auto") == torch.device("cpu")
        with pytest.raises(ConfigError, match="no usable CUDA GPU"):
            pick_device("cuda")
