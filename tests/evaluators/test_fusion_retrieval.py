"""Retrieval by fusion: against every pair scored alone, two stages, killed tests, several processes, and the page."""

import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fusion_data import Clips, Fusing, config_of, fusing, loader_of

from mmpt.evaluators import Evaluator, RetrievalPredictor
from mmpt.evaluators.fusion_retrieval_predictor import FusionRetrievalPredictor
from mmpt.evaluators.fusion_scoring import PairPlan
from mmpt.evaluators.fusion_states import StateStore
from mmpt.evaluators.report import build_report, render
from mmpt.models.cross_modal import States
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.process_group import process_group
from tests.processes import spawn

#: Nine texts of six videos, of which one has three and one comes back later.
NAMES = ["a", "a", "b", "c", "a", "d", "e", "b", "f"]
TARGET = [0, 0, 1, 2, 0, 3, 4, 1, 5]


@torch.no_grad()
def brute_force(model: Fusing, clips: Clips) -> np.ndarray:
    """Score every item's text with every item's video, each encoded and each pair fused alone: (items, items)."""
    texts, videos = [], []
    for row in range(len(clips)):
        item = {key: value[None] for key, value in clips[row].items() if isinstance(value, torch.Tensor)}
        texts.append(model.encode_text(**{key: item[key] for key in ("caps", "cmasks", "prompts") if key in item}))
        videos.append(model.encode_video(item["vfeats"], item["vmasks"]))
    scores = [[float(model.score_aligned(text, video)) for video in videos] for text in texts]
    return np.array(scores, dtype=np.float32)


def predicted(folder: Path, model: Any, data: Any, **options: Any) -> dict[str, Any]:
    """Return what a predictor says; ``data`` is a data set, or a loader."""
    predictor = FusionRetrievalPredictor(config_of(folder, **options))
    predictor.make_folder()
    return predictor(model, loader_of(data) if isinstance(data, Clips) else data, device="cpu")


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    """Return the scores of all texts and videos of NAMES."""
    return brute_force(fusing(), Clips(NAMES))[:, [TARGET.index(video) for video in range(6)]]


@pytest.mark.parametrize("prompt", [False, True])
def test_scores_are_those_of_pairs_scored_alone(tmp_path, prompt) -> None:
    clips = Clips(NAMES, prompt=prompt)
    model = fusing().train()
    wanted = brute_force(fusing(), clips)[:, [TARGET.index(video) for video in range(6)]]
    assert np.ptp(wanted) > 0.05  # else any matrix would do
    outputs = predicted(tmp_path, model, clips)
    np.testing.assert_allclose(outputs["outputs"], wanted, atol=2e-6)
    assert outputs["target"].tolist() == TARGET and outputs["ids"].tolist() == list("abcdef")
    assert outputs["texts"].tolist() == [f"text {row}" for row in range(9)]
    assert (model.encoded, model.fused) == (6, 54) and model.training
    loaded = FusionRetrievalPredictor(config_of(tmp_path)).load()
    assert all(np.array_equal(loaded[name], outputs[name]) for name in outputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged.npy", "pairs.npz"]


def test_metrics_are_those_of_the_matrix(tmp_path, exact) -> None:
    metrics = Evaluator(config_of(tmp_path)).evaluate(fusing(), loader_of(Clips(NAMES)), device="cpu")
    ranks = [1 + sum(row[j] >= row[own] for j in range(6) if j != own) for row, own in zip(exact, TARGET, strict=True)]
    assert metrics["count"] == 9 and metrics["candidates"] == 6
    assert metrics["R1"] == np.mean(np.array(ranks) == 1) and metrics["MeanR"] == np.mean(ranks)


def test_other_frames_under_an_id_are_another_clip(tmp_path) -> None:
    names, numbers = ["a", "a", "b", "a", "b", "a"], [0, 0, 1, 5, 1, 5]
    wanted = brute_force(fusing(), Clips(names, numbers))[:, [0, 2, 3]]
    for size in (1, 2, 6):
        outputs = predicted(tmp_path, fusing(), loader_of(Clips(names, numbers), size))
        assert outputs["ids"].tolist() == ["a", "b", "a"] and outputs["target"].tolist() == [0, 0, 1, 2, 1, 2]
        np.testing.assert_allclose(outputs["outputs"], wanted, atol=2e-6)


def test_without_unique_videos_every_item_is_one(tmp_path) -> None:
    outputs = predicted(tmp_path, fusing(), Clips(NAMES), unique_videos=False)
    np.testing.assert_allclose(outputs["outputs"], brute_force(fusing(), Clips(NAMES)), atol=2e-6)
    assert outputs["ids"].tolist() == NAMES and outputs["target"].tolist() == list(range(9))


def test_texts_of_several_lengths_are_not_padded(tmp_path, exact) -> None:
    """A system may look at a text's last position; padding would put another one there."""
    batches = list(loader_of(Clips(NAMES), 1))
    for batch in batches:
        length = int(batch["cmasks"].sum())
        batch |= {"caps": batch["caps"][:, :length], "cmasks": batch["cmasks"][:, :length]}
    np.testing.assert_allclose(predicted(tmp_path, fusing(), batches)["outputs"], exact, atol=2e-6)


def test_states_on_disk_and_in_half(tmp_path, exact) -> None:
    mapped = predicted(tmp_path, fusing(), Clips(NAMES), states_max_gb=0.0)
    np.testing.assert_allclose(mapped["outputs"], exact, atol=2e-6)
    half = predicted(tmp_path, fusing(), Clips(NAMES), states_dtype="float16", states_max_gb=1e-6)["outputs"]
    assert 0 < np.abs(half - exact).max() < 1e-2


def test_store_gives_back_what_it_was_given(tmp_path) -> None:
    store = StateStore(torch.float32, 3000, tmp_path)
    parts = [States(torch.randn(2, 5, 7), torch.rand(2, 5) > 0.5) for _ in range(12)]
    for part in parts:
        store.append(part)
    assert store.held <= 3000 < 12 * 2 * 5 * 7 * 4 and not list(tmp_path.iterdir())
    whole = States(*(torch.cat(side) for side in zip(*parts, strict=True)))
    for chosen in ([3, 3, 3], [2, 3], [22, 23], [5, 6, 7], [23, 0, 11], [4]):
        found = store.get(chosen)
        assert torch.equal(found.values, whole.values[chosen]) and torch.equal(found.mask, whole.mask[chosen])
    assert store.get([3, 3, 3]).values.stride(0) == 0  # one row of memory


def test_candidates_are_fused_and_the_others_rank_behind(tmp_path, exact) -> None:
    cheap = np.random.default_rng(0).standard_normal((9, 6)).astype(np.float32)
    np.save(tmp_path / "cheap.npy", cheap)
    model = fusing()
    found = predicted(tmp_path / "out", model, Clips(NAMES), rerank_top_k=2, cheap_score=str(tmp_path / "cheap.npy"))
    assert model.fused == 18
    scores = found["outputs"]
    chosen = np.argsort(-cheap, axis=1)[:, :2]
    taken = np.zeros((9, 6), dtype=bool)
    taken[np.arange(9)[:, None], chosen] = True
    np.testing.assert_allclose(scores[taken], exact[taken], atol=2e-6)
    assert scores[~taken].max() < scores[taken].min()
    for row in range(9):  # the others keep the order of the cheap score
        rest = np.flatnonzero(~taken[row])
        assert np.argsort(-scores[row, rest]).tolist() == np.argsort(-cheap[row, rest]).tolist()
    everything = predicted(tmp_path / "all", fusing(), Clips(NAMES), rerank_top_k=6, cheap_score="pooled")
    np.testing.assert_allclose(everything["outputs"], exact, atol=2e-6)


@torch.no_grad()
def test_pooled_states_choose_by_their_cosine(tmp_path) -> None:
    model, clips = fusing(), Clips(NAMES)
    scores = predicted(tmp_path, fusing(), clips, rerank_top_k=1)["outputs"]
    for row in range(9):
        text = model.encode_text(clips[row]["caps"][None], clips[row]["cmasks"][None])
        vectors = [text.values[text.mask].mean(0)]
        for number in range(6):
            item = clips[TARGET.index(number)]
            video = model.encode_video(item["vfeats"][None], item["vmasks"][None])
            vectors.append(video.values[video.mask].mean(0))
        cosines = torch.cosine_similarity(vectors[0][None], torch.stack(vectors[1:]))
        assert scores[row].argmax() == cosines.argmax()


def test_cheap_scores_of_another_test_are_refused(tmp_path) -> None:
    given = {"rerank_top_k": 2, "cheap_score": str(tmp_path / "merged.npy")}
    with pytest.raises(ConfigError, match="eval.cheap_score: .* is neither 'pooled' nor a file of scores"):
        predicted(tmp_path / "out", fusing(), Clips(NAMES), **given)
    np.save(tmp_path / "merged.npy", np.zeros((9, 5), np.float32))
    with pytest.raises(DataError, match=r"shape \(9, 5\), but the test set has 9 texts and 6 videos"):
        predicted(tmp_path / "out", fusing(), Clips(NAMES), **given)
    np.save(tmp_path / "merged.npy", np.zeros((9, 6), np.float32))
    np.savez(tmp_path / "embeddings.npz", ids=np.array(list("abcdfe")))
    with pytest.raises(DataError, match="embeddings.npz beside it lists other videos"):
        predicted(tmp_path / "out", fusing(), Clips(NAMES), **given)


def interrupted(folder: Path, after: int, **options: Any) -> None:
    model = fusing()
    model.kill_at = after
    with pytest.raises(KeyboardInterrupt):
        predicted(folder, model, Clips(NAMES), **options)
    assert list((folder / "unfinished").glob("scores-*.npy"))


def fused_by_next(folder: Path, model: Fusing, clips: Clips, **options: Any) -> tuple[int, np.ndarray]:
    """Return how many pairs the next test had to fuse, and the scores."""
    outputs = predicted(folder, model, clips, **options)["outputs"]
    assert not (folder / "unfinished").exists()
    return model.fused, outputs


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmpt.evaluators.fusion_scoring._BATCHES", 1)


@pytest.mark.usefixtures("small_blocks")
def test_a_killed_test_goes_on_with_the_same_scores(tmp_path, exact) -> None:
    whole = predicted(tmp_path / "whole", fusing(), Clips(NAMES))["outputs"]
    interrupted(tmp_path, 30)
    kept = sorted((tmp_path / "unfinished").iterdir())
    assert len(kept) == 3  # a block of 9 pairs, one video, takes two batches
    kept[1].write_bytes(kept[1].read_bytes()[:-4])  # damaged: scored again
    fused, outputs = fused_by_next(tmp_path, fusing(), Clips(NAMES))
    assert fused == 54 - 18 and np.array_equal(outputs, whole)


@pytest.mark.usefixtures("small_blocks")
def test_scores_of_other_frames_are_not_taken_up_where_every_item_is_a_video(tmp_path) -> None:
    interrupted(tmp_path, 30, unique_videos=False)
    clips = Clips(NAMES, [0, 0, 1, 2, 0, 3, 4, 1, 7])
    fused, outputs = fused_by_next(tmp_path, fusing(), clips, unique_videos=False)
    assert fused == 81
    assert np.array_equal(outputs, predicted(tmp_path / "whole", fusing(), clips, unique_videos=False)["outputs"])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("change", ["weights", "texts", "frames", "order", "states_dtype", "rerank_top_k"])
def test_scores_of_something_else_are_not_taken_up(tmp_path, change) -> None:
    interrupted(tmp_path, 30)
    model, clips, options = fusing(), Clips(NAMES), {}
    if change == "weights":
        with torch.no_grad():
            model.fc.bias += 1e-4
    elif change == "texts":
        clips = Clips(NAMES, seed=1)
    elif change == "frames":
        clips = Clips(NAMES, [0, 0, 1, 2, 0, 3, 4, 1, 7])
    elif change == "order":
        clips = Clips(NAMES[::-1])
    else:
        options = {change: {"states_dtype": "float16", "rerank_top_k": 5}[change]}
    fused, outputs = fused_by_next(tmp_path, model, clips, **options)
    assert fused == (45 if change == "rerank_top_k" else 54)
    assert np.array_equal(outputs, predicted(tmp_path / "whole", model, clips, **options)["outputs"])


def test_blocks_have_each_pair_once_and_the_videos_of_one_batch() -> None:
    rng = np.random.default_rng(0)
    batch_of = np.sort(rng.integers(0, 7, 40)).tolist()
    for candidates in (None, np.stack([rng.permutation(40)[:3] for _ in range(25)])):
        plan = PairPlan(25, batch_of, 4, candidates)
        pairs = [
            pair for block in plan.blocks() for pair in zip(*map(np.ndarray.tolist, plan.pairs_of(block)), strict=True)
        ]
        everything = range(40)
        wanted = {(t, v) for t in range(25) for v in (everything if candidates is None else candidates[t].tolist())}
        assert len(pairs) == len(set(pairs)) and set(pairs) == wanted
        assert all(len({batch_of[video] for video in range(*block)}) == 1 for block in plan.blocks())


def worker(rank: int, folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    values = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in values.items()})
    with process_group("cpu"):
        for name, options in CASES.items():
            predicted(folder / name, fusing(), Clips(NAMES), **options)
        predicted(folder / "clips", fusing(), list(loader_of(Clips(["a"] * 9, [0, 0, 0, 0, 5, 5, 0, 7, 5]), 2)))


#: What is tested with two processes: nine items are three batches, of which the last is short.
CASES: dict[str, dict[str, Any]] = {
    "exact": {},
    "reranked": {"rerank_top_k": 2},
    "every item": {"unique_videos": False},
}


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    spawn(worker, (tmp_path / "two", port), nprocs=2)
    for name, options in CASES.items():
        predicted(tmp_path / "one" / name, fusing(), Clips(NAMES), **options)
    predicted(tmp_path / "one" / "clips", fusing(), list(loader_of(Clips(["a"] * 9, [0, 0, 0, 0, 5, 5, 0, 7, 5]), 2)))
    for name in (*CASES, "clips"):
        one, two = (tmp_path / number / name for number in ("one", "two"))
        assert sorted(path.name for path in two.iterdir()) == ["merged.npy", "pairs.npz"]
        assert (one / "merged.npy").read_bytes() == (two / "merged.npy").read_bytes()
        arrays = [np.load(path / "pairs.npz") for path in (one, two)]
        assert all(np.array_equal(arrays[0][key], arrays[1][key]) for key in ("target", "ids", "texts"))
    assert np.load(tmp_path / "one" / "clips" / "merged.npy").shape == (9, 3)


def test_the_page_shows_it(tmp_path) -> None:
    Evaluator(config_of(tmp_path)).evaluate(fusing(), loader_of(Clips(NAMES)), device="cpu")
    report = build_report("Retrieval", [tmp_path])
    assert not report.problems
    view = report.views[0]
    assert view.candidates == 6 and len(view.ranks) == 9 and view.scores.shape == (6, 6)
    shown = [*view.good, *view.bad]
    assert shown and all(example.shown[0].score == max(one.score for one in example.shown) for example in shown)
    assert "Example retrievals" in render(report)


def test_each_predictor_sends_the_others_models_to_it(tmp_path) -> None:
    batch = next(iter(loader_of(Clips(NAMES))))
    with pytest.raises(ConfigError, match="use predictor: FusionRetrievalPredictor"):
        RetrievalPredictor(config_of(tmp_path))(fusing(), [batch], device="cpu")
    with pytest.raises(ConfigError, match="Linear encodes them apart: use RetrievalPredictor"):
        predicted(tmp_path, torch.nn.Linear(1, 1), Clips(NAMES))


def test_what_cannot_be_scored_is_named(tmp_path) -> None:
    model = fusing()
    with torch.no_grad():
        model.fc.bias.fill_(float("nan"))
    with pytest.raises(DataError, match=r"not finite \(first: text 0 \('text 0'\) with video 'a'\)"):
        predicted(tmp_path, model, Clips(NAMES))
    batch = next(iter(loader_of(Clips(NAMES))))
    with pytest.raises(DataError, match=r"texts of shape \(4, 1, 8\)"):
        predicted(tmp_path, fusing(), [{**batch, "caps": batch["caps"][:, None]}])
    with pytest.raises(DataError, match=r"no frames \(vfeats, vmasks\) of videos a, a, b"):
        predicted(tmp_path, fusing(), [{key: value for key, value in batch.items() if key != "vmasks"}])
    with pytest.raises(ConfigError, match=r"eval\.cheap_score: nothing is re-ranked"):
        FusionRetrievalPredictor(config_of(tmp_path, cheap_score="merged.npy"))
    for key, value in {"pairs_per_batch": 0, "rerank_top_k": -1, "states_dtype": "float8", "states_max_gb": -1}.items():
        with pytest.raises(ConfigError, match=f"eval.{key}"):
            FusionRetrievalPredictor(config_of(tmp_path, **{key: value}))
