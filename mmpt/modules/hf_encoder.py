"""Feature encoder of Hugging Face models: :class:`HuggingFaceEncoder`, registered as ``hf``."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.modules.feature_encoders import FeatureEncoder
from mmpt.utils.errors import ConfigError
from mmpt.utils.files import file_sha256

__all__ = ["HuggingFaceEncoder"]


class HuggingFaceEncoder(FeatureEncoder):
    """Any Hugging Face image or video model, by local folder or hub id.

    Image models see ``fps`` frames of each second (default 1), whose vectors are averaged; video models
    see their own number of frames, spread over the second. CLIP-like models give their image
    features. The model's own preprocessing file says mean, standard deviation and size; frames are
    scaled by their shorter side and cut to the central square rather than squeezed.

    Args:
        model: folder or hub id.
        fps: frames of each second.
        pool: ``pooler``, ``cls`` or ``mean`` of the tokens; ``auto`` takes the first of them that the weights have, and
            is the only choice for CLIP-like models.

    Raises:
        CheckpointError: if the model cannot be loaded or its weights are incomplete.
        ConfigError: if the options do not fit the model.
    """

    name, pad = "hf", "repeat"

    def __init__(
        self,
        model: str | None = None,
        fps: int | None = None,
        pool: str = "auto",
        device: str = "cpu",
        l2_normalize: bool = True,
    ) -> None:
        from mmpt.modules.hf_features import config_sha256, load_visual_model

        super().__init__(device, l2_normalize)
        if not model:
            raise ConfigError("hf needs --model: a local folder or hub id of an image or video model")
        if fps is not None and fps < 1:
            raise ConfigError(f"hf: --fps {fps} is not at least 1 frame per second")
        self.model = load_visual_model(model, pool).to(self.device)
        self.fps = int(fps or self.model.clip_frames or 1)
        if self.model.clip_frames and self.fps != self.model.clip_frames:
            raise ConfigError(f"{model} takes {self.model.clip_frames} frames per clip; --fps {fps} does not fit")
        self.size, self.resize = self.model.size, self.model.resize
        blank = torch.zeros(1, 3, self.fps, self.size, self.size, device=self.device)
        with torch.inference_mode():
            self.dim = self.encode(blank).shape[1]
        self._settings = {
            **_model_files(model),
            "revision": self.model.revision,
            "config_sha256": config_sha256(model),
            "pool": self.model.pooled_by,
            **self.model.preprocessing,
        }

    def settings(self) -> dict[str, Any]:
        """Return the hub's id and revision or the weights' hashes; those of the config, pooling and preprocessing."""
        return dict(self._settings)

    def encode(self, video: Tensor) -> Tensor:
        """Return pooled vectors."""
        return self.model(video)


def _model_files(model: str) -> dict[str, Any]:
    """Return the hub id, or the hashes of a local folder's weights: the same whatever the folder is called."""
    if not os.path.isdir(model):
        return {"model": model}
    files = sorted(file for kind in ("*.safetensors", "*.bin") for file in Path(model).glob(kind))
    return {"weights_sha256": {file.name: file_sha256(file) for file in files}}
