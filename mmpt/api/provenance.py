"""The encoder that made the features a model was trained on, built again from what their folder says of it."""

import logging
import os
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmpt.modules.feature_encoders import FeatureEncoder, build_encoder
from mmpt.store.extraction_manifest import read_provenance
from mmpt.utils.errors import CheckpointError, DataError
from mmpt.utils.files import file_sha256, read_json, resolve_path

__all__ = ["S3D_WEIGHTS", "build_feature_encoder", "provenance_of", "same_features"]

logger = logging.getLogger(__name__)

#: Where the published snippet has the weights of S3D.
S3D_WEIGHTS = "pretrained_models/s3d_howto100m.pth"
_SHARD = re.compile(r"_\d+_index\.json$")
#: Facts of extraction that a new one need not share.
_OF_THE_RUN = ("decoder", "dtype", "hflip")
#: What models of unknown features were trained on, as published.
_PUBLISHED: dict[str, Any] = {"encoder": "s3d", "l2_normalize": True}


def provenance_of(config: DictConfig) -> dict[str, Any] | None:
    """Return the settings that made ``dataset.vfeat_dir``, or its shards; None where nothing says.

    Raises:
        DataError: if a manifest is damaged.
    """
    stored = OmegaConf.select(config, "dataset.provenance")
    if stored is not None:
        return OmegaConf.to_container(stored, resolve=True)  # type: ignore[return-value]
    folder = OmegaConf.select(config, "dataset.vfeat_dir")
    if not folder:
        return None
    place = resolve_path(str(folder))
    return read_provenance(place) or _of_shards(place)


def _of_shards(folder: Path) -> dict[str, Any] | None:
    # Beside the shards of features may lie those of texts: theirs are train_0.caps_ids_index.json and such.
    for index in sorted(file for file in folder.glob("*_index.json") if _SHARD.search(file.name))[:1]:
        content = read_json(index)
        producer = content.get("producer") if isinstance(content, dict) else None
        found = producer.get("provenance") if isinstance(producer, dict) else None
        return found if isinstance(found, dict) else None
    return None


def build_feature_encoder(
    provenance: dict[str, Any] | None, weights: str | os.PathLike[str] | None, device: str, trusted: bool = True
) -> FeatureEncoder:
    """Build the encoder of some features.

    Args:
        provenance: of the features; None: S3D as published, which a warning says.
        weights: local file of S3D's weights, or folder or hub id of a Hugging Face model; None: where they usually are.
        device: where it runs.
        trusted: whether what the provenance names may be fetched: that of a saved folder is anyone's choice.

    Raises:
        CheckpointError: if its weights are missing or others than those of the features.
    """
    if provenance is None:
        logger.warning("nothing says which encoder made the features of this model: S3D is taken, as published")
    known = provenance or _PUBLISHED
    name = str(known.get("encoder"))
    options: dict[str, Any] = {"device": device, "l2_normalize": known.get("l2_normalize")}
    if name == "s3d" and known.get("random_init") is None:
        options["weights"] = _s3d_file(weights, known.get("weights_sha256"))
    elif name == "hf":
        options |= {
            "model": _hf_model(weights, known, trusted),
            "fps": known.get("fps"),
            "pool": _pool(known.get("pool")),
        }
    else:
        options["random_init"] = known.get("random_init")
        options |= {"dim": known.get("dim")} if name == "conv3d" else {}
        options |= {"dtype": known.get("compute_dtype")} if name == "s3d" else {}
    encoder = build_encoder(name, **options)
    if provenance is not None and (differing := _differing(encoder.provenance(), provenance)):
        told = "; ".join(f"{key} {provenance.get(key)!r}, not {encoder.provenance().get(key)!r}" for key in differing)
        raise CheckpointError(f"the features of this model were made by another {name} than there is here: {told}")
    return encoder


def same_features(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return what of a provenance says whether features are the same, for a fingerprint."""
    return {key: value for key, value in provenance.items() if key != "decoder"}


def _differing(built: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    keys = sorted({*built, *stored} - set(_OF_THE_RUN))
    return [key for key in keys if built.get(key) != stored.get(key)]


def _s3d_file(weights: str | os.PathLike[str] | None, sha256: str | None) -> Path:
    file = resolve_path(weights or S3D_WEIGHTS)
    if not file.is_file():
        raise CheckpointError(
            f"{weights or S3D_WEIGHTS}: no such file. This model reads features of S3D: to use files and frames give a "
            "local copy of its weights (pretrained_models/README.md), s3d_weights=FILE. Features of videos, arrays "
            "(seconds, D), need none"
        )
    if sha256 is not None and file_sha256(file) != sha256:
        raise CheckpointError(f"{file}: not the weights of S3D that made this model's features (SHA-256 {sha256})")
    return file


def _pool(pooled_by: str | None) -> str | None:
    """Return the option of what a model was pooled by: its own projection leaves no choice."""
    return None if pooled_by == "projection" else pooled_by


def _hf_model(weights: str | os.PathLike[str] | None, known: dict[str, Any], trusted: bool) -> str:
    named = weights or known.get("model")
    if weights is None and named and not trusted:
        raise CheckpointError(
            f"the features of this model were made by {named}, says its folder, which may be anyone's: nothing is "
            f"fetched because it says so. If you trust it: s3d_weights={str(named)!r}, or a local folder of it"
        )
    if not named:
        raise DataError(
            "the features of this model were made by a Hugging Face model of a local folder: name it by s3d_weights="
        )
    return str(named)
