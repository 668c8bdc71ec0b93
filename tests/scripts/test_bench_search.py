"""The benchmark of the index of clips runs small, and its figures are what they say."""

import json

import pytest

from scripts.benchmarks.bench_search import main

pytest.importorskip("faiss")


@pytest.mark.slow
def test_it_runs_small(tmp_path):
    figures = tmp_path / "figures.json"
    assert main(["--vectors", "6000", "--dim", "16", "--queries", "20", "--exact-up-to", "3000",
                 "--json", str(figures)]) == 0  # fmt: skip
    found = json.loads(figures.read_text())
    assert found["vectors"] == 6000 and found["build_built"] == 1
    assert found["recall_at_10"] > 0.8
    assert found["lost_videos"] == found["damaged_videos"] == 0
