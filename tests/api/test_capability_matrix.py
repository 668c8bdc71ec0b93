"""Every cell of the matrix of systems and calls, on tiny random weights: it works, or the error names who can."""

from pathlib import Path

import numpy as np
import pytest

from mmpt.api import VideoTextPipeline
from mmpt.api.capability import CALLS, SYSTEMS, MissingCapabilityError, require_call, rows_with
from scripts.docs.capabilities import PAGE, page
from tests.api.tiny_models import readable, write_model, write_video

pytest.importorskip("av")

TEXTS = ["w5 w6", "w7 w3"]
CELLS = [(system, call) for system in SYSTEMS for call in CALLS]
#: A model of each system for the cells that are empty.
PLAIN = {system: row for call in reversed(CALLS) for system, row in rows_with(call).items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("matrix")
    write_video(folder / "a.mp4", 4.0, 0)
    write_video(folder / "b.mp4", 6.0, 1, sound=False)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    """Load a model of a class, each once."""
    kept: dict[str, VideoTextPipeline] = {}

    def load(name: str) -> VideoTextPipeline:
        if name not in kept:
            kept[name] = VideoTextPipeline.from_pretrained(write_model(folder, name), device="cpu")
        return kept[name]

    return load


def test_the_page_is_what_the_table_says():
    assert Path(PAGE).read_text() == page()


@pytest.mark.parametrize(("system", "call"), CELLS, ids=lambda value: value.replace(" ", "_"))
def test_cell(system, call, loaded, folder):
    rows = rows_with(call)
    videos = [folder / "a.mp4", folder / "b.mp4"]
    if system in rows:
        pipeline = loaded(rows[system].model_cls)
        assert pipeline.system == system and call in pipeline.calls
        globals()[f"check_{call}"](pipeline, readable(pipeline, videos))
        return
    pipeline = loaded(PLAIN[system].model_cls)
    with pytest.raises(MissingCapabilityError) as caught:
        invoke(pipeline, call, videos)
    message = str(caught.value)
    assert pipeline.source in message and system in message
    for able, row in rows.items():
        assert f"{able} ({row.model_cls}, {row.example})" in message
    named = message.partition(f"Systems that have {call}: ")[2]
    assert named.count("projects/") == len(rows) and f"{system} (" not in named


def invoke(pipeline, call, videos):
    if call == "index":
        return require_call(pipeline, "index")
    if call == "choose":
        return pipeline.answer(videos[0], "w1", TEXTS)
    arguments = {
        "encode_video": (videos,),
        "encode_text": (TEXTS,),
        "similarity": (TEXTS, videos),
        "classify": (videos[0], TEXTS),
        "retrieve": (TEXTS, videos),
        "segment": (videos[0], TEXTS),
        "answer": (videos[0], "w1 w2"),
        "caption": (videos[0],),
    }
    return getattr(pipeline, call)(*arguments[call])


def check_encode_video(pipeline, videos):
    found = pipeline.encode_video(videos)
    assert found.shape == (2, pipeline.dim) and found.dtype == np.float32
    np.testing.assert_allclose(pipeline.encode_video(videos[1]), found[1], atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-6


def check_encode_text(pipeline, videos):
    found = pipeline.encode_text(TEXTS)
    assert found.shape == (2, pipeline.dim) and np.isfinite(found).all()
    np.testing.assert_allclose(pipeline.encode_text(TEXTS[1]), found[1], atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-6


def check_similarity(pipeline, videos):
    found = pipeline.similarity(TEXTS, videos)
    assert found.shape == (2, 2) and np.isfinite(found).all()
    if pipeline.dim is not None:
        np.testing.assert_allclose(found, pipeline.encode_text(TEXTS) @ pipeline.encode_video(videos).T, atol=1e-5)
    np.testing.assert_allclose(found[:1, 1:], pipeline.similarity(TEXTS[0], videos[1]), atol=1e-5)


def check_classify(pipeline, videos):
    found = pipeline.classify(videos[0], TEXTS)
    scores = dict(zip(TEXTS, pipeline.similarity(TEXTS, videos[0])[:, 0], strict=True))
    assert sum(label.probability for label in found) == pytest.approx(1)
    assert [label.label for label in found] == sorted(TEXTS, key=scores.get, reverse=True)
    assert all(label.score == pytest.approx(scores[label.label], abs=1e-5) for label in found)


def check_retrieve(pipeline, videos):
    scores = pipeline.similarity(TEXTS, videos)
    for hits, row in zip(pipeline.retrieve(TEXTS, videos), scores, strict=True):
        assert [hit.index for hit in hits] == np.argsort(-row, kind="stable").tolist()
        assert [hit.score for hit in hits] == pytest.approx(np.sort(row)[::-1].tolist(), abs=1e-5)


def check_segment(pipeline, videos):
    found = pipeline.segment(videos[0], TEXTS)
    assert found.scores.shape == (len(found.starts), 2) and np.isfinite(found.scores).all()
    assert found.starts[0] == 0 and (found.ends > found.starts).all() and found.ends[-1] == pytest.approx(4, abs=0.3)
    assert found.spans()[-1].end == pytest.approx(found.ends[-1])


def check_index(pipeline, videos):
    """What an index is made of: vectors of parts, comparable with those of texts."""
    require_call(pipeline, "index")
    found = pipeline.encode_clips(videos[0], 2.0)
    assert found.vectors.shape == (2, pipeline.dim) and found.starts.tolist() == [0, 2]
    assert (found.vectors @ pipeline.encode_text(TEXTS).T).shape == (2, 2)


def check_answer(pipeline, videos):
    known = ["w1", "w4", "w5"]
    found = pipeline.answer(videos[0], "w1 w2", answers=known)
    assert sorted(answer.text for answer in found) == known
    compare_probabilities(found)
    again = pipeline.answer(videos[0], "w1 w2", answers=["w5", "w1", "w4"], top=1)
    assert again[0].text == found[0].text and again[0].score == pytest.approx(found[0].score, abs=1e-5)


def check_choose(pipeline, videos):
    options = ["w3", "w4 w5", "w6"]
    found = pipeline.answer(videos[0], "w1 w2", options)
    assert sorted(answer.text for answer in found) == options
    assert sum(answer.probability for answer in found) == pytest.approx(1)
    turned = {answer.text: answer.score for answer in pipeline.answer(videos[0], "w1 w2", options[::-1])}
    if pipeline.system != "LAVENDER":  # it reads all options in one text, in their order
        for answer in found:
            assert answer.score == pytest.approx(turned[answer.text], abs=1e-5)


def check_caption(pipeline, videos):
    found = pipeline.caption(videos)
    assert len(found) == 2 and all(isinstance(text, str) and text for text in found)
    assert pipeline.caption(videos[0]) == found[0]


def compare_probabilities(found):
    scores = np.array([answer.score for answer in found])
    powers = np.exp(scores - scores.max())
    assert [answer.probability for answer in found] == pytest.approx((powers / powers.sum()).tolist())
    assert (np.diff(scores) <= 0).all()
