"""Training of one model on several tasks at once, a batch of one of them at a time (LAVENDER, arXiv:2206.07160)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mmpt.datasets.member_datasets import MEMBER, Member, MemberDatasets, member_seed
from mmpt.datasets.mmdataset import PADDING_STEP, MMDataset
from mmpt.processors.base import PATH_KEYS
from mmpt.tasks.task import Task
from mmpt.utils.config import training_batch_size
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_options, read_section, section_of

__all__ = ["MultiTask", "MultiTaskOptions"]


@dataclass
class MultiTaskOptions:
    """Keys of ``dataset``.

    ``members``: name of a member -> what its section ``dataset`` has in place of, or beside, the keys of this one
    (processors, lists, sizes), and ``batch_size``, by default ``fairseq.dataset.batch_size``.
    """

    members: dict[str, Any] = field(default_factory=dict)


class MultiTask(Task):
    """Task of several members with one model and one loss.

    An epoch has as many updates as all members together; the task of each is drawn uniformly. The model is told by
    what the batch holds what to do with it, and by the key ``member``, the name of the member once per item.
    Validation has every member's items, and the loss of each member is logged beside the mean over the batches.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": MultiTaskOptions}

    @staticmethod
    def member_configs(config: DictConfig) -> dict[str, DictConfig]:
        """Return the config of each member: that of a job which trains on it alone.

        Raises:
            ConfigError: if there are no members, or the section of one is none; names the key.
        """
        section = section_of(config, "dataset") or {}
        members = read_options(section, MultiTaskOptions, "dataset").members
        if not members:
            raise ConfigError("dataset.members: not set; it names the tasks that are trained together")
        return {name: _member_config(config, name, given) for name, given in members.items()}

    def build_split(self, split: str, **overrides: Any) -> MemberDatasets:
        """Build the dataset of one split: all members that have a list of it.

        Raises:
            ConfigError: if a member lacks what a training needs, or its batch size.
            DataError: if a member has no items.
        """
        members = {}
        for name, config in self.member_configs(self.config).items():
            if split != "train" and not (section_of(config, "dataset") or {}).get(PATH_KEYS[split]):
                continue
            try:
                batch_size = training_batch_size(config)
                if batch_size is None:
                    raise ConfigError("neither batch_size nor fairseq.dataset.batch_size is set")
                dataset = Task(config, member_seed(self.seed, name)).build_split(split, **overrides)
            except ConfigError as error:
                raise ConfigError(f"dataset.members.{name}: {error}") from error
            if not len(dataset):
                raise DataError(f"dataset.members.{name}: the {split} split holds no items")
            members[name] = Member(dataset, batch_size)
        return MemberDatasets(members, self.seed)

    def build_dataset(self) -> None:
        """Build the datasets of training and validation.

        Raises:
            ConfigError: if a test is asked for, or no member has a list to train on.
        """
        sections = [section_of(config, "dataset") or {} for config in self.member_configs(self.config).values()]
        if (section_of(self.config, "dataset") or {}).get("split") == "test":
            raise ConfigError("dataset.split: test: each member is tested by a job of its own, with its own metric")
        if any(section.get("train_path") for section in sections):
            self.train_data = self.build_split("train")
        if any(section.get("val_path") for section in sections):
            self.val_data = self.build_split("valid")

    def build_loss(self) -> Any:
        """Build the loss, as :class:`Task`.

        Raises:
            ConfigError: also if it takes negatives from other workers, whose batches may be of another task.
        """
        loss = super().build_loss()
        if getattr(loss, "global_negatives", False):
            raise ConfigError(
                "loss.global_negatives: the batches of other workers may be of another task; leave it out"
            )
        return loss

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Any]:
        """Compute the loss of a batch of one member, as :class:`Task`.

        Its ``measures`` have ``<member>_loss`` for every member, (0, 0) but for this one's.
        """
        own, counts = batch[MEMBER][0], not batch.get(PADDING_STEP, False)
        outputs = super().__call__(model, batch)
        # Tensors for all: workers add these up, and those that are on the device apart from plain numbers.
        zero = torch.zeros_like(outputs["loss_scalar"])
        losses = {name: (outputs["loss_scalar"] if name == own else zero) for name in self.member_names()}
        members = {f"{name}_loss": (loss, zero + int(counts and name == own)) for name, loss in losses.items()}
        return {**outputs, "measures": {**outputs["measures"], **members}}

    def member_names(self) -> list[str]:
        """Return the names of the members, in the order of the config."""
        return list(read_section(self.config, "dataset", MultiTaskOptions).members)

    def known_data(self) -> Iterator[MMDataset]:
        """Yield the datasets of all members that are built."""
        for data in super().known_data():
            assert isinstance(data, MemberDatasets)
            yield from (member.dataset for member in data.members.values())


def _member_config(config: DictConfig, name: str, given: Any) -> DictConfig:
    if not isinstance(given, Mapping):
        raise ConfigError(f"dataset.members.{name}: is a section of keys, not {type(given).__name__}")
    content = {key: value for key, value in config.items_ex(resolve=False) if key != "task"}
    shared = {key: value for key, value in config.dataset.items_ex(resolve=False) if key != "members"}
    own = {key: value for key, value in given.items() if key != "batch_size"}
    content["dataset"] = OmegaConf.merge(shared, own)
    result = OmegaConf.create(content)
    if "batch_size" in given:
        OmegaConf.update(result, "fairseq.dataset.batch_size", given["batch_size"], force_add=True)
    return result
