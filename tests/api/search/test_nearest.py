"""The faiss index of clips: recall, rows beside it, rows that are gone, damage."""

import json
import logging
import shutil

import numpy as np
import pytest

from mmpt.api.search.nearest import Nearest, build_nearest, nearest_state

pytest.importorskip("faiss")
ROWS, DIM = 4000, 32


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((100, DIM))[rng.integers(0, 100, ROWS)] + 0.7 * rng.standard_normal((ROWS, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<f2")


def data_of(folder, vectors):
    folder.mkdir(exist_ok=True)
    (folder / "vectors.f16").write_bytes(vectors.tobytes())
    return folder


def recall(nearest, vectors, count=10):
    queries = vectors[::40].astype(np.float32)
    truth = np.argsort(-(queries @ vectors.astype(np.float32).T), axis=1, kind="stable")[:, :count]
    found = nearest.search(queries, count)[1]
    return np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)])


def test_recall_rows_beside_it_and_rows_that_are_gone(tmp_path, vectors):
    data, live = data_of(tmp_path / "d", vectors), np.ones(ROWS, bool)
    assert not build_nearest(data, 3900, DIM)  # so few are compared exactly
    assert Nearest(data, vectors, live).indexed == 0
    assert recall(Nearest(data, vectors, live), vectors) == 1
    assert build_nearest(data, 3900, DIM, exact_up_to=1000)
    nearest = Nearest(data, vectors, live)
    assert nearest.indexed == 3900 and recall(nearest, vectors) > 0.95
    scores, rows = nearest.search(vectors[[3999, 5]].astype(np.float32), 3)
    assert rows[:, 0].tolist() == [3999, 5] and scores[0, 0] == pytest.approx(1, abs=2e-3)
    live = live.copy()
    live[[3999, 5]] = False
    rows = Nearest(data, vectors, live).search(vectors[[3999, 5]].astype(np.float32), 50)[1]
    assert not np.isin(rows, [3999, 5]).any()
    assert not build_nearest(data, ROWS, DIM, exact_up_to=1000)  # 100 more are not many
    assert build_nearest(data_of(data, np.tile(vectors, (2, 1))), 2 * ROWS, DIM, exact_up_to=1000)
    assert Nearest(data, np.tile(vectors, (2, 1)), np.ones(2 * ROWS, bool)).indexed == 2 * ROWS


def test_it_is_the_same_each_time(tmp_path, vectors):
    for name in ("a", "b"):
        build_nearest(data_of(tmp_path / name, vectors), ROWS, DIM, exact_up_to=1000)
    assert (tmp_path / "a/nearest.faiss").read_bytes() == (tmp_path / "b/nearest.faiss").read_bytes()


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "facts"])
def test_a_damaged_file_is_left_aside_and_made_again(tmp_path, vectors, caplog, damage):
    data, live = data_of(tmp_path / "d", vectors), np.ones(ROWS, bool)
    build_nearest(data, ROWS, DIM, exact_up_to=1000)
    file = data / "nearest.faiss"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "changed":
        file.write_bytes(b"nonsense" + file.read_bytes()[8:])
    else:
        (file if damage == "missing" else data / "nearest.json").unlink()
    with caplog.at_level(logging.WARNING):
        nearest = Nearest(data, vectors, live)
    assert nearest.indexed == 0 and recall(nearest, vectors) == 1
    assert build_nearest(data, ROWS, DIM, exact_up_to=1000)
    assert Nearest(data, vectors, live).indexed == ROWS


@pytest.fixture(scope="module")
def built(tmp_path_factory, vectors):
    data = data_of(tmp_path_factory.mktemp("built"), vectors)
    build_nearest(data, ROWS, DIM, exact_up_to=1000)
    return data


@pytest.mark.parametrize("place", np.linspace(0, 1, 14))
def test_a_flipped_byte_anywhere_is_noticed(tmp_path, built, vectors, place):
    """Wherever it is, a check of all finds it; that of opening does in the head, and behind it no score is wrong."""
    data = tmp_path / "data"
    shutil.copytree(built, data)  # a file that is mapped must not be written to
    path, head = data / "nearest.faiss", json.loads((data / "nearest.json").read_text())["head_bytes"]
    content = path.read_bytes()
    assert nearest_state(data) == "whole" and head < len(content) - ROWS * DIM
    at = min(int(place * len(content)), len(content) - 1)
    path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    assert nearest_state(data) == "damaged"
    nearest = Nearest(data, vectors, np.ones(ROWS, bool))
    assert nearest.indexed == (0 if at < head else ROWS)
    queries = vectors[:50].astype(np.float32)
    scores, rows = nearest.search(queries, 5)
    assert np.allclose(scores, np.einsum("qd,qkd->qk", queries, vectors[rows].astype(np.float32)), atol=1e-5)


def test_rows_are_not_added_to_a_damaged_index(tmp_path, vectors):
    data = data_of(tmp_path / "d", vectors)
    build_nearest(data, 2000, DIM, exact_up_to=1000)
    path = data / "nearest.faiss"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 255]) + content[-8:])
    assert build_nearest(data, ROWS, DIM, exact_up_to=1000)
    assert nearest_state(data) == "whole" and recall(Nearest(data, vectors, np.ones(ROWS, bool)), vectors) > 0.95
