"""A trained model from what names it: the YAML of a job or test, a run folder, a checkpoint, a saved folder, a hub id.

The one loader: :class:`~mmpt.api.mmpt_model.MMPTModel` and :class:`~mmpt.api.pipeline.VideoTextPipeline` use it.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from mmpt.api.checks import check_overrides
from mmpt.api.hub import download
from mmpt.api.job_files import find_checkpoint, read_job, sizes_of
from mmpt.api.model_card import CardFacts, read_facts
from mmpt.api.run_places import with_places_of_run
from mmpt.api.saved_config import CONFIG_FILE, HUB_ID, MODEL_FILE, known_as_saved, read_saved_config
from mmpt.processors.base import Aligner, AlignerOptions
from mmpt.processors.subword_texts import SubwordOptions
from mmpt.tasks.task import chosen_weights, config_task
from mmpt.utils.checkpoint import LoadReport, load_into
from mmpt.utils.config import load_config
from mmpt.utils.errors import CheckpointError, ConfigError
from mmpt.utils.files import resolve_path
from mmpt.utils.options import read_options
from mmpt.utils.registry import build, resolve_class
from mmpt.utils.subwords import load_subwords
from mmpt.utils.tokenizers import load_tokenizer
from mmpt.utils.weight_files import LAST_CHECKPOINT, checkpoint_file, load_state_dict_file

__all__ = ["Loaded", "Place", "find_model", "load_model", "reads_frames"]

_BEST = "checkpoint_best.pt"
_SOURCES = (
    "Name the YAML of a job, the folder of a training, a checkpoint in one, a folder of save_pretrained, or a hub id "
    "as org/name"
)


@dataclass(frozen=True)
class Place:
    """Where a model is: its settings, the file of its weights, and the folder that was saved or the run's, if any.

    ``saved``: it is a folder of ``save_pretrained``, which may be anyone's; ``facts``: what its card says of these
    weights.
    """

    settings: DictConfig
    weights: Path
    folder: Path | None = None
    saved: bool = False
    facts: CardFacts = field(default_factory=CardFacts)


@dataclass(frozen=True)
class Loaded:
    """A model in eval mode on the CPU, with the settings that it was built from and what belongs to it."""

    config: DictConfig
    model: nn.Module
    tokenizer: Any
    aligner: Any
    report: LoadReport
    place: Place


def find_model(
    source: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    revision: str | None = None,
) -> Place:
    """Find what ``source`` names, reading its settings but not its weights.

    Args:
        source: the YAML of a job or test (its project is expanded in memory where it does not exist), a run folder, a
            checkpoint in one, a folder of ``save_pretrained``, or the hub id of such a folder, ``org/name``.
        checkpoint: another file of weights: by path, or by name in the folder that the settings name.
        overrides: ``key.sub=value`` settings.
        revision: branch, tag or commit of a hub id.

    Raises:
        CheckpointError: if there is nothing of that name, or no weights; names what was looked for.
        ConfigError: if the settings are wrong, or ``checkpoint`` or ``revision`` are of no use to this source.
    """
    if not isinstance(source, str | os.PathLike) or not str(source).strip():
        raise CheckpointError(f"{source!r} names no model. {_SOURCES}")
    overrides = check_overrides(overrides)
    path = resolve_path(source)
    if revision is not None and os.path.exists(path):
        raise ConfigError(f"{source}: is here; revision= is of a model on the hub. Leave it out, or move what is here")
    if path.is_dir():
        return _folder(path, str(source), checkpoint, overrides)
    if path.suffix in (".yaml", ".yml"):
        settings = read_job(Path(source), overrides)
        return Place(settings, _checkpoint_of(settings, checkpoint, str(source)))
    if checkpoint_file(path).is_file():
        if checkpoint is not None:
            raise ConfigError(f"{source}: is a file of weights itself, so checkpoint={checkpoint} cannot be used too")
        return _beside(path, overrides)
    if HUB_ID.fullmatch(str(source)):
        folder = download(str(source), revision)
        if not known_as_saved(folder, str(source)):
            raise CheckpointError(f"{source}: no model of save_pretrained: it lacks {MODEL_FILE} or {CONFIG_FILE}")
        return _folder(folder, str(source), checkpoint, overrides)
    raise CheckpointError(f"{source}: no such file or folder. {_SOURCES}")


def load_model(place: Place, seen: Callable[[Mapping[str, Tensor]], None] | None = None) -> Loaded:
    """Build the model of some settings and load its weights, strictly but for the keys that its class declares.

    Args:
        place: of the model.
        seen: told of the weights as the file has them, so that nobody reads it twice.

    Raises:
        ConfigError: if the settings do not build a model.
        CheckpointError: if the weights do not fit.
    """
    settings = place.settings.copy()
    # As in a test, the checkpoint replaces all weights: those of dataset.bert_name are not needed.
    OmegaConf.update(settings, "dataset.split", "test", force_add=True)
    state = load_state_dict_file(place.weights, chosen_weights(settings))
    if seen is not None:
        seen(state)
    for key, size in sizes_of(state).items():
        if OmegaConf.select(settings, key) is None:
            OmegaConf.update(settings, key, size, force_add=True)
    model = config_task(settings).build_model()
    report = load_into(model, state, source=str(place.weights))
    frames = reads_frames(settings)
    aligner = build("aligner", str(settings.dataset.aligner), settings.dataset) if frames else Aligner(settings.dataset)
    return Loaded(settings, model.eval(), _tokenizer_of(settings.dataset), aligner, report, place)


def reads_frames(config: DictConfig) -> bool:
    """Tell whether the model of a config reads frames, not features."""
    name = OmegaConf.select(config, "model.model_cls")
    return bool(name) and getattr(resolve_class("model", str(name)), "reads_frames", False)


def _folder(folder: Path, source: str, checkpoint: str | os.PathLike[str] | None, overrides: Sequence[str]) -> Place:
    if known_as_saved(folder, source):
        weights = _first(folder, [MODEL_FILE if checkpoint is None else str(checkpoint)], source)
        return _saved(folder, weights, overrides)
    if not (folder / CONFIG_FILE).is_file():
        runs = sorted(str(file.parent) for file in folder.glob(f"*/{CONFIG_FILE}"))
        hint = f" There are runs below: {', '.join(runs)}" if runs else ""
        raise CheckpointError(
            f"{source}: neither a run folder nor one of save_pretrained: it has no {CONFIG_FILE}.{hint}"
        )
    settings = _settings_of_run(folder, overrides, source)
    if checkpoint is None and OmegaConf.select(settings, "fairseq.common_eval.path"):  # of a test
        return Place(settings, _checkpoint_of(settings, None, source), folder)
    names = [str(checkpoint)] if checkpoint is not None else [_BEST, LAST_CHECKPOINT]
    return Place(settings, _first(folder, names, source), folder)


def _first(folder: Path, names: Sequence[str], source: str) -> Path:
    """Return the first checkpoint that is there, of names in a folder or paths."""
    files = [Path(name) if os.path.dirname(name) else folder / name for name in names]
    for file in files:
        if checkpoint_file(resolve_path(file)).is_file():
            return file
    why = "the training has written no checkpoint" if len(names) > 1 else "there is no such checkpoint"
    raise CheckpointError(f"{source}: no {' or '.join(map(str, files))}: {why}")


def _saved(folder: Path, weights: Path, overrides: Sequence[str]) -> Place:
    settings = read_saved_config(folder, overrides)
    # The card speaks of the folder's own weights.
    facts = read_facts(folder) if weights == folder / MODEL_FILE else CardFacts()
    return Place(settings, weights, folder, saved=True, facts=facts)


def _beside(weights: Path, overrides: Sequence[str]) -> Place:
    folder = weights.parent
    if known_as_saved(folder, str(weights)):
        return _saved(folder, weights, overrides)
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"{weights}: nothing says what model it is of: there is no {folder / CONFIG_FILE}. Name the YAML of its "
            "job, and the file by checkpoint="
        )
    return Place(_settings_of_run(folder, overrides, str(weights)), weights, folder)


def _settings_of_run(folder: Path, overrides: Sequence[str], source: str) -> DictConfig:
    return with_places_of_run(load_config(folder / CONFIG_FILE, overrides), folder, overrides, source)


def _checkpoint_of(settings: DictConfig, checkpoint: str | os.PathLike[str] | None, source: str) -> Path:
    """Return the file that a job's settings mean: that of a test, else the best one of a training, else its last."""
    if checkpoint is not None:
        return find_checkpoint(settings, Path(checkpoint), source)
    tested = OmegaConf.select(settings, "fairseq.common_eval.path")
    if tested:
        if not checkpoint_file(resolve_path(tested)).is_file():
            raise CheckpointError(f"{source}: no checkpoint {tested}. Run the training that writes it")
        return Path(tested)
    try:
        return find_checkpoint(settings, Path(_BEST), source)
    except CheckpointError as error:
        try:
            return find_checkpoint(settings, Path(LAST_CHECKPOINT), source)
        except CheckpointError:
            raise error from None


def _tokenizer_of(section: Any) -> Any:
    """Return the tokenizer of a ``dataset`` section."""
    subwords = read_options(section, SubwordOptions).tokenizer
    if subwords:
        return load_subwords(subwords)
    text = read_options(section, AlignerOptions)
    return load_tokenizer(text.bert_name, text.use_fast)
