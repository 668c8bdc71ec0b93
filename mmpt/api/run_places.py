"""Relative paths in the settings of a run, for those who are in another folder than it was started from."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mmpt.utils.errors import ConfigError
from mmpt.utils.files import resolve_path
from mmpt.utils.weight_files import checkpoint_file

__all__ = ["with_places_of_run"]

#: Keys that name a run's own folder; which of them it is depends on whether it is a training or a test.
_OWN_FOLDER = ("fairseq.checkpoint.save_dir", "eval.save_path")
_FILES = ("model.swin_weights", "fairseq.common_eval.path")
_TOKENIZERS = ("dataset.bert_name", "dataset.tokenizer")


def with_places_of_run(settings: DictConfig, folder: Path, overrides: Sequence[str], source: str) -> DictConfig:
    """Return settings of a run whose relative paths lead where they led when it was started.

    The settings name the run's own folder as it was seen from there, so that the end of its path tells the rest.

    Args:
        settings: from the folder.
        folder: the run's.
        overrides: the user's, whose paths are relative to the working directory.
        source: as the user named it.

    Raises:
        ConfigError: if a tokenizer is found neither there nor from the working directory; says what to do.
    """
    base = _started_from(settings, Path(os.path.abspath(folder)))
    given = {override.partition("=")[0].strip() for override in overrides}
    found = settings.copy()
    for key, value in _relative_paths(settings):
        if key in given:
            continue
        if base is not None and checkpoint_file(base / value).exists():
            OmegaConf.update(found, key, str(base / value))
        elif key in _TOKENIZERS and not _may_be_found(key, value):
            looked = "" if base is None or base == Path.cwd() else f" nor in {base}"
            raise ConfigError(
                f"{source}: {key}: {value} is not in the working directory {Path.cwd()}{looked}. Work in the folder "
                f"that the run was started from, or say where it is: -o {key}=FOLDER"
            )
    return found


def _started_from(settings: DictConfig, folder: Path) -> Path | None:
    for key in _OWN_FOLDER:
        own = Path(os.path.normpath(str(OmegaConf.select(settings, key) or "")))
        count = len(own.parts)
        if count and not own.is_absolute() and folder.parts[-count:] == own.parts:
            return Path(*folder.parts[:-count])
    return None


def _relative_paths(settings: DictConfig) -> Iterator[tuple[str, str]]:
    section = OmegaConf.select(settings, "dataset") or {}
    named = [f"dataset.{key}" for key in section if str(key).endswith(("_path", "_dir"))]
    for key in (*_TOKENIZERS, *named, *_FILES):
        value = OmegaConf.select(settings, key)
        if isinstance(value, str) and value and not os.path.isabs(value):
            yield key, value


def _may_be_found(key: str, value: str) -> bool:
    """Tell whether a tokenizer is here, or may be a model of the hub."""
    return os.path.exists(resolve_path(value)) or (key == "dataset.bert_name" and value.count("/") < 2)
