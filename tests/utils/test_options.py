"""Options: a value of a wrong type is told with its section and key."""

import pytest
from omegaconf import OmegaConf

from mmpt.evaluators.fusion_run import FusionOptions
from mmpt.utils.errors import ConfigError
from mmpt.utils.options import read_options, read_section


def test_a_wrong_type_is_told_with_its_section() -> None:
    config = OmegaConf.create({"eval": {"rerank_top_k": "ten"}})
    with pytest.raises(ConfigError, match=r"^eval\.rerank_top_k: .*'ten'"):
        read_section(config, "eval", FusionOptions)
    with pytest.raises(ConfigError, match=r"^rerank_top_k: "):
        read_options(config.eval, FusionOptions)


def test_an_absent_section_gives_the_defaults() -> None:
    assert read_section(OmegaConf.create({}), "eval", FusionOptions) == FusionOptions()
    assert read_section(None, "eval", FusionOptions) == FusionOptions()
