"""Frames of a clip with texts, in the layout of the pre-training of MERLOT and MERLOT Reserve."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mmpt.evaluators.qa_predictor import QAPredictor
from mmpt.models.embedding import embed_batch
from mmpt.models.merlot import MERLOTPretraining
from mmpt.models.reserve import ReservePretraining
from mmpt.modules.merlot_tokens import START
from mmpt.processors.base import UnusableItemError
from mmpt.processors.frame_base import FrameVideoProcessor
from mmpt.processors.msrvtt_qa import Choice
from mmpt.processors.segment_pairs import MERLOTPairAligner, ReservePairAligner
from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.images import encode_jpeg
from mmpt.utils.errors import ConfigError

SYSTEMS = {"merlot": (MERLOTPairAligner, MERLOTPretraining), "reserve": (ReservePairAligner, ReservePretraining)}


def _config(model: Any, folder: Path, **dataset: Any) -> Any:
    config = model.tiny_config()
    given = {"frame_path": str(folder), "split": "test", "num_frames": 2, **dataset}
    return OmegaConf.merge(config, {"dataset": given})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    rng = np.random.default_rng(0)
    with FrameStoreWriter(folder) as writer:
        for name in ("a", "b"):
            images = [encode_jpeg(rng.integers(0, 255, (48, 64, 3), np.uint8)) for _ in range(10)]
            writer.append(name, images, [0.5 + second for second in range(10)])
    return folder


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest, store: Path) -> tuple[Any, Any, Any]:
    aligner, model = SYSTEMS[request.param]
    config = _config(model, store)
    torch.manual_seed(0)
    return aligner(config.dataset), model(config).eval(), FrameVideoProcessor(config.dataset)


def _batch(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        key: torch.stack([item[key] for item in items])
        if torch.is_tensor(items[0][key])
        else [item[key] for item in items]
        for key in items[0]
    }


def test_a_clip_is_seen_by_its_own_frames_alone(system: Any) -> None:
    align, _, videos = system
    whole, first, last = (align(clip, videos(clip), [9, 8]) for clip in ("a", ("a", 0, 5), ("a", 5, 10)))
    assert first["video_id"] == "a_0_5"
    assert not torch.equal(first["vfeats"], last["vfeats"])
    assert not torch.equal(whole["vfeats"], first["vfeats"])
    assert first["vmasks"].tolist() == [True, True]


def test_texts_are_laid_out_as_pre_training_has_them(system: Any) -> None:
    align, _, videos = system
    item = align("a", videos("a"), [9, 8, 7])
    words = item["caps"][item["cmasks"]].tolist()
    assert words == ([START, 9, 8, 7] if isinstance(align, MERLOTPairAligner) else [9, 8, 7])
    long = align("a", videos("a"), list(range(5, 95)))
    assert int(long["cmasks"].sum()) == len(long["caps"])


def test_options_score_as_the_vectors_of_retrieval_do(system: Any) -> None:
    align, model, videos = system
    clips, texts = [("a", 0, 5), ("b", 5, 10)], [[9, 8], [20, 21, 22], [30]]
    with torch.no_grad():
        pairs = embed_batch(model, _batch([align(clip, videos(clip), texts[0]) for clip in clips]), "cpu")
        vectors = [
            embed_batch(model, _batch([align(clips[0], videos(clips[0]), text)]), "cpu").text[0] for text in texts
        ]
        asked = _batch([align(clip, videos(clip), Choice(1, texts)) for clip in clips])
        scores = QAPredictor._scores(model, asked, torch.device("cpu"))
    np.testing.assert_allclose(scores, pairs.video @ np.stack(vectors).T, atol=1e-5)
    assert asked["answers"].tolist() == [[1], [1]]


def test_wrong_sizes_and_clips_without_frames_are_refused(system: Any, store: Path) -> None:
    align, model, _ = system
    with pytest.raises(ConfigError, match="num_frames"):
        type(align)(_config(type(model), store, num_frames=0).dataset)
    with pytest.raises(UnusableItemError, match="video a: has no stored frame"):
        align("a", [], [9])
