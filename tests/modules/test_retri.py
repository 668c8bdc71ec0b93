"""Clusters of similar videos: the published procedure, on corpora whose neighbours are known."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.modules.retri import VectorRetriever, retrieve_clusters
from mmpt.modules.vectorpool import VectorIndex, VideoVectorPool
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import build


def blobs(groups: int = 6, size: int = 10) -> tuple[np.ndarray, list[str]]:
    """Well separated groups; the id says which."""
    rng = np.random.default_rng(0)
    centres = np.repeat(100 * rng.standard_normal((groups, 4)), size, axis=0)
    vectors = (centres + 0.01 * rng.standard_normal((groups * size, 4))).astype(np.float32)
    return vectors, [f"{number // size}_{number % size}" for number in range(groups * size)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_clusters_are_neighbours_of_their_seed() -> None:
    vectors, ids = blobs()
    clusters = retrieve_clusters(vectors, ids, num_videos=5, num_cands=10, rng=rng())
    assert len(clusters) == 60 // 5
    for cluster in clusters:
        assert len(cluster) == len(set(cluster)) == 5
        assert len({name.split("_")[0] for name in cluster}) == 1


def test_candidates_are_the_seed_and_its_nearest_others_without_a_draw_when_few() -> None:
    vectors = np.arange(12, dtype=np.float32)[:, None] ** 1.5
    clusters = retrieve_clusters(vectors, list("abcdefghijkl"), num_videos=4, num_cands=3, rng=rng())
    by_distance = np.abs(vectors - vectors.T).argsort(1)
    wanted = {tuple("abcdefghijkl"[position] for position in row[:3]) for row in by_distance}
    assert len(clusters) == 3 and all(tuple(cluster) in wanted for cluster in clusters)


def test_seeds_are_drawn_without_replacement_and_may_be_dropped_from_large_candidate_lists() -> None:
    vectors, ids = blobs(30, 4)
    alone = retrieve_clusters(vectors, ids, num_videos=1, num_cands=1, rng=rng())
    assert sorted(cluster[0] for cluster in alone) == sorted(ids)
    dropped = 0
    for seed in range(20):
        seeds = rng(seed).choice(120, 60, replace=False)
        clusters = retrieve_clusters(vectors, ids, num_videos=2, num_cands=4, rng=rng(seed))
        dropped += sum(ids[position] not in cluster for position, cluster in zip(seeds, clusters, strict=True))
    # Two of four candidates are kept, so a seed is dropped in half of the cases.
    assert abs(dropped / 1200 - 0.5) < 0.06


def test_equal_generators_give_equal_clusters() -> None:
    vectors, ids = blobs()
    first, second, third = (retrieve_clusters(vectors, ids, 4, 9, rng(seed)) for seed in (3, 3, 4))
    assert first == second != third


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 20), st.booleans())
def test_any_corpus_gives_valid_clusters(count: int, num_videos: int, num_cands: int, same: bool) -> None:
    vectors = np.zeros((count, 3), np.float32) if same else np.random.default_rng(0).standard_normal((count, 3))
    ids = [str(number) for number in range(count)]
    clusters = retrieve_clusters(vectors, ids, num_videos, num_cands, rng())
    assert len(clusters) == max(1, count // num_videos)
    for cluster in clusters:
        assert set(cluster) <= set(ids) and len(set(cluster)) == len(cluster)
        assert len(cluster) == min(count, num_videos, num_cands)


def test_an_index_whose_cells_run_dry_gives_shorter_clusters() -> None:
    vectors, ids = blobs(4, 50)
    index = VectorIndex(vectors, ids, "ivf", nlist=4, nprobe=1)
    for cluster in retrieve_clusters(vectors, ids, 80, 120, rng(), index):
        assert 0 < len(cluster) <= 80 and all(name in ids for name in cluster)


def filled_pool() -> VideoVectorPool:
    vectors, ids = blobs()
    pool = build("vectorpool", "VideoVectorPool", {})
    pool.add(ids, vectors)
    return pool


def test_retriever_reads_the_top_level_and_keeps_statistics() -> None:
    config = {"num_cands": 10, "retri_index": "ivf", "retri_nlist": 2, "dataset": {"num_video_per_batch": 5}}
    retriever = build("retriever", "VectorRetriever", config)
    clusters = retriever(filled_pool(), 5, rng())
    assert len(clusters) == 12
    assert retriever.stats["videos"] == 60 and retriever.stats["clusters"] == 12
    assert 1 <= retriever.stats["mean_cluster_size"] <= 5 and 0 < retriever.stats["recall"] <= 1


def test_the_kind_of_index_does_not_change_the_draw() -> None:
    exact = VectorRetriever({"num_cands": 10})
    searched = VectorRetriever({"num_cands": 10, "retri_index": "ivf", "retri_nlist": 1})
    one, other = exact(filled_pool(), 5, rng()), searched(filled_pool(), 5, rng())
    assert one == other
    assert "recall" not in exact.stats


def test_wrong_numbers_and_empty_pools_are_reported() -> None:
    vectors, ids = blobs(1, 3)
    with pytest.raises(ConfigError, match="at least 1"):
        retrieve_clusters(vectors, ids, 0, 5, rng())
    with pytest.raises(DataError, match="at least one"):
        VectorRetriever({})(VideoVectorPool(), 5, rng())
    with pytest.raises(ConfigError, match="num_cands"):
        VectorRetriever({"num_cands": "many"})


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_the_search_has_all_cores_and_the_training_of_the_index_those_it_is_given(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import faiss

    from mmpt.modules import vectorpool

    seen: dict[str, set[int]] = {"search": set(), "build": set()}

    def noting(name: str, real: Any) -> Any:
        def call(*args: Any) -> Any:
            seen[name].add(faiss.omp_get_max_threads())
            return real(*args)

        return call

    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(3)))
    monkeypatch.setattr(vectorpool.VectorIndex, "search", noting("search", vectorpool.VectorIndex.search))
    monkeypatch.setattr(
        vectorpool, "_build", noting("build", vectorpool._build) if kind == "ivf" else vectorpool._build
    )
    pool = VideoVectorPool()
    vectors = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    pool.add([f"v{number}" for number in range(100)], vectors)
    before = faiss.omp_get_max_threads()
    VectorRetriever({"retri_index": kind, "retri_nlist": 2 if kind == "ivf" else None})(
        pool, 4, np.random.default_rng(0)
    )
    assert seen["search"] == {3} and faiss.omp_get_max_threads() == before
    assert before in seen["build"] or kind == "exact"
