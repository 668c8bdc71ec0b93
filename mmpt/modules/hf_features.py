"""Hugging Face image and video models as one module: clips in, one vector per clip out.

transformers brings the networks; scaling happens in the decoder and normalisation here, in
tensors, because the image processors work picture by picture and need torchvision for speed.
"""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.utils.errors import CheckpointError, ConfigError

__all__ = ["VisualModel", "config_sha256", "load_visual_model", "picture_sizes"]

_POOLS = ("auto", "pooler", "cls", "mean")
# of the file, not of the network; they change when it is saved again
_NOT_CONFIG = ("_commit_hash", "_name_or_path", "transformers_version")
_PREPROCESSING = ("preprocessor_config.json", "video_preprocessor_config.json")


class VisualModel(nn.Module):
    """A Hugging Face vision model with its normalisation and pooling.

    ``clip_frames`` is the number of frames a video model takes, None for an image model; ``size`` the
    side of its square frames and ``resize`` the shorter side before they are cut. ``preprocessing`` says what is done
    to pixels, and, after the first call, ``pooled_by`` how vectors came about: ``pooler``, ``cls``, ``mean``, or
    ``projection`` for models that have a method for it, as CLIP.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, preprocessing: dict[str, Any], pool: str, trained_pooler: bool) -> None:
        super().__init__()
        config: Any = model.config
        self.pooled_by: str | None = None
        self.model, self.pool, self.trained_pooler = model, pool, trained_pooler
        self.resize, self.size = picture_sizes(preprocessing)
        self.clip_frames: int | None = _clip_frames(config)
        self.has_class_token = any(
            key.endswith(("cls_token", "class_embedding")) for key, _ in model.named_parameters()
        )
        scale = preprocessing.get("rescale_factor", 1 / 255) * 255 if preprocessing.get("do_rescale", True) else 255.0
        self.reverse = bool(preprocessing.get("do_flip_channel_order", False))
        normalize = preprocessing.get("do_normalize", True)
        mean = torch.tensor(preprocessing["image_mean"] if normalize else [0.0] * 3)
        std = torch.tensor(preprocessing["image_std"] if normalize else [1.0] * 3)
        offset = 1.0 if preprocessing.get("offset") and preprocessing.get("do_rescale", True) else 0.0
        self.preprocessing: dict[str, Any] = {
            "mean": mean.tolist(),
            "std": std.tolist(),
            "rescale": scale / 255,
            "offset": offset,
            "channels": "BGR" if self.reverse else "RGB",
        }
        self.register_buffer("scale", (scale / std).view(3, 1, 1, 1))
        self.register_buffer("shift", ((offset + mean) / std).view(3, 1, 1, 1))

    @property
    def revision(self) -> str | None:
        """The hub's commit of the files, None for a local folder."""
        return getattr(self.model.config, "_commit_hash", None)

    def forward(self, video: Tensor) -> Tensor:
        """Map (clips, 3, frames, height, width) float in [0, 1] to (clips, dim)."""
        if self.reverse:
            video = video.flip(1)
        frames = (video * self.scale - self.shift).transpose(1, 2)
        model: Any = self.model
        if self.clip_frames:
            if hasattr(model, "get_video_features"):
                self.pooled_by = "projection"
                return _vector(model.get_video_features(pixel_values=frames))
            return self._pooled(model(**{model.main_input_name: frames}))
        clips, count = frames.shape[:2]
        pictures = frames.flatten(0, 1)
        if hasattr(model, "get_image_features"):
            self.pooled_by = "projection"
            vectors = _vector(model.get_image_features(pixel_values=pictures))
        else:
            vectors = self._pooled(model(pixel_values=pictures))
        return vectors.view(clips, count, -1).mean(1)

    def _pooled(self, output: Any) -> Tensor:
        pooled = getattr(output, "pooler_output", None)
        if self.pool == "pooler" or (self.pool == "auto" and pooled is not None and self.trained_pooler):
            if pooled is None or not self.trained_pooler:
                raise ConfigError("this model has no trained pooler; use pool cls or mean")
            self.pooled_by = "pooler"
            return pooled.flatten(1)
        tokens = output.last_hidden_state
        if tokens.ndim == 4:  # a convolutional map
            tokens = tokens.flatten(2).transpose(1, 2)
        elif self.pool != "mean" and self.has_class_token:
            self.pooled_by = "cls"
            return tokens[:, 0]
        elif self.has_class_token:
            tokens = tokens[:, 1:]
        if self.pool == "cls":
            raise ConfigError("this model has no class token; use pool pooler or mean")
        self.pooled_by = "mean"
        return tokens.mean(1)


def load_visual_model(name: str, pool: str = "auto") -> VisualModel:
    """Load an image or video model in eval mode by local folder or hub id.

    Raises:
        CheckpointError: if it cannot be read, its weights are incomplete or it has no preprocessing file.
        ConfigError: if the pooling is unknown, or the model leaves no choice.
    """
    import transformers

    if pool not in _POOLS:
        raise ConfigError(f"pool {pool!r} is none of {', '.join(_POOLS)}")
    try:
        model, info = transformers.AutoModel.from_pretrained(
            name, output_loading_info=True, dtype=torch.float32, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{name}: not a Hugging Face model ({str(error).splitlines()[0]})") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{name}: its pickled weights are damaged, or would run code when loaded, and were refused. Ask for a "
            "model.safetensors"
        ) from error
    missing = sorted(info["missing_keys"])
    pooler = [key for key in missing if "pooler" in key.split(".")]
    if len(missing) > len(pooler):
        rest = [key for key in missing if key not in pooler]
        raise CheckpointError(f"{name}: the weights lack {len(rest)} keys: {', '.join(rest[:5])}")
    if pool != "auto" and hasattr(model, "get_video_features" if _clip_frames(model.config) else "get_image_features"):
        raise ConfigError(f"{name}: --pool {pool} has no effect, the model has a projection of its own; leave it out")
    visual = VisualModel(model, _preprocessing(name), pool, trained_pooler=not pooler)
    return visual.eval().requires_grad_(False)


def config_sha256(name: str) -> str:
    """Return the SHA-256 of a model's config.json, without what says nothing about the network."""
    from transformers.utils import cached_file

    config = json.loads(Path(cached_file(name, "config.json")).read_text(encoding="utf-8"))
    content = {key: value for key, value in config.items() if key not in _NOT_CONFIG}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def picture_sizes(preprocessing: dict[str, Any]) -> tuple[int, int]:
    """Return (shorter side after scaling, side of the central square) of a preprocessing file's settings."""
    resize = _side(preprocessing.get("size", 224))
    crop = resize
    if preprocessing.get("do_center_crop") and preprocessing.get("crop_size"):
        crop = _side(preprocessing["crop_size"])
    elif preprocessing.get("crop_pct") and resize < 384:
        resize = int(resize / preprocessing["crop_pct"])
    if not preprocessing.get("do_resize", True):
        resize = crop
    return max(resize, crop), crop


def _preprocessing(name: str) -> dict[str, Any]:
    from transformers import AutoImageProcessor
    from transformers.utils import cached_file

    for filename in _PREPROCESSING:
        path = cached_file(name, filename, _raise_exceptions_for_missing_entries=False)
        if path is not None:
            settings = json.loads(Path(path).read_text(encoding="utf-8"))
            if {"image_mean", "image_std", "size"} <= settings.keys():
                return settings
    try:  # the processor's class knows the defaults of what its file leaves out
        return AutoImageProcessor.from_pretrained(name, trust_remote_code=False).to_dict()
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(
            f"{name}: no usable preprocessor_config.json, so mean, deviation and size of its pictures are unknown"
        ) from error


def _clip_frames(config: Any) -> int | None:
    for part in (config, getattr(config, "vision_config", None)):
        for key in ("num_frames", "frames_per_clip"):
            if getattr(part, key, None):
                return int(getattr(part, key))
    return None


def _vector(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    return pooled if pooled is not None else output.last_hidden_state.mean(1)


def _side(size: Any) -> int:
    if isinstance(size, dict):
        return int(size.get("shortest_edge") or min(size["height"], size["width"]))
    return int(min(size) if isinstance(size, list | tuple) else size)
