"""VideoCLIP's pre-training task: each batch is a cluster of similar videos, retrieved anew each epoch.

Source: VideoCLIP, section 3.3 (retrieval-augmented training). One index over all training videos is
searched, so clusters are the same whatever the number of workers.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from mmpt.models.embedding import embed_pairs
from mmpt.modules.retri import RetriOptions
from mmpt.tasks.task import Task, data_workers
from mmpt.utils.config import fingerprint
from mmpt.utils.distributed import broadcast_object, gather_items, is_main_process, synchronize, world
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import read_json, write_json
from mmpt.utils.options import read_options, read_section, section_of
from mmpt.utils.process_group import failing_together
from mmpt.utils.registry import build
from mmpt.utils.seeds import DEFAULT_SEED, item_generator

__all__ = ["RetriTaskOptions", "VideoRetriTask"]

logger = logging.getLogger(__name__)
T = TypeVar("T")
#: Index of the generator of an epoch's clusters: no dataset item has it.
_CLUSTER_STREAM = 2**31 - 1
#: Videos are embedded with clips of text and video that span the same time.
_EMBEDDING_ALIGNER = "VideoRetriAligner"


@dataclass
class RetriTaskOptions(RetriOptions):
    """Top-level keys, beside the retriever's. Batches are random before epoch ``retri_epoch``, retrieved from it on."""

    retri_epoch: int = 1
    vectorpool_cls: str = "VideoVectorPool"
    retriever_cls: str = "VectorRetriever"


@dataclass
class RetriDatasetOptions:
    """Keys of ``dataset``: a batch is ``num_video_per_batch`` videos of ``clip_per_video`` clips."""

    num_video_per_batch: int = 32
    clip_per_video: int = 16


class VideoRetriTask(Task):
    """Task whose training items are groups of videos, chosen by retrieval before each epoch."""

    config_options: ClassVar[dict[str, type]] = {
        "": RetriTaskOptions,
        "dataset": RetriDatasetOptions,
    }

    def __init__(self, config: DictConfig, seed: int = DEFAULT_SEED) -> None:
        super().__init__(config, seed)
        self.options = read_options(config, RetriTaskOptions)
        self.dataset_options = read_section(config, "dataset", RetriDatasetOptions)
        self.stats: dict[str, Any] = {}
        batch_size = (config.get("fairseq") or {}).get("dataset", {}).get("batch_size")
        if batch_size not in (None, 1) and (config.get("dataset") or {}).get("split") != "test":
            raise ConfigError(
                f"fairseq.dataset.batch_size is {batch_size}: with {type(self).__name__} a batch is one group of"
                " videos, so it must be 1; set dataset.num_video_per_batch and dataset.clip_per_video instead"
            )

    def prepare_epoch(self, model: nn.Module, epoch: int, folder: Path) -> None:
        """Set the groups of an epoch: retrieved from ``retri_epoch`` on, random before.

        Retrieved groups are kept in ``folder``, so that a resumed run trains on the same ones.
        """
        assert self.train_data is not None, "build_dataset comes first"
        meta = self.train_data.meta_processor
        if epoch < self.options.retri_epoch:
            meta.set_candidates(self.random_groups(epoch))
            return
        path = folder / f"batched_e{epoch}_videos.json"
        groups = self._read_groups(path)
        if groups is None:
            groups = self.retrieve_groups(model, epoch)
            with failing_together():
                if is_main_process():
                    content = {"settings": self._settings(), "stats": self.stats, "groups": groups}
                    write_json(path, content, indent=None)
        synchronize()
        mean = sum(map(len, groups)) / len(groups)
        logger.info("epoch %d: %d retrieved groups of %.1f videos", epoch, len(groups), mean)
        meta.set_candidates(groups)

    def random_groups(self, epoch: int) -> list[list[str]]:
        """Return all training videos in random groups of ``num_video_per_batch``; the last may be smaller."""
        ids = self._video_ids()
        order = item_generator(self.seed, epoch, _CLUSTER_STREAM).permutation(len(ids))
        size = self.dataset_options.num_video_per_batch
        return [[ids[row] for row in order[start : start + size]] for start in range(0, len(ids), size)]

    def retrieve_groups(self, model: nn.Module, epoch: int) -> list[list[str]]:
        """Embed all training videos with the model as it is and return groups of similar ones.

        Videos are cut into batches first, and each worker embeds its share of these: so a vector is the same whatever
        the number of workers. The first worker alone gathers the vectors and searches, for all: the workers of a node
        would share its processor and its memory. ``stats`` tells there afterwards what the retriever found.

        Raises:
            DataError: if a video's vector is not finite, or its data are damaged; names it.
            ProcessFailed: if another worker fails, with its rank and reason.
        """
        with failing_together() as look_for_failures:
            own, everyone = self._embedded(model, epoch, look_for_failures)
        states = gather_items([own.state()])
        groups = None
        with failing_together():
            if states is not None:
                groups = self._searched(states, everyone, epoch)
        return broadcast_object(groups)

    def _embedded(self, model: nn.Module, epoch: int, between_batches: Callable[[], None]) -> tuple[Any, list[str]]:
        """Return the pool of the vectors that this worker has embedded, and the names of all videos."""
        rank, size = world()
        dataset = self.build_split("train", aligner=_EMBEDDING_ALIGNER)
        dataset.set_epoch(epoch)
        everyone = list(dataset.meta_processor.video_ids)
        step = self.dataset_options.num_video_per_batch
        batches = [everyone[start : start + step] for start in range(0, len(everyone), step)]
        dataset.meta_processor.set_candidates(batches)
        share = range(rank, len(batches), size)
        own = build("vectorpool", self.options.vectorpool_cls, self.config)
        if share:  # there may be more workers than batches
            loader = DataLoader(dataset, batch_size=None, sampler=share, num_workers=data_workers(self.config))
            pairs = embed_pairs(model, _with_calls(loader, between_batches))
            own.add(pairs.ids, pairs.video, pairs.text)
        return own, everyone

    def _searched(self, states: list[list[Any]], everyone: list[str], epoch: int) -> list[list[str]]:
        """Return the groups that the retriever finds among the vectors of all workers, in the order of the videos."""
        position = {name: number for number, name in enumerate(everyone)}
        ids, sums, counts = (np.concatenate(parts) for parts in zip(*(state for (state,) in states), strict=True))
        order = np.argsort([position[name] for name in ids], kind="stable")
        pool = build("vectorpool", self.options.vectorpool_cls, self.config)
        pool.merge([str(ids[row]) for row in order], sums[order], counts[order])
        retriever = build("retriever", self.options.retriever_cls, self.config)
        rng = item_generator(self.seed, epoch, _CLUSTER_STREAM)
        groups = retriever(pool, self.dataset_options.num_video_per_batch, rng)
        self.stats = dict(getattr(retriever, "stats", {}))
        return groups

    def _video_ids(self) -> list[str]:
        assert self.train_data is not None, "build_dataset comes first"
        return list(self.train_data.meta_processor.video_ids)

    def _settings(self) -> dict[str, Any]:
        sections = {name: dict(section_of(self.config, name) or {}) for name in ("dataset", "model")}
        sections["dataset"].pop("num_workers", None)  # does not change the groups
        return {
            **{f"{name}_sha256": fingerprint(OmegaConf.create(section)) for name, section in sections.items()},
            "videos": len(self._video_ids()),
            "seed": self.seed,
            **vars(self.options),
            "num_video_per_batch": self.dataset_options.num_video_per_batch,
            "clip_per_video": self.dataset_options.clip_per_video,
        }

    def _read_groups(self, path: Path) -> list[list[str]] | None:
        """Read an epoch's groups, if they were made with these settings."""
        if not path.exists():
            return None
        content = read_json(path)
        if not isinstance(content, dict) or "groups" not in content:
            raise DataError(f"{path}: not a file of retrieved groups; delete it to have it made again")
        if content.get("settings") != self._settings():
            logger.warning("%s was made with other settings: retrieving again", path)
            return None
        return content["groups"]


def _with_calls(batches: Iterable[T], call: Callable[[], None]) -> Iterator[T]:
    """Yield batches, and call something before each."""
    for batch in batches:
        call()
        yield batch
