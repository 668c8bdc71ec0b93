"""Pool and index of video vectors: worked averages, exact search, IVF with its recall, files."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.modules.vectorpool import VectorIndex, VideoVectorPool, all_cores
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.extras import MissingExtraError


def cloud(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def names(count: int) -> list[str]:
    return [f"v{number}" for number in range(count)]


def test_a_video_vector_is_the_mean_over_clips_of_video_and_text() -> None:
    pool = VideoVectorPool()
    pool.add(["a", "a", "b"], np.array([[1, 0], [3, 0], [5, 5]]), np.array([[1, 4], [3, 0], [1, 1]]))
    ids, vectors = pool.vectors()
    assert ids == ["a", "b"] and len(pool) == 2
    np.testing.assert_allclose(vectors, [[2, 1], [3, 3]])
    pool.add(["c"], np.array([[7.0, 8.0]]))
    np.testing.assert_allclose(pool.vectors()[1][2], [7, 8])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=6), st.integers(0, 99))
def test_any_order_of_batches_and_any_merge_gives_the_plain_means(batches: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole, left, right = VideoVectorPool(), VideoVectorPool(), VideoVectorPool()
    clips: dict[str, list[np.ndarray]] = {}
    for number, batch in enumerate(batches):
        video, text = rng.standard_normal((2, len(batch), 3))
        for name, one, other in zip(batch, video, text, strict=True):
            clips.setdefault(str(name), []).append((one + other) / 2)
        for pool in (whole, right if number % 2 else left):
            pool.add([str(name) for name in batch], video, text)
    left.merge(*right.state())
    for pool in (whole, left):
        ids, vectors = pool.vectors()
        assert sorted(ids) == sorted(clips)
        for name, vector in zip(ids, vectors, strict=True):
            np.testing.assert_allclose(vector, np.mean(clips[name], axis=0), atol=1e-5)


def test_bad_vectors_are_named() -> None:
    pool = VideoVectorPool()
    with pytest.raises(DataError, match="2 ids with vectors"):
        pool.add(["a", "b"], np.zeros((1, 2)), np.zeros((1, 2)))
    bad = np.array([[0, 0], [np.nan, 0]])
    with pytest.raises(DataError, match="'b': its vector is not finite"):
        pool.add(["a", "b"], bad, bad)
    pool.add(["a"], np.zeros((1, 2)))
    with pytest.raises(DataError, match="width 3 in a pool of width 2"):
        pool.add(["b"], np.zeros((1, 3)))


def test_exact_search_equals_brute_force_and_is_capped_by_the_corpus() -> None:
    vectors, queries = cloud(50), cloud(7, seed=1)
    index = VectorIndex(vectors, names(50))
    distances, positions = index.search(queries, 5)
    wanted = ((queries[:, None] - vectors[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(positions, wanted.argsort(1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(wanted, 1)[:, :5], rtol=1e-4)
    assert index.search(queries, 500)[1].shape == (7, 50)
    assert index.dim == 8 and index.recall_against_exact(5, np.random.default_rng(0)) == 1.0


def test_repeated_ids_keep_their_first_vector() -> None:
    vectors = cloud(4)
    index = VectorIndex(vectors, ["a", "b", "a", "c"])
    assert index.ids == ["a", "b", "c"] and len(index) == 3
    np.testing.assert_allclose(index.vectors(), vectors[[0, 1, 3]])


def test_ivf_reports_a_recall_that_grows_with_the_cells_searched(caplog) -> None:
    vectors = cloud(2000)
    narrow = VectorIndex(vectors, names(2000), "ivf", nlist=40, nprobe=1)
    default = VectorIndex(vectors, names(2000), "ivf")
    full = VectorIndex(vectors, names(2000), "ivf", nlist=40, nprobe=40)
    with caplog.at_level("INFO"):
        recalls = [index.recall_against_exact(10, np.random.default_rng(0), 200) for index in (narrow, default, full)]
    assert recalls[0] < recalls[1] < recalls[2] == 1.0
    assert recalls[1] > 0.6
    assert "recall@10 1.000" in caplog.text
    np.testing.assert_allclose(narrow.vectors(), vectors)


@pytest.mark.parametrize("count", [1, 3, 77, 79])
def test_ivf_works_with_tiny_corpora(count: int) -> None:
    index = VectorIndex(cloud(count), names(count), "ivf", nlist=512)
    positions = index.search(cloud(count), 1)[1][:, 0]
    assert positions.tolist() == list(range(count))


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_files_round_trip(tmp_path, kind: str) -> None:
    index = VectorIndex(cloud(300), names(300), kind, nlist=5, nprobe=2)
    index.save(tmp_path / "pool" / "index")
    loaded = VectorIndex.load(tmp_path / "pool" / "index")
    assert loaded.ids == index.ids and loaded.kind == kind
    for one, other in zip(index.search(cloud(9, seed=2), 6), loaded.search(cloud(9, seed=2), 6), strict=True):
        np.testing.assert_array_equal(one, other)


def test_damaged_or_mismatched_files_are_reported(tmp_path) -> None:
    path = tmp_path / "index"
    with pytest.raises(DataError, match="no such file"):
        VectorIndex.load(path)
    VectorIndex(cloud(20), names(20)).save(path)
    (tmp_path / "index.ids.json").write_text(json.dumps({"kind": "exact", "ids": names(19)}))
    with pytest.raises(DataError, match="20 vectors, but .* 19 ids"):
        VectorIndex.load(path)
    content = (tmp_path / "index.faiss").read_bytes()
    (tmp_path / "index.faiss").write_bytes(content[:100])
    with pytest.raises(DataError, match="damaged"):
        VectorIndex.load(path)
    (tmp_path / "index.faiss").unlink()
    with pytest.raises(DataError, match=r"index\.faiss: no such file"):
        VectorIndex.load(path)


def test_wrong_settings_and_missing_faiss_are_named(monkeypatch) -> None:
    with pytest.raises(ConfigError, match="'hnsw' is neither"):
        VectorIndex(cloud(2), names(2), "hnsw")
    with pytest.raises(ConfigError, match="retri_nprobe: must be at least 1"):
        VectorIndex(cloud(2), names(2), "ivf", nprobe=0)
    with pytest.raises(DataError, match="at least one"):
        VectorIndex(cloud(0), [])
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"mmpt\[retrieval\]"):
        VectorIndex(cloud(2), names(2))


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_the_number_of_threads_changes_no_bit(kind: str) -> None:
    import faiss

    vectors = cloud(4000, 384)
    index = VectorIndex(vectors, names(4000), kind, 20, 4)
    before, found = faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 2, 3):
            faiss.omp_set_num_threads(threads)
            found.append(index.search(vectors[:2500], 64))
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    for distances, positions in found[1:]:
        assert np.array_equal(distances, found[0][0]) and np.array_equal(positions, found[0][1])


def test_a_search_that_others_wait_for_has_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 3, 5})
    before = faiss.omp_get_max_threads()
    with pytest.raises(DataError), all_cores():
        assert faiss.omp_get_max_threads() == 3
        raise DataError("")
    assert faiss.omp_get_max_threads() == before


def test_no_query_finds_nothing() -> None:
    distances, positions = VectorIndex(cloud(3), names(3)).search(cloud(3)[:0], 2)
    assert distances.shape == positions.shape == (0, 2)
