"""A model as a folder that stands alone: weights, settings, tokenizer, model card; and what identifies it."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import mmpt
from mmpt.api.answering import answer_vocabulary
from mmpt.api.model_card import write_card
from mmpt.api.provenance import S3D_WEIGHTS, same_features
from mmpt.api.saved_config import (
    BERT_FOLDER,
    CONFIG_FILE,
    MODEL_FILE,
    S3D_FILE,
    TOKENIZER_FOLDER,
    inference_config,
    is_saved,
    marked,
)
from mmpt.api.segmenting import class_names
from mmpt.utils.config import save_config
from mmpt.utils.errors import DataError
from mmpt.utils.files import file_sha256, resolve_path, sync_folder, writing
from mmpt.utils.subwords import subwords_files
from mmpt.utils.weight_files import save_safetensors

__all__ = ["fingerprint_of", "save_folder"]

_BERT_FILES = ("config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def save_folder(
    pipeline: Any,
    folder: str | os.PathLike[str],
    licence: str | None = None,
    metrics: dict[str, Any] | None = None,
    include_video_encoder: bool = False,
    name: str | None = None,
) -> None:
    """Write a pipeline's model, whose card calls it ``name``, by default the folder's; a killed run leaves none.

    A link to a folder stays, and the folder that it leads to is written.

    Raises:
        DataError: if the folder holds something else than a saved model.
        StorageError: if it may not be written.
    """
    target = Path(folder).resolve()
    _refuse_foreign(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        try:
            _fill(pipeline, building, include_video_encoder)
            write_card(pipeline, building / "README.md", name or Path(folder).name or target.name, licence, metrics)
            building.chmod(0o755)
            sync_folder(building)
            _replace(building, target)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def fingerprint_of(pipeline: Any) -> str:
    """Return the SHA-256 over weights, settings, vocabulary and origin of features, the same on every machine."""
    found = hashlib.sha256()
    for name, value in sorted(pipeline.model.state_dict().items()):
        array = value.detach().cpu().contiguous()
        found.update(f"{name} {array.dtype} {tuple(array.shape)};".encode())
        found.update(array.numpy().tobytes())
    settings: dict[str, Any] = OmegaConf.to_container(inference_config(pipeline.config), resolve=True)  # type: ignore[assignment]
    settings.pop("loss", None)
    settings.pop("gen_param", None)
    about = {
        "settings": settings,
        "tokenizer": [file_sha256(file) for file in _vocabulary(pipeline.config)],
        "features": same_features(pipeline.provenance) if pipeline.provenance else None,
    }
    found.update(json.dumps(about, sort_keys=True, default=str).encode())
    return found.hexdigest()


def _fill(pipeline: Any, folder: Path, include_video_encoder: bool) -> None:
    config = inference_config(pipeline.config)
    extras: dict[str, Any] = {"provenance": pipeline.provenance}
    if "segmentation" in getattr(pipeline.model, "capabilities", ()):
        extras["class_names"] = class_names(pipeline.config)
    if "answering" in getattr(pipeline.model, "capabilities", ()):
        extras["class_names"] = answer_vocabulary(pipeline.config)
    for key, value in extras.items():
        if value is not None:
            OmegaConf.update(config, f"dataset.{key}", value, force_add=True)
    save_safetensors(folder / MODEL_FILE, pipeline.model.state_dict(), {"format": "pt"})
    _copy_tokenizer(pipeline, folder)
    brought = pipeline.saved and pipeline.encoder_weights == pipeline.folder / S3D_FILE
    if (include_video_encoder or brought) and (pipeline.provenance or {"encoder": "s3d"}).get("encoder") == "s3d":
        weights = resolve_path(pipeline.encoder_weights or S3D_WEIGHTS)
        if not weights.is_file():
            raise DataError(f"include_video_encoder: there are no weights of S3D at {weights}: give s3d_weights=")
        shutil.copyfile(weights, folder / S3D_FILE)
    save_config(OmegaConf.create(marked(config, mmpt.__version__)), folder / CONFIG_FILE)


def _copy_tokenizer(pipeline: Any, folder: Path) -> None:
    dataset = inference_config(pipeline.config).dataset
    if "tokenizer" in dataset:
        (folder / TOKENIZER_FOLDER).mkdir()
        for file in subwords_files(pipeline.config.dataset.tokenizer):
            shutil.copyfile(file, folder / TOKENIZER_FOLDER / file.name)
    if "bert_name" in dataset:
        place = resolve_path(pipeline.config.dataset.bert_name)
        (folder / BERT_FOLDER).mkdir()
        if place.is_dir():
            for name in _BERT_FILES:
                if (place / name).is_file():
                    shutil.copyfile(place / name, folder / BERT_FOLDER / name)
        else:  # a hub id
            from transformers import AutoConfig

            pipeline.tokenizer.save_pretrained(folder / BERT_FOLDER)
            AutoConfig.from_pretrained(str(pipeline.config.dataset.bert_name)).save_pretrained(folder / BERT_FOLDER)


def _vocabulary(config: DictConfig) -> list[Path]:
    dataset = inference_config(config).dataset
    if "tokenizer" in dataset:
        return subwords_files(config.dataset.tokenizer)
    place = resolve_path(config.dataset.bert_name)
    return [file for name in ("vocab.txt", "tokenizer.json") if (file := place / name).is_file()][:1]


def _refuse_foreign(target: Path) -> None:
    """Refuse to replace anything but a saved model and an empty folder."""
    if target.exists() and not (target.is_dir() and (is_saved(target) or not any(target.iterdir()))):
        raise DataError(f"{target}: exists, and is no saved model. Name another folder")


def _replace(building: Path, target: Path) -> None:
    """Put a finished folder in place of an earlier one, which is moved aside first, and back if that fails."""
    _refuse_foreign(target)  # it may have come while this one was written
    if not target.exists():
        os.rename(building, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    try:
        os.rename(target, aside / "old")
        try:
            os.rename(building, target)
        except BaseException:
            os.rename(aside / "old", target)
            raise
    except BaseException:
        aside.rmdir()  # empty: what was in it is back
        raise
    shutil.rmtree(aside, ignore_errors=True)
