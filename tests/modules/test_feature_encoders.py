"""Feature encoders: one contract for all, and Hugging Face models against direct calls of them."""

import json

import numpy as np
import pytest
import torch

from mmpt.modules.feature_encoders import FeatureEncoder, S3DEncoder, build_encoder
from mmpt.modules.hf_features import picture_sizes
from mmpt.modules.s3d import random_s3d
from mmpt.utils.errors import CheckpointError, ConfigError
from mmpt.utils.files import file_sha256

VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 16,
}
PREPROCESSING = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "size": {"height": 32, "width": 32},
    "rescale_factor": 1 / 255,
}


def seconds(encoder, count=3, seed=0):
    shape = (count, encoder.fps, encoder.size, encoder.size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(model, folder, **preprocessing):
    model.eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSING, **preprocessing}))
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("hf")
    text = {**{key: VISION[key] for key in list(VISION)[:4]}, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    vit = transformers.ViTModel(transformers.ViTConfig(**VISION))
    clip = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12))
    video = transformers.VideoMAEModel(transformers.VideoMAEConfig(**VISION, num_frames=4, tubelet_size=2))
    resnet = transformers.ResNetModel(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 24], depths=[1, 1], layer_type="basic")
    )
    classifier = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION))
    return {
        "vit": save(vit, root / "vit"),
        "clip": save(clip, root / "clip", size={"shortest_edge": 40}, crop_size=32, do_center_crop=True),
        "videomae": save(video, root / "videomae"),
        "resnet": save(resnet, root / "resnet"),
        "no_pooler": save(classifier, root / "no_pooler"),
    }


@pytest.fixture(params=["conv3d", "vit", "clip", "videomae", "resnet"])
def encoder(request, folders):
    if request.param == "conv3d":
        pytest.importorskip("mmpt.modules.conv3d")
        return build_encoder("conv3d", dim=24)
    return build_encoder("hf", model=folders[request.param])


def test_common_contract(encoder):
    assert isinstance(encoder, FeatureEncoder)
    assert encoder.frames_per_feature == encoder.fps
    assert encoder.resize >= encoder.size
    frames = seconds(encoder)
    before = frames.copy()
    features = encoder(frames)
    assert features.shape == (3, encoder.dim)
    assert features.dtype == np.float32
    assert np.array_equal(frames, before)
    assert np.allclose(features, np.concatenate([encoder(frames[index : index + 1]) for index in range(3)]), atol=1e-4)
    assert not np.allclose(features[0], features[1], atol=1e-3)
    if encoder.l2_normalize:
        assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    record = json.loads(json.dumps(encoder.provenance()))
    assert {"encoder", "fps", "size", "dim", "l2_normalize"} <= record.keys()
    with pytest.raises(ValueError, match="takes uint8"):
        encoder(frames.astype(np.float32))
    with pytest.raises(ValueError, match="takes uint8"):
        encoder(frames[0])


def normalised(frames):
    """(n, fps, H, W, 3) uint8 -> (n, fps, 3, H, W) as the preprocessing file says, independently."""
    scaled = (frames / 255 - np.array(PREPROCESSING["image_mean"])) / np.array(PREPROCESSING["image_std"])
    return torch.from_numpy(scaled).float().permute(0, 1, 4, 2, 3)


def direct(folder):
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder).eval()


@torch.inference_mode()
def test_image_model_equals_a_direct_call(folders):
    encoder = build_encoder("hf", model=folders["vit"], fps=2, l2_normalize=False)
    frames = seconds(encoder)
    pooled = direct(folders["vit"])(pixel_values=normalised(frames).flatten(0, 1)).pooler_output
    assert np.allclose(encoder(frames), pooled.view(3, 2, -1).mean(1).numpy(), atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_pooling_is_chosen(folders, pool):
    encoder = build_encoder("hf", model=folders["vit"], pool=pool, l2_normalize=False)
    frames = seconds(encoder)
    tokens = direct(folders["vit"])(pixel_values=normalised(frames)[:, 0]).last_hidden_state
    expected = tokens[:, 0] if pool == "cls" else tokens[:, 1:].mean(1)
    assert np.allclose(encoder(frames), expected.numpy(), atol=1e-5)


@torch.inference_mode()
def test_clip_gives_projected_image_features(folders):
    encoder = build_encoder("hf", model=folders["clip"], l2_normalize=False)
    assert (encoder.resize, encoder.size, encoder.dim) == (40, 32, 12)
    frames = seconds(encoder)
    clip = direct(folders["clip"])
    pooled = clip.vision_model(pixel_values=normalised(frames)[:, 0]).pooler_output
    assert np.allclose(encoder(frames), clip.visual_projection(pooled).numpy(), atol=1e-5)


@torch.inference_mode()
def test_video_model_sees_its_own_number_of_frames(folders):
    encoder = build_encoder("hf", model=folders["videomae"], l2_normalize=False)
    assert encoder.fps == 4
    frames = seconds(encoder)
    tokens = direct(folders["videomae"])(pixel_values=normalised(frames)).last_hidden_state
    assert np.allclose(encoder(frames), tokens.mean(1).numpy(), atol=1e-5)
    with pytest.raises(ConfigError, match="takes 4 frames"):
        build_encoder("hf", model=folders["videomae"], fps=8)


def test_an_untrained_pooler_is_never_used(folders):
    encoders = [build_encoder("hf", model=folders["no_pooler"]) for _ in range(2)]  # a pooler would be random twice
    frames = seconds(encoders[0])
    assert np.array_equal(encoders[0](frames), encoders[1](frames))
    with pytest.raises(ConfigError, match="no trained pooler"):
        build_encoder("hf", model=folders["no_pooler"], pool="pooler")


def test_incomplete_or_missing_models_are_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import ViTConfig, ViTModel

    with pytest.raises(CheckpointError, match="not a Hugging Face model"):
        build_encoder("hf", model=str(tmp_path / "absent"))
    folder = save(ViTModel(ViTConfig(**VISION)), tmp_path / "lacking")
    state = load_file(tmp_path / "lacking" / "model.safetensors")
    gone = next(key for key in state if "layernorm" in key)
    save_file({key: value for key, value in state.items() if key != gone}, tmp_path / "lacking" / "model.safetensors")
    with pytest.raises(CheckpointError, match="lack 1 keys"):
        build_encoder("hf", model=folder)
    folder = save(ViTModel(ViTConfig(**VISION)), tmp_path / "blind")
    (tmp_path / "blind" / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        build_encoder("hf", model=folder)


def test_provenance_follows_weights_not_folders(folders, tmp_path):
    import shutil

    copy = tmp_path / "under another name"
    shutil.copytree(folders["vit"], copy)
    here, there = (build_encoder("hf", model=folder).provenance() for folder in (folders["vit"], str(copy)))
    assert here == there
    assert list(here["weights_sha256"]) == ["model.safetensors"]
    assert here["pool"] == "pooler" and here["channels"] == "RGB" and here["rescale"] == pytest.approx(1 / 255)
    assert np.allclose(here["mean"], [0.5, 0.4, 0.3]) and np.allclose(here["std"], [0.2, 0.3, 0.4])
    for change in ({"image_mean": [0, 0, 0]}, {"rescale_factor": 1.0}, {"do_flip_channel_order": True}):
        (copy / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSING, **change}))
        assert build_encoder("hf", model=str(copy)).provenance() != here
    (copy / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "transformers_version": "other"}))
    assert build_encoder("hf", model=str(copy)).provenance() == here
    (copy / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert build_encoder("hf", model=str(copy)).provenance()["config_sha256"] != here["config_sha256"]


@pytest.mark.parametrize(
    ("name", "pool", "used"),
    [("vit", "auto", "pooler"), ("vit", "mean", "mean"), ("no_pooler", "auto", "cls"), ("videomae", "auto", "mean"),
     ("clip", "auto", "projection")],
)  # fmt: skip
def test_the_pooling_that_was_used_is_recorded(folders, name, pool, used):
    assert build_encoder("hf", model=folders[name], pool=pool).provenance()["pool"] == used


def test_options_without_effect_are_refused(folders):
    with pytest.raises(ConfigError, match="--pool mean has no effect"):
        build_encoder("hf", model=folders["clip"], pool="mean")
    for fps in (0, -1):
        with pytest.raises(ConfigError, match=f"--fps {fps}"):
            build_encoder("hf", model=folders["vit"], fps=fps)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": 224}, (224, 224)),
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
            (256, 224),
        ),
        ({"size": {"height": 384, "width": 384}}, (384, 384)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (256, 224)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384)),
    ],
)
def test_picture_sizes(settings, expected):
    assert picture_sizes(settings) == expected


@pytest.fixture(scope="module")
def s3d(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "s3d.pth"
    torch.save(random_s3d(1).state_dict(), path)
    return path, S3DEncoder(weights=path)


def test_s3d_from_a_file_equals_the_network(s3d):
    path, encoder = s3d
    assert (encoder.fps, encoder.size, encoder.dim, encoder.l2_normalize) == (30, 224, 512, True)
    frames = seconds(encoder, 1)
    video = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 255  # [0, 1], not 0-255
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(random_s3d(1)(video)["video_embedding"])
    assert np.allclose(encoder(frames), expected.numpy(), atol=1e-4)
    assert encoder.provenance()["weights_sha256"] == file_sha256(path)
    assert "compute_dtype" not in encoder.provenance()  # as in the manifests that there are


def test_s3d_needs_weights_or_an_explicit_seed(s3d):
    for options in ({}, {"weights": str(s3d[0]), "random_init": 0}):
        with pytest.raises(ConfigError, match="--random-init SEED"):
            build_encoder("s3d", **options)


def test_options_of_other_encoders_are_refused():
    with pytest.raises(ConfigError, match="'s3d' has no option --model"):
        build_encoder("s3d", model="x", random_init=0)
    with pytest.raises(ConfigError, match="unknown feature_encoder 's3'"):
        build_encoder("s3")
    with pytest.raises(ConfigError, match="needs --model"):
        build_encoder("hf")


def test_small_network_uses_one_thread_and_restores_the_number():
    encoder = build_encoder("conv3d", dim=8)
    seen, before = [], torch.get_num_threads()
    encoder.model.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        encoder(seconds(encoder, 1))
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)
