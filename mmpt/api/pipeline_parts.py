"""What a pipeline is put together from, once its model is loaded."""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from mmpt.api.loading import Place
from mmpt.api.provenance import build_feature_encoder
from mmpt.api.raw_frames import frame_input
from mmpt.api.saved_config import S3D_FILE
from mmpt.api.video_input import FeatureReader, FrameReader
from mmpt.processors.base import AlignerOptions
from mmpt.utils.options import read_section

__all__ = ["feature_width", "reader_of", "saved_encoder", "vector_width"]


def reader_of(
    config: DictConfig,
    model: nn.Module,
    provenance: dict[str, Any] | None,
    encoder_weights: str | os.PathLike[str] | None,
    trusted: bool = True,
) -> FeatureReader | FrameReader:
    """Return what reads videos for a model; the encoder of features runs where the model is when it is first used.

    ``trusted`` is that of :func:`~mmpt.api.provenance.build_feature_encoder`.
    """
    if getattr(model, "reads_frames", False):
        return FrameReader(frame_input(config, model))
    known = provenance or {}

    def encoder() -> Any:
        return build_feature_encoder(provenance, encoder_weights, str(next(model.parameters()).device), trusted)

    return FeatureReader(
        read_section(config, "dataset", AlignerOptions).max_video_len,
        feature_width(config),
        encoder,
        half=known.get("dtype", "float16") == "float16",
        hflip=bool(known.get("hflip", False)),
    )


def feature_width(config: DictConfig) -> int | None:
    """Return ``model.input_dim``, None where it is not known."""
    width = OmegaConf.select(config, "model.input_dim")
    return None if width is None else int(width)


def vector_width(model: Any) -> int:
    """Return H of a model with vectors."""
    options = getattr(model, "hidden_size", None) or getattr(model.options, "hidden_size", None)
    if options is not None:
        return int(options)
    from mmpt.modules.bert import read_bert_config

    return read_bert_config(model.sequence.bert_name).hidden_size


def saved_encoder(place: Place) -> Path | None:
    """Return the weights of S3D that a saved folder brings, if it does."""
    if not place.saved or place.folder is None:
        return None
    reads_s3d = OmegaConf.select(place.settings, "dataset.provenance.encoder") in (None, "s3d")
    file = place.folder / S3D_FILE
    return file if reads_s3d and file.is_file() else None
