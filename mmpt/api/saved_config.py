"""The settings in a folder of ``save_pretrained``: what inference needs of a job's, without places of one machine.

Such a folder comes from anyone. Its settings name registered classes and files of the folder, and nothing else: no
class of another package, no file elsewhere, no other config, no variable of the environment. The encoder of its
features is a registered one too; a hub id that it names says which features they were, and is not fetched
(:func:`mmpt.api.provenance.build_feature_encoder`). Links in the folder stay in it, or in the hub's cache of it.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from mmpt.utils.config import apply_overrides
from mmpt.utils.errors import CheckpointError, ConfigError, shown
from mmpt.utils.registry import known_names
from mmpt.utils.safe_paths import is_plain_name, refuse_links_out
from mmpt.utils.schema import NAMED_BY, declared_options

__all__ = [
    "BERT_FOLDER",
    "CONFIG_FILE",
    "HUB_ID",
    "MODEL_FILE",
    "S3D_FILE",
    "TOKENIZER_FOLDER",
    "inference_config",
    "is_saved",
    "known_as_saved",
    "marked",
    "read_saved_config",
]

CONFIG_FILE, MODEL_FILE, S3D_FILE = "config.yaml", "model.safetensors", "s3d.pth"
BERT_FOLDER, TOKENIZER_FOLDER = "bert", "tokenizer"
#: By which a saved folder is known from a run's.
_MARK = "saved_by"
#: Keys that begin or speed up a training, or name what this machine has.
_DROPPED = {
    "model": (
        "init",
        "swin_weights",
        "gradient_checkpointing",
        "compile",
        "grad_cache_rows",
        "length_groups",
        "packed",
    ),
    "dataset": ("split", "random_text_path", "image_scale"),
}
_PLACES = ("bert_name", "tokenizer")
#: What :func:`inference_config` keeps, and how keys end that name files.
_SECTIONS = ("dataset", "model", "loss", "gen_param")
_OF_FILES = ("_path", "_dir", "_weights")
#: Names of models on the Hugging Face hub that have an owner.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
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
    try:
        text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):  # none, or no text
        return False
    return (folder / MODEL_FILE).is_file() and re.search(rf"^{_MARK}:", text, re.MULTILINE) is not None


def known_as_saved(folder: Path, source: str) -> bool:
    """Tell whether a folder is a saved one, and refuse one that looks like it but does not say so.

    Raises:
        CheckpointError: if it has the weights of a saved folder and settings without its mark: as those of a run they
            might name any file and any code.
    """
    if is_saved(folder):
        return True
    if (folder / MODEL_FILE).exists() and (folder / CONFIG_FILE).exists():
        raise CheckpointError(
            f"{source}: holds a {MODEL_FILE}, but its {CONFIG_FILE} does not say that save_pretrained wrote it, so it "
            f"is not read. Save the model again; if this is a run of your own, give that file another name"
        )
    return False


def read_saved_config(folder: Path, overrides: Sequence[str] = ()) -> DictConfig:
    """Read the settings of a saved folder, with its files by their absolute paths.

    Raises:
        ConfigError: if they name anything but registered classes and files of the folder.
        UnsafePathError: if a link in the folder leads out of it.
    """
    refuse_links_out(folder, _blobs_of(folder))
    file = folder / CONFIG_FILE
    config = _plain_settings(file)
    trusted = {override.partition("=")[0].strip() for override in overrides}
    _check_names(config, file, trusted)
    _check_provenance(config, file, trusted)
    for key in _PLACES:
        name = OmegaConf.select(config, f"dataset.{key}")
        if name is not None:
            if not is_plain_name(name) or not (folder / name).exists():
                raise ConfigError(f"{file}: dataset.{key}: {shown(name)} is nothing in this folder")
            OmegaConf.update(config, f"dataset.{key}", str((folder / name).absolute()))
    OmegaConf.update(config, "model.init", "random", force_add=True)
    return apply_overrides(config, overrides)


def _blobs_of(folder: Path) -> list[Path]:
    """Return where the hub's cache has the files of a folder, which are links in it."""
    place = folder.absolute()
    return [place.parents[1] / "blobs"] if place.parent.name == "snapshots" else []


def _plain_settings(file: Path) -> DictConfig:
    """Read the sections of inference, which hold plain values."""
    text = file.read_text(encoding="utf-8")
    try:
        if "${" in text or any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ConfigError(f"{file}: settings of a saved model hold plain values: no ${{..}}, no aliases")
        config = OmegaConf.create(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file}: not a readable YAML file") from error
    if not isinstance(config, DictConfig) or not all(
        isinstance(config.get(section), DictConfig) for section in ("model", "dataset")
    ):
        raise ConfigError(f"{file}: no settings of a model")
    config.pop(_MARK, None)
    foreign = [str(key) for key in config if key not in _SECTIONS]
    foreign += [
        f"{section}.{key}"
        for section in ("model", "dataset")
        for key, value in config[section].items()
        if str(key).endswith(_OF_FILES) and not isinstance(value, int | float | None)  # model.drop_path is a rate
    ]
    if foreign:
        raise ConfigError(
            f"{file}: {shown(', '.join(foreign))}: settings of a saved model are {', '.join(_SECTIONS)}, and name no "
            "files but the tokenizer's"
        )
    return config


def _check_names(config: DictConfig, file: Path, trusted: set[str]) -> None:
    for key in NAMED_BY:
        name = OmegaConf.select(config, key)
        if name is not None and ":" in str(name) and key not in trusted:
            raise ConfigError(
                f"{file}: {key}: {shown(name)} is a class outside of MMPT, which is not imported because a file says "
                f"so. If you trust it, name it yourself: overrides=['{key}={name}']"
            )


def _check_provenance(config: DictConfig, file: Path, trusted: set[str]) -> None:
    """Refuse an encoder of features that is none of the registered ones, or of a place on this machine."""
    key = "dataset.provenance"
    known = OmegaConf.select(config, key)
    if known is None or key in trusted:
        return
    if not isinstance(known, DictConfig):
        raise ConfigError(f"{file}: {key}: {shown(known)} is no description of an encoder")
    name, encoders = known.get("encoder"), known_names("feature_encoder")
    if name not in encoders and f"{key}.encoder" not in trusted:
        raise ConfigError(
            f"{file}: {key}.encoder: {shown(name)} is none of {', '.join(encoders)}. If you trust it, name it "
            f"yourself: overrides=['{key}.encoder=NAME']"
        )
    model = known.get("model")
    if model is not None and not (isinstance(model, str) and HUB_ID.fullmatch(model)):
        raise ConfigError(
            f"{file}: {key}.model: {shown(model)} is no hub id (org/name). A local folder is named by s3d_weights="
        )


def marked(config: DictConfig, version: str) -> dict[str, Any]:
    """Return the content of the file: a config, and by what it was saved."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {_MARK: f"mmpt {version}", **content}
