"""The settings in a folder of ``save_pretrained``: what inference needs of a job's, without places of one machine.

Such a folder comes from anyone. Its settings name registered classes and files of the folder, and nothing else: no
class of another package, no file elsewhere, no other config, no variable of the environment.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmpt.utils.config import apply_overrides
from mmpt.utils.errors import ConfigError, shown
from mmpt.utils.safe_paths import is_plain_name
from mmpt.utils.schema import NAMED_BY, declared_options

__all__ = [
    "BERT_FOLDER",
    "CONFIG_FILE",
    "MODEL_FILE",
    "S3D_FILE",
    "TOKENIZER_FOLDER",
    "inference_config",
    "is_saved",
    "marked",
    "read_saved_config",
]

CONFIG_FILE, MODEL_FILE, S3D_FILE = "config.yaml", "model.safetensors", "s3d.pth"
BERT_FOLDER, TOKENIZER_FOLDER = "bert", "tokenizer"
#: By which a saved folder is known from a run's.
_MARK = "saved_by"
#: Keys that begin or speed up a training, or name what this machine has.
_DROPPED = {
    "model": ("init", "swin_weights", "gradient_checkpointing", "compile", "grad_cache_rows", "length_groups"),
    "dataset": ("split", "random_text_path", "image_scale"),
}
_PLACES = ("bert_name", "tokenizer")
_ALWAYS = ("aligner", "max_video_len", "max_len", "sliding_window", "sliding_window_size", "use_fast", "num_iso_layer")


def inference_config(config: DictConfig) -> DictConfig:
    """Return the keys of a job's config that its model, tokenizer and aligner read, places left out.

    ``dataset.bert_name`` and ``dataset.tokenizer`` become the names of folders beside it.
    """
    given = OmegaConf.to_container(config, resolve=True)
    assert isinstance(given, dict)
    model = {key: value for key, value in (given.get("model") or {}).items() if key not in _DROPPED["model"]}
    known = _dataset_keys(config)
    dataset = {key: value for key, value in (given.get("dataset") or {}).items() if key in known and value is not None}
    places = {"bert_name": BERT_FOLDER, "tokenizer": TOKENIZER_FOLDER}
    dataset |= {key: name for key, name in places.items() if dataset.get(key)}
    loss = {key: value for key, value in (given.get("loss") or {}).items() if value is not None}
    kept = {"dataset": dataset, "model": model, "loss": loss, "gen_param": given.get("gen_param")}
    return OmegaConf.create({key: value for key, value in kept.items() if value})


def _dataset_keys(config: DictConfig) -> set[str]:
    keys = set(_ALWAYS)
    for kind, name in (("model", config.model.model_cls), ("aligner", config.dataset.get("aligner"))):
        options = declared_options(kind, str(name)).get("dataset") if name else None
        keys |= {field.name for field in dataclasses.fields(options)} if isinstance(options, type) else set()
    keys = {key for key in keys if not key.endswith(("_path", "_dir"))} - set(_DROPPED["dataset"])
    reads_subwords = "tokenizer" in keys
    return keys if reads_subwords else keys | {"bert_name"}


def is_saved(folder: Path) -> bool:
    """Tell whether a folder is one of ``save_pretrained``: trainings write a ``config.yaml`` too."""
    config = folder / CONFIG_FILE
    try:
        return (folder / MODEL_FILE).is_file() and config.is_file() and _MARK in (OmegaConf.load(config) or {})
    except Exception:  # not YAML; whoever reads it says so
        return False


def read_saved_config(folder: Path, overrides: Sequence[str] = ()) -> DictConfig:
    """Read the settings of a saved folder, with its files by their absolute paths.

    Raises:
        ConfigError: if they name anything but registered classes and files of the folder.
    """
    file = folder / CONFIG_FILE
    text = file.read_text(encoding="utf-8")
    if "${" in text or "*" in text or "includes:" in text:
        raise ConfigError(f"{file}: settings of a saved model hold plain values: no ${{..}}, no aliases, no includes")
    config = OmegaConf.create(text)
    if not isinstance(config, DictConfig) or not isinstance(config.get("model"), DictConfig):
        raise ConfigError(f"{file}: no settings of a model")
    config.pop(_MARK, None)
    trusted = {override.partition("=")[0].strip() for override in overrides}
    for key in NAMED_BY:
        name = OmegaConf.select(config, key)
        if name is not None and ":" in str(name) and key not in trusted:
            raise ConfigError(
                f"{file}: {key}: {shown(name)} is a class outside of MMPT, which is not imported because a file says "
                f"so. If you trust it, name it yourself: overrides=['{key}={name}']"
            )
    for key in _PLACES:
        name = OmegaConf.select(config, f"dataset.{key}")
        if name is not None:
            if not is_plain_name(name) or not (folder / name).exists():
                raise ConfigError(f"{file}: dataset.{key}: {shown(name)} is nothing in this folder")
            OmegaConf.update(config, f"dataset.{key}", str((folder / name).absolute()))
    OmegaConf.update(config, "model.init", "random", force_add=True)
    for key in ("model.swin_weights", "dataset.random_text_path", "dataset.vfeat_dir"):
        if OmegaConf.select(config, key) is not None:
            OmegaConf.update(config, key, None)
    return apply_overrides(config, overrides)


def marked(config: DictConfig, version: str) -> dict[str, Any]:
    """Return the content of the file: a config, and by what it was saved."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {_MARK: f"mmpt {version}", **content}
