"""Task: builds what one config names, and computes the loss of a batch."""

import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from mmpt.datasets.mmdataset import PADDING_STEP, MMDataset
from mmpt.losses.scoring import ScoringLoss
from mmpt.models.embedding import flatten_samples
from mmpt.processors.base import PATH_KEYS, video_name
from mmpt.utils.checkpoint import load_checkpoint
from mmpt.utils.errors import ConfigError, DataError, nearest
from mmpt.utils.options import read_options, section_of
from mmpt.utils.registry import build, resolve_class
from mmpt.utils.schema import declared_options
from mmpt.utils.seeds import DEFAULT_SEED
from mmpt.utils.weight_files import WEIGHTS

__all__ = ["Task", "chosen_weights", "config_task", "data_workers"]

logger = logging.getLogger(__name__)


def config_task(config: DictConfig, seed: int = DEFAULT_SEED) -> "Task":
    """Build the task that ``task:`` names, by default :class:`Task`."""
    return resolve_class("task", str(config.get("task") or "Task"))(config, seed=seed)


def data_workers(config: DictConfig) -> int:
    """Return the number of data workers: ``dataset.num_workers``, else ``fairseq.dataset.num_workers``, else 0.

    Raises:
        ConfigError: if it is not a number of processes; names the key.
    """
    for key in ("dataset.num_workers", "fairseq.dataset.num_workers"):
        value = OmegaConf.select(config, key)
        if value is not None:
            if not isinstance(value, int) or value < 0:
                raise ConfigError(f"{key}: {value!r} is not a number of processes (0 or more)")
            return int(value)
    return 0


def chosen_weights(config: Any) -> str:
    """Return which weights of a checkpoint a config asks for: ``eval.weights``, by default ``model``.

    Raises:
        ConfigError: if there are no such.
    """
    chosen = str((section_of(config, "eval") or {}).get("weights") or WEIGHTS[0])
    if chosen not in WEIGHTS:
        raise ConfigError(f"eval.weights: {chosen!r} is none of {', '.join(WEIGHTS)}")
    return chosen


class Task:
    """Hold the datasets, model and loss of a config.

    ``train_data``, ``val_data`` and ``test_data`` are :class:`MMDataset` or None. ``seed`` is the
    seed of the items' randomness.
    """

    config_options: ClassVar[dict[str, type]] = {}

    def __init__(self, config: DictConfig, seed: int = DEFAULT_SEED) -> None:
        self.config = config
        self.seed = seed
        self.train_data: MMDataset | None = None
        self.val_data: MMDataset | None = None
        self.test_data: MMDataset | None = None
        self.model: nn.Module | None = None
        self.loss_fn: Any = None

    @classmethod
    def setup_task(cls, config: DictConfig) -> "Task":
        """Build a task (the published name)."""
        return cls(config)

    def build_split(self, split: str, **overrides: Any) -> MMDataset:
        """Build the dataset of one split from the processors that the config names.

        ``overrides`` replace keys of the ``dataset`` section.

        Raises:
            ConfigError: if a processor is not named; names the key.
            DataError: if the features are not of the width that the model takes.
        """
        section = OmegaConf.create(dict(section_of(self.config, "dataset") or {}) | {"split": split} | overrides)
        parts: list[Any] = []
        for kind in ("meta_processor", "video_processor", "text_processor", "aligner"):
            if not section.get(kind):
                raise ConfigError(f"dataset.{kind} is not set")
            parts.append(build(kind, str(section[kind]), section))
        meta, video, text, aligner = parts
        batch_size = OmegaConf.select(self.config, "fairseq.dataset.batch_size")
        if getattr(aligner, "whole_videos", False) and batch_size not in (None, 1):
            raise ConfigError(
                f"fairseq.dataset.batch_size is {batch_size}: with {type(aligner).__name__} an item is a whole video, "
                "so it must be 1; fairseq.optimization.update_freq: [N] trains on N videos an update"
            )
        dataset = MMDataset(meta, video, text, aligner, seed=self.seed)
        logger.info("%s: %d items", split, len(dataset))
        self._check_width(dataset)
        return dataset

    def _check_width(self, dataset: MMDataset) -> None:
        """Compare the features of one item with ``model.input_dim``, where that is set and the model declares it."""
        expected = (section_of(self.config, "model") or {}).get("input_dim")
        if expected is None or not _declares(self.config, "input_dim"):
            return
        video, width = _feature_width(dataset)
        if width is not None and width != expected:
            folder = (section_of(self.config, "dataset") or {}).get("vfeat_dir")
            raise DataError(
                f"dataset.vfeat_dir: {folder}: the features of video {video!r} have width {width}, "
                f"expected model.input_dim={expected}: set model.input_dim={width}, or use features of that width"
            )

    def build_dataset(self) -> None:
        """Build the datasets: the test split alone if ``dataset.split`` says so, else train and valid.

        Raises:
            ConfigError: if ``dataset.split`` is no split.
        """
        section = section_of(self.config, "dataset") or {}
        split = section.get("split")
        if split is not None and split not in PATH_KEYS:
            raise ConfigError(
                f"dataset.split: {split!r} is none of {', '.join(PATH_KEYS)}.{nearest(str(split), PATH_KEYS)}"
            )
        if split == "test":
            self.test_data = self.build_split("test")
            return
        if section.get("train_path"):
            self.train_data = self.build_split("train")
        if section.get("val_path"):
            self.val_data = self.build_split("valid")

    def build_model(self, checkpoint: str | None = None) -> nn.Module:
        """Build the model, with the weights of ``checkpoint`` if given.

        Raises:
            CheckpointError: if the weights do not fit the model.
        """
        name = self.config.model.get("model_cls") if self.config.get("model") else None
        if not name:
            raise ConfigError("model.model_cls is not set")
        self.model = build("model", str(name), self._completed())
        self._check_objective()
        if checkpoint is not None:
            self.load_checkpoint(checkpoint)
        return self.model

    def known_data(self) -> Iterator[MMDataset]:
        """Yield the datasets that are built."""
        yield from (dataset for dataset in (self.train_data, self.val_data, self.test_data) if dataset is not None)

    def _completed(self) -> DictConfig:
        """Return the config with ``model.input_dim`` and ``model.num_labels`` from the data where they are not set.

        Raises:
            ConfigError: if the data do not say how many classes there are.
        """
        given = section_of(self.config, "model") or {}
        known = list(self.known_data())
        found: dict[str, int] = {}
        if _declares(self.config, "input_dim") and given.get("input_dim") is None and known:
            width = _feature_width(known[0])[1]
            found |= {} if width is None else {"input_dim": width}
        if _declares(self.config, "num_labels") and given.get("num_labels") is None:
            numbers = [getattr(dataset.meta_processor, "num_labels", None) for dataset in known]
            counted = [int(number) for number in numbers if number is not None]
            if not counted:
                raise ConfigError("model.num_labels: not set, and the data do not say how many classes there are")
            found["num_labels"] = counted[0]
        return OmegaConf.merge(self.config, {"model": found}) if found else self.config  # type: ignore[return-value]

    def _check_objective(self) -> None:
        """Refuse an objective over all videos and texts of a batch for a model that encodes each pair together."""
        capabilities: frozenset[str] = getattr(self.model, "capabilities", frozenset())
        if isinstance(self.loss_fn, ScoringLoss) and "pairs" in capabilities and "retrieval" not in capabilities:
            raise ConfigError(
                f"loss.loss_cls: {type(self.loss_fn).__name__} compares every video with every text, but "
                f"{type(self.model).__name__} lets the two of a pair see each other: set dataset.num_iso_layer"
            )

    def load_checkpoint(self, path: str) -> None:
        """Load weights (``eval.weights``) into the model, strictly but for the keys that its class declares."""
        assert self.model is not None, "build_model comes first"
        load_checkpoint(self.model, path, weights=chosen_weights(self.config))

    def build_loss(self) -> Any:
        """Build the loss with the keys of ``loss`` that its class declares; None where the config names none.

        Raises:
            ConfigError: if a key has a wrong value; names it.
        """
        section = section_of(self.config, "loss") or {}
        name = section.get("loss_cls")
        if not name:
            self.loss_fn = None
            return None
        given: dict[str, Any] = {}
        options = declared_options("loss", str(name)).get("loss")
        if isinstance(options, type):
            # Keys that are not set stay with the class, or with the preset of its registered name.
            values = vars(read_options(section, options, "loss"))
            given = {key: value for key, value in values.items() if section.get(key) is not None}
        self.loss_fn = build("loss", str(name), **given)
        self._check_objective()
        return self.loss_fn

    def flat_subsample(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Bring a collated batch to one dimension of samples; one without ``caps`` is left as it is."""
        return flatten_samples(batch) if "caps" in batch else batch

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Any]:
        """Run ``model`` (as it is handed in, possibly wrapped) on a batch and compute the loss.

        A batch with :data:`PADDING_STEP` is run for the other workers' sake, who wait for this one, and does not count.

        Returns ``loss`` (scalar tensor with gradient), ``loss_scalar``, ``batch_size`` (samples), ``max_len`` (tokens
        in a row of ``caps``, 1 in batches without) and ``sample_size`` 1: the loss is already a mean; in a padding step
        they are zero, but for ``max_len``. ``measures`` are those of a loss that has any: name -> (value, 1), or (0, 0)
        where this batch has none.
        """
        batch = dict(self.flat_subsample(batch))
        padding = {PADDING_STEP: True} if batch.pop(PADDING_STEP, False) else {}
        outputs = model(**batch)
        inputs = {**batch, **outputs, **padding}
        loss = self.loss_fn(**inputs)
        if padding:
            loss = loss * 0
        return {
            "loss": loss,
            "loss_scalar": loss.detach(),
            "max_len": batch["caps"].size(1) if "caps" in batch else 1,
            "batch_size": 0 if padding else _samples(batch),
            "sample_size": 0 if padding else 1,
            "measures": self._measures(inputs, loss),
        }

    def _measures(self, inputs: dict[str, Any], loss: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        if not hasattr(self.loss_fn, "measures"):
            return {}
        found = {}
        with torch.no_grad():
            for name, value in self.loss_fn.measures(**inputs).items():
                counts = value.isfinite() & (PADDING_STEP not in inputs)
                found[name] = (value.nan_to_num(0) * counts, counts.to(loss.dtype))
        return found


def _samples(batch: dict[str, Any]) -> int:
    """Return how many samples a batch has: the rows of ``caps``, or without it those of any tensor."""
    return len(batch["caps"] if "caps" in batch else next(one for one in batch.values() if isinstance(one, Tensor)))


def _declares(config: DictConfig, key: str) -> bool:
    """Tell whether the config's model reads ``model.<key>``."""
    name = (section_of(config, "model") or {}).get("model_cls")
    options = declared_options("model", str(name)).get("model") if name else None
    return isinstance(options, type) and hasattr(options, key)


def _feature_width(dataset: MMDataset) -> tuple[str, int | None]:
    """Return the id of a video and the width of its features; None where there is no item or it has no shape."""
    if not len(dataset):
        return "", None
    video_id, _ = dataset.meta_processor[0]
    feature = dataset.video_processor(video_id)
    if isinstance(feature, list | tuple):  # a group of videos
        video_id, feature = video_id[0], feature[0]
    return video_name(video_id), int(feature.shape[-1]) if getattr(feature, "ndim", 0) else None
