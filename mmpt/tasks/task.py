"""Task: builds what one config names, and computes the loss of a batch."""

import logging
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mmpt.datasets.mmdataset import MMDataset
from mmpt.utils.checkpoint import load_checkpoint
from mmpt.utils.errors import ConfigError
from mmpt.utils.options import section_of
from mmpt.utils.registry import build, resolve_class
from mmpt.utils.seeds import DEFAULT_SEED

__all__ = ["Task", "config_task", "flatten_samples"]

logger = logging.getLogger(__name__)
_SPLITS = {"train": "train_path", "valid": "val_path", "test": "test_path"}


def config_task(config: DictConfig, seed: int = DEFAULT_SEED) -> "Task":
    """Build the task that ``task:`` names, by default :class:`Task`."""
    return resolve_class("task", str(config.get("task") or "Task"))(config, seed=seed)


def flatten_samples(batch: dict[str, Any]) -> dict[str, Any]:
    """Merge the leading dimensions (batch, videos, clips) of every tensor into one dimension of samples.

    ``caps`` (..., length) tells how many leading dimensions there are. What is not a tensor stays.
    """
    leading = batch["caps"].dim() - 1
    if leading == 1:
        return batch
    shape = batch["caps"].shape[:leading]
    return {
        key: value.flatten(0, leading - 1)
        if isinstance(value, torch.Tensor) and value.shape[:leading] == shape
        else value
        for key, value in batch.items()
    }


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
        """
        section = OmegaConf.create(dict(section_of(self.config, "dataset") or {}) | {"split": split} | overrides)
        parts: list[Any] = []
        for kind in ("meta_processor", "video_processor", "text_processor", "aligner"):
            if not section.get(kind):
                raise ConfigError(f"dataset.{kind} is not set")
            parts.append(build(kind, str(section[kind]), section))
        meta, video, text, aligner = parts
        dataset = MMDataset(meta, video, text, aligner, seed=self.seed)
        logger.info("%s: %d items", split, len(dataset))
        return dataset

    def build_dataset(self) -> None:
        """Build the datasets: the test split alone if ``dataset.split`` says so, else train and valid."""
        section = section_of(self.config, "dataset") or {}
        if section.get("split") == "test":
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
        self.model = build("model", str(name), self.config)
        if checkpoint is not None:
            self.load_checkpoint(checkpoint)
        return self.model

    def load_checkpoint(self, path: str) -> None:
        """Load weights into the model, strictly but for the keys that its class declares."""
        assert self.model is not None, "build_model comes first"
        load_checkpoint(self.model, path)

    def build_loss(self) -> Any:
        """Build the loss; None where the config names none."""
        name = self.config.loss.get("loss_cls") if self.config.get("loss") else None
        self.loss_fn = build("loss", str(name)) if name else None
        return self.loss_fn

    def flat_subsample(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Bring a collated batch to one dimension of samples."""
        return flatten_samples(batch)

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Any]:
        """Run ``model`` (as it is handed in, possibly wrapped) on a batch and compute the loss.

        Returns ``loss`` (scalar tensor with gradient), ``loss_scalar``, ``batch_size`` (samples),
        ``max_len`` (text length) and ``sample_size`` 1: the loss is already a mean.
        """
        batch = self.flat_subsample(batch)
        outputs = model(**batch)
        loss = self.loss_fn(**{**batch, **outputs})
        return {
            "loss": loss,
            "loss_scalar": loss.detach(),
            "max_len": batch["caps"].size(1),
            "batch_size": batch["caps"].size(0),
            "sample_size": 1,
        }
