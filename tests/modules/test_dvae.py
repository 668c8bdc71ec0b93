"""The encoder of visual tokens against the published one: names, scores, codes; weights out of a pickled module."""

import json
import math
import pickle
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.modules.dvae import DVAEEncoder, map_pixels
from mmpt.modules.visual_tokenizer import load_visual_tokenizer
from mmpt.utils.errors import CheckpointError, DataError
from mmpt.utils.files import REPOSITORY
from mmpt.utils.weight_files import save_safetensors

GOLDEN = REPOSITORY / "tests/data/dvae_golden.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


def weight_of(key: str, shape: torch.Size) -> torch.Tensor:
    """The weights of the golden numbers are a function of their name."""
    noise = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(0.1 * noise if len(shape) == 1 else noise / math.sqrt(math.prod(shape[1:])))


def weights() -> dict[str, torch.Tensor]:
    return {key: weight_of(key, value.shape) for key, value in DVAEEncoder(64, 512).state_dict().items()}


def test_scores_and_codes_equal_the_published_ones(golden) -> None:
    model = DVAEEncoder.from_state(weights())
    image = torch.from_numpy(golden["image"])
    with torch.no_grad():
        logits = model(image)
    assert np.abs(logits.numpy() - golden["logits"]).max() <= 1e-5 * max(1, np.abs(golden["logits"]).max())
    assert np.array_equal(model.codes(image).numpy(), golden["codes"])


def test_the_state_dict_is_that_of_the_published_file(golden) -> None:
    model = DVAEEncoder()
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == json.loads(str(golden["state_keys"]))


def test_bytes_are_fractions_of_255() -> None:
    images = torch.tensor([[0, 255, 51]], dtype=torch.uint8)
    torch.testing.assert_close(map_pixels(images), torch.tensor([[0.1, 0.9, 0.26]]))
    torch.testing.assert_close(map_pixels(images / 255), map_pixels(images))


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"multiples of 8"):
        DVAEEncoder(8, 16)(torch.zeros(1, 3, 16, 20))


# The published file is a module of these classes; here with the same attributes, as far as tensors go.
PACKAGE = {
    "__init__.py": "",
    "utils.py": """
        import torch
        from torch import nn

        class Conv2d(nn.Module):
            def __init__(self, w, b):
                super().__init__()
                self.w, self.b, self.device = nn.Parameter(w), nn.Parameter(b), torch.device("cpu")
        """,
    "encoder.py": """
        from torch import nn

        class EncoderBlock(nn.Module):
            pass

        class Encoder(nn.Module):
            group_count = 4
        """,
}


@pytest.fixture
def dall_e(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package of the published name, to write pickled modules with; reading them must work without it."""
    folder = tmp_path / "packages/dall_e"
    folder.mkdir(parents=True)
    for name, text in PACKAGE.items():
        (folder / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(folder.parent))
    import dall_e.encoder
    import dall_e.utils  # noqa: F401

    yield sys.modules["dall_e"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "dall_e"]:
        del sys.modules[name]


def pickled_module(package, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Return a module that holds ``state``, of the classes of the published one."""
    encoder = package.encoder.Encoder()
    encoder.use_mixed_precision = True
    for key in [key for key in state if key.endswith(".w")]:
        *path, last, _ = key.split(".")
        parent = encoder
        for part in path:
            if part not in dict(parent.named_children()):
                made = package.encoder.EncoderBlock() if part.startswith("block_") else torch.nn.Sequential()
                parent.add_module(part, made)
            parent = parent.get_submodule(part)
        parent.add_module(last, package.utils.Conv2d(state[key], state[key[:-1] + "b"]))
    encoder.blocks.group_1.add_module("pool", torch.nn.MaxPool2d(kernel_size=2))
    encoder.blocks.group_1.block_2.add_module("id_path", torch.nn.Identity())
    return encoder


def test_a_pickled_module_gives_its_weights_without_its_package(
    dall_e, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = DVAEEncoder(8, 16).state_dict()
    path = tmp_path / "encoder.pkl"
    torch.save(pickled_module(dall_e, state), path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "dall_e"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "packages" not in entry])
    loaded = load_visual_tokenizer(path)
    assert isinstance(loaded, DVAEEncoder) and not loaded.training and "dall_e" not in sys.modules
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


class Exploit:
    """Makes a folder when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self):
        return Path.mkdir, (self.made,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_module_is_refused_and_does_nothing(dall_e, zipped: bool, tmp_path: Path) -> None:
    module = pickled_module(dall_e, DVAEEncoder(8, 16).state_dict())
    module.blocks.evil = Exploit(tmp_path / "made")
    torch.save(module, tmp_path / "encoder.pkl", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"encoder\.pkl.*would run code" if zipped else "before 1.6"):
        load_visual_tokenizer(tmp_path / "encoder.pkl")
    assert not (tmp_path / "made").exists()


def test_a_class_of_another_package_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Tanh(), tmp_path / "encoder.pkl")
    with pytest.raises(CheckpointError, match="activation.Tanh"):
        load_visual_tokenizer(tmp_path / "encoder.pkl")


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "encoder.pkl").write_bytes(pickle.dumps(Exploit(tmp_path / "made")))
    with pytest.raises(CheckpointError, match=r"encoder\.pkl"):
        load_visual_tokenizer(tmp_path / "encoder.pkl")
    assert not (tmp_path / "made").exists()


def test_a_state_dict_is_read_as_well(tmp_path: Path) -> None:
    state = DVAEEncoder(8, 16, blocks_per_group=1).state_dict()
    torch.save(state, tmp_path / "a.pt")
    save_safetensors(tmp_path / "a.safetensors", state)
    for name in ("a.pt", "a.safetensors"):
        assert all(torch.equal(v, state[k]) for k, v in load_visual_tokenizer(tmp_path / name).state_dict().items())
    torch.save({"other": torch.zeros(2)}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"b\.pt: not the encoder"):
        load_visual_tokenizer(tmp_path / "b.pt")
