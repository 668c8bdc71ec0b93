"""``model.compile``: modes, compilers that are absent, and that compiled layers compute and save what plain ones do."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from mmpt.models.videoclip import MMFusionSeparate
from mmpt.modules import compiling
from mmpt.modules.compiling import COMPILE_MODES, compile_layers, compile_mode
from mmpt.modules.transformer import TransformerEncoder, TransformerOptions
from mmpt.utils.errors import ConfigError
from mmpt.utils.options import read_options

SIZES = {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "intermediate_size": 24}


def encoder(**options: Any) -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(TransformerOptions(**{**SIZES, **options}))


@pytest.mark.parametrize(
    ("given", "mode"), [(False, None), (True, "default"), *((mode, mode) for mode in COMPILE_MODES)]
)
def test_modes(given: bool | str, mode: str | None) -> None:
    section = OmegaConf.create({"compile": given})
    assert compile_mode(read_options(section, MMFusionSeparate.config_options["model"]).compile) == mode


def test_a_mode_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="model.compile: 'max-autotone'.*Did you mean 'max-autotune'"):
        compile_mode("max-autotone")


def test_no_compiler_is_said_so(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"no-such-compiler is not installed.*model.compile: false"):
        compile_layers(encoder(), "default")
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs triton on a GPU"):
        compile_layers(encoder(), "default", "cuda")


def test_no_headers_are_said_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda name: name)
    monkeypatch.setattr(compiling.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ConfigError, match=f"no {tmp_path}/Python.h"):
        compile_layers(encoder(), "default")


def test_a_model_without_such_layers_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(compiling, "_lacking", lambda device: "")
    with pytest.raises(ConfigError, match="Linear has no layer"):
        compile_layers(nn.Linear(2, 2), "default")


def test_names_and_copies_stay_plain(monkeypatch) -> None:
    """Nothing is compiled before it is called; a moving average copies the model, and runs the copy nowhere."""
    monkeypatch.setattr(compiling, "_lacking", lambda device: "")
    plain, compiled = encoder(), encoder()
    assert compile_layers(compiled, "default") == 2
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in compiled.named_parameters()] == [name for name, _ in plain.named_parameters()]
    twin = copy.deepcopy(compiled)
    assert all(map(torch.equal, twin.state_dict().values(), plain.state_dict().values()))
    hidden = torch.randn(2, 3, 16)
    assert torch.equal(twin(hidden).last_hidden_state, plain(hidden).last_hidden_state)


@pytest.fixture
def quick_compiler() -> Iterator[None]:
    """Leave out headers that are compiled first: for small programs they are half of the time."""
    from torch._inductor import config

    with config.patch(cpp_cache_precompile_headers=False):
        yield


@pytest.mark.slow
@pytest.mark.skipif(bool(compiling._lacking("cpu")), reason="no compiler here")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.usefixtures("quick_compiler")
def test_compiled_layers_compute_what_plain_ones_do(checkpointing: bool) -> None:
    plain, compiled = encoder(), encoder(gradient_checkpointing=checkpointing)
    compile_layers(compiled, "default")
    for length in (5, 7):  # lengths are dynamic
        hidden = torch.randn(3, length, 16)
        mask = torch.arange(length)[None] < torch.tensor([[length], [2], [4]])
        results = []
        for model in (plain, compiled):
            model.zero_grad()
            output = model(hidden, mask).last_hidden_state
            output.square().mean().backward()
            results.append([output, *(parameter.grad for parameter in model.parameters())])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(
            plain.eval()(hidden, mask).last_hidden_state, compiled.eval()(hidden, mask).last_hidden_state
        )
