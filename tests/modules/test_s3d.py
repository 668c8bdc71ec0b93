"""S3D against numbers of the published network, its state-dict layout, loading and initialisation."""

import json
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch

from mmpt.modules.s3d import S3D, load_s3d, random_s3d
from mmpt.modules.s3d_inference import S3DInference
from mmpt.utils.errors import CheckpointError

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "s3d_golden.npz")
LAYOUT = {key: tuple(shape) for key, shape in json.loads(str(GOLDEN["state_keys"])).items()}


def published_fill(key, shape):
    if key == "text_module.word_embd.weight":  # two thirds of the file, of no influence on video
        return np.resize(np.linspace(-1, 1, 997, dtype=np.float32), shape)
    values = np.random.RandomState(crc32(key.encode()) & 0x7FFFFFFF).standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        return 1 + 0.1 * np.abs(values)
    return 1 + 0.1 * values if len(shape) == 1 and key.endswith("weight") else 0.1 * values


@pytest.fixture(scope="module")
def state():
    return {
        key: torch.tensor(7)
        if key.endswith("num_batches_tracked")
        else torch.from_numpy(np.asarray(published_fill(key, shape), np.float32))
        for key, shape in LAYOUT.items()
    }


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("s3d") / "s3d_howto100m.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def model(weights):
    return load_s3d(weights)


def assert_golden(outputs, tolerance=1e-5):
    for name in ("video_embedding", "mixed_5c"):
        golden = GOLDEN[name]
        assert outputs[name].shape == golden.shape
        assert np.abs(outputs[name].numpy() - golden).max() <= tolerance * max(1, np.abs(golden).max())


def test_state_dict_layout_is_the_published_one():
    layout = {key: tuple(value.shape) for key, value in S3D().state_dict().items()}
    assert layout == LAYOUT
    assert len(layout) == 537


@torch.inference_mode()
def test_parity_with_published_network(weights):
    # In double precision, so that no processor's convolutions come in between: the outputs are in the thousands.
    assert_golden(load_s3d(weights).double()(torch.from_numpy(GOLDEN["video"]).double()))


@torch.inference_mode()
def test_single_precision_is_near_the_published_network(model):
    assert_golden(model(torch.from_numpy(GOLDEN["video"])), tolerance=5e-5)


@torch.inference_mode()
def test_folded_batch_norms_keep_parity(weights):
    folded = S3DInference(load_s3d(weights))
    # the golden numbers themselves are 5e-6 away from those of double precision
    assert_golden(folded(torch.from_numpy(GOLDEN["video"])), tolerance=5e-5)


@torch.inference_mode()
def test_batch_of_two_equals_two_batches(model):
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(2, 3, 6, 32, 64, generator=generator)
    both = model(video)["video_embedding"]
    each = torch.cat([model(video[:1])["video_embedding"], model(video[1:])["video_embedding"]])
    assert torch.allclose(both, each, rtol=1e-4, atol=1e-3 * each.abs().max())


@torch.inference_mode()
def test_shapes_of_one_second(model):
    features = model.feature_map(torch.zeros(1, 3, 30, 64, 64))
    assert features.shape == (1, 1024, 4, 2, 2)
    outputs = model(torch.zeros(1, 3, 30, 64, 64))
    assert outputs["video_embedding"].shape == (1, 512)
    assert outputs["mixed_5c"].shape == (1, 1024)


def test_gating_false_is_honoured():
    gated, ungated = random_s3d(0), S3D(gating=False).eval()
    assert not any("gating" in key for key in ungated.state_dict())
    video = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    ungated.load_state_dict({key: value for key, value in gated.state_dict().items() if "gating" not in key})
    with torch.inference_mode():
        # with zero biases and weights near zero each gate is a half; without gates the signal is larger
        assert ungated(video)["mixed_5c"].mean() > 10 * gated(video)["mixed_5c"].mean()


def test_plain_stem():
    plain = S3D(space_to_depth=False).eval()
    assert plain.conv1.conv1.weight.shape == (64, 3, 3, 7, 7)
    with torch.inference_mode():
        assert plain.feature_map(torch.zeros(1, 3, 30, 64, 64)).shape == (1, 1024, 4, 2, 2)


def test_text_module_maps_word_ids(model):
    words = torch.tensor([[5, 9, 2], [2, 5, 9]])
    with torch.inference_mode():
        vectors = model.text_module(words)
    assert vectors.shape == (2, 512)
    assert torch.equal(vectors[0], vectors[1])  # a bag of words


def test_integer_or_odd_input_is_refused(model):
    with pytest.raises(ValueError, match="divide uint8 frames by 255"):
        model(torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="even sizes"):
        model(torch.zeros(1, 3, 5, 32, 32))
    with pytest.raises(ValueError, match="even sizes"):
        model(torch.zeros(1, 4, 32, 32, 3))


def test_half_precision_file_loads_as_float32(state, tmp_path):
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in state.items()}, tmp_path / "h.pth"
    )
    model = load_s3d(tmp_path / "h.pth")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert not model.training


def test_wrong_files_are_named(state, tmp_path):
    with pytest.raises(CheckpointError, match=r"absent\.pth: no such file"):
        load_s3d(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.pth: damaged, or not a PyTorch checkpoint"):
        load_s3d(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match=r"list\.pth: holds a list, not a state dict"):
        load_s3d(tmp_path / "list.pth")
    small = {key: value for key, value in state.items() if not key.startswith("text_module.word")}
    lacking = {key: value for key, value in small.items() if key != "mixed_4c.gating_b1.fc.bias"}
    torch.save({**lacking, "extra.weight": torch.zeros(1)}, tmp_path / "lacking.pth")
    with pytest.raises(CheckpointError) as error:
        load_s3d(tmp_path / "lacking.pth")
    for part in (
        "2 missing",
        "mixed_4c.gating_b1.fc.bias",
        "text_module.word_embd.weight",
        "1 unexpected: extra.weight",
    ):
        assert part in str(error.value)
    torch.save({**small, "conv_2b.conv1.weight": torch.zeros(64, 64, 1, 1, 2)}, tmp_path / "shape.pth")
    with pytest.raises(CheckpointError, match=r"conv_2b\.conv1\.weight is \(64, 64, 1, 1, 2\)"):
        load_s3d(tmp_path / "shape.pth")


def test_a_file_with_code_is_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"fc.bias": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError):
        load_s3d(tmp_path / "bomb.pth")
    assert not (tmp_path / "executed").exists()


def test_random_weights_depend_on_the_seed_alone():
    before = torch.get_rng_state()
    first, second = random_s3d(3).state_dict(), random_s3d(4).state_dict()
    again = random_s3d(3).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.conv1.weight"], second["conv1.conv1.weight"])
    assert all(torch.isfinite(value).all() for value in first.values() if value.is_floating_point())
