"""Batches of mutually similar videos, as hard negatives (VideoCLIP, section 3.3, "retrieval augmented training")."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mmpt.modules.vectorpool import VectorIndex, VideoVectorPool, all_cores
from mmpt.utils.errors import ConfigError
from mmpt.utils.options import read_options

__all__ = ["RetriOptions", "VectorRetriever", "retrieve_clusters"]

logger = logging.getLogger(__name__)


@dataclass
class RetriOptions:
    """Keys at the top level: ``num_cands`` neighbours are considered per batch; ``retri_index`` is ``exact`` or
    ``ivf``; ``retri_nlist`` cells and ``retri_nprobe`` searched ones follow the size of the corpus when absent.
    """

    num_cands: int = 64
    retri_index: str = "exact"
    retri_nlist: int | None = None
    retri_nprobe: int | None = None


def retrieve_clusters(
    vectors: np.ndarray,
    ids: Sequence[str],
    num_videos: int,
    num_cands: int,
    rng: np.random.Generator,
    index: VectorIndex | None = None,
) -> list[list[str]]:
    """Group videos with their neighbours.

    N // ``num_videos`` seeds (at least one) are drawn without replacement. A seed's candidates are itself and its
    nearest others, ``num_cands`` in all; of more than ``num_videos`` candidates a random choice is kept, which may
    leave out the seed.

    Args:
        vectors: float (N, H), row i belongs to ``ids[i]``; ids are unique.
        index: index over the same vectors in the same order; None builds an exact one.

    Returns:
        one list of at most ``num_videos`` different ids per seed.

    Raises:
        ConfigError: if a number is below 1.
        DataError: if there are no videos.
    """
    if num_videos < 1 or num_cands < 1:
        raise ConfigError(f"num_video_per_batch and num_cands must be at least 1, not {num_videos} and {num_cands}")
    index = VectorIndex(vectors, ids) if index is None else index
    seeds = rng.choice(len(index), max(1, len(index) // num_videos), replace=False)
    _, neighbours = index.search(np.asarray(vectors)[seeds], num_cands)
    clusters = []
    for seed, row in zip(seeds, neighbours, strict=True):
        others = row[(row >= 0) & (row != seed)]
        candidates = np.concatenate([[seed], others])[:num_cands]
        if len(candidates) > num_videos:
            candidates = rng.choice(candidates, num_videos, replace=False)
        clusters.append([index.ids[position] for position in candidates])
    return clusters


class VectorRetriever:
    """Turn a pool of video vectors into clusters, as the config says.

    After a call ``stats`` holds ``videos``, ``clusters``, ``mean_cluster_size`` and, for an IVF index, ``recall``.
    """

    config_options: ClassVar[dict[str, type]] = {"": RetriOptions}

    def __init__(self, config: Any) -> None:
        self.options = read_options(config, RetriOptions)
        self.stats: dict[str, float] = {}

    def __call__(self, pool: VideoVectorPool, num_videos: int, rng: np.random.Generator) -> list[list[str]]:
        """Return clusters of at most ``num_videos`` ids (:func:`retrieve_clusters`).

        Raises:
            DataError: if the pool is empty.
        """
        options = self.options
        ids, vectors = pool.vectors()
        index = VectorIndex(vectors, ids, options.retri_index, options.retri_nlist, options.retri_nprobe)
        self.stats = {}
        with all_cores():  # the other processes of this node wait
            if options.retri_index == "ivf":
                # Not from rng: whether the recall is measured must not change the batches.
                self.stats["recall"] = index.recall_against_exact(options.num_cands, np.random.default_rng(len(ids)))
            clusters = retrieve_clusters(vectors, ids, num_videos, options.num_cands, rng, index)
        sizes = [len(cluster) for cluster in clusters]
        self.stats |= {"videos": len(ids), "clusters": len(clusters), "mean_cluster_size": float(np.mean(sizes))}
        logger.info("retrieved batches: %s", self.stats)
        return clusters
