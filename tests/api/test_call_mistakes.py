"""What a user may hand to the calls of a pipeline, and what is said where it cannot be used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.api import VideoTextPipeline
from mmpt.api.answering import _JoinedTexts
from mmpt.api.outputs import VideoClip
from mmpt.api.video_input import each_source
from mmpt.utils.errors import CheckpointError, ConfigError, DataError, MMPTError, VideoError
from tests.api.tiny_models import write_model, write_video

pytest.importorskip("av")

FEATURES = np.random.default_rng(0).normal(size=(5, 512)).astype(np.float32)
STATES, PAIRS, HEAD = "MMFusionSeparate", "VIOLETRetrieval", "MMFusionSeparateActionSegmentation"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    write_video(folder / "a.mp4", 4.0, sound=False)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> dict[str, VideoTextPipeline]:
    found = {}
    for name in (STATES, PAIRS, HEAD):
        lists = {"train_path": None, "test_path": None} if name == HEAD else {}
        found[name] = VideoTextPipeline.from_pretrained(write_model(folder, name, lists), device="cpu")
    return found


Call = Callable[[VideoTextPipeline], Any]


@pytest.mark.parametrize("name", [STATES, PAIRS])
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda one: one.similarity(["w1"], []).shape, (1, 0)),
        (lambda one: one.classify([], ["w1", "w2"]), []),
        (lambda one: one.retrieve("w1", []), []),
        (lambda one: one.retrieve(["w1", "w2"], iter([])), [[], []]),
    ],
)
def test_no_videos_give_nothing(name: str, call: Call, expected: Any, loaded: Any) -> None:
    assert call(loaded[name]) == expected


def test_videos_come_in_every_form_of_a_list(folder: Path, loaded: Any) -> None:
    video, one = folder / "a.mp4", loaded[PAIRS]
    for given in (video, str(video), VideoClip(str(video)), [video], (path for path in [str(video)])):
        (hit,) = one.retrieve("w1", given)
        assert (hit.index, hit.video) == (0, str(video))
    vectors = loaded[STATES].encode_video([FEATURES, FEATURES[:2]])
    assert loaded[STATES].retrieve("w1", torch.from_numpy(vectors)) == loaded[STATES].retrieve("w1", vectors)
    assert len(loaded[STATES].similarity(["w1"], (part for part in (FEATURES, FEATURES)))[0]) == 2


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_features_of_any_float_type(kind: torch.dtype, loaded: Any) -> None:
    given = torch.from_numpy(FEATURES).to(kind)
    expected = loaded[STATES].encode_video(given.float().numpy())
    np.testing.assert_allclose(loaded[STATES].encode_video(given), expected, atol=1e-5)


STILL = np.zeros((3, 8, 8, 3), np.uint8)
SURROGATE = "w1 \ud800"


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda p, v: p.encode_video(None), VideoError, "a NoneType is no video"),
        (lambda p, v: p.encode_video(3), VideoError, "a int is no video"),
        (lambda p, v: p.encode_video(b"a.mp4"), VideoError, "a bytes is no video"),
        (lambda p, v: p.encode_video((v, 0, 1)), VideoError, r"Meant VideoClip\('.*a.mp4', 0, 1\)\?"),
        (lambda p, v: p.encode_video([(v, 0, 1)]), VideoError, "of video 0.* Meant VideoClip"),
        (lambda p, v: p.encode_video(VideoClip(v, "0", "2")), VideoError, "'0' to '2': give seconds as numbers"),
        (lambda p, v: p.encode_video(VideoClip(v, None, 2)), VideoError, "from None to 2: give seconds"),
        (lambda p, v: p.encode_video(VideoClip(None, 0, 2)), VideoError, "a NoneType is no path"),
        (lambda p, v: p.encode_video(STILL, fps="30"), VideoError, "a number above 0 .it is '30'"),
        (lambda p, v: p.encode_video(np.zeros((2, 3, 4, 8, 8, 3))), VideoError, r"\(2, 3, 4, 8, 8, 3\).* as a list"),
        (lambda p, v: p.encode_video(np.zeros((2, 5, 512))), VideoError, r"\(2, 5, 512\), expected.* several videos"),
        (lambda p, v: p.encode_video(np.zeros((8, 8, 3))), VideoError, "goes to encode_image"),
        (lambda p, v: p.encode_video(np.zeros((8, 512), np.uint8)), VideoError, "goes to encode_image"),
        (lambda p, v: p.encode_video(np.zeros((5, 7))), VideoError, "7 wide features"),
        (lambda p, v: p.encode_image(np.zeros((8, 9), np.uint8)), DataError, r"\(8, 9\), expected .*grey one"),
        (lambda p, v: p.encode_image([np.zeros((8, 9, 4))]), DataError, r"\(8, 9, 4\), expected \(height, width, 3\)$"),
        (lambda p, v: p.encode_image(v), DataError, "picture 0"),
        (lambda p, v: p.encode_text(None), DataError, "a NoneType is no text"),
        (lambda p, v: p.encode_text(["w1", SURROGATE]), DataError, "text 1 has half of a character"),
        (lambda p, v: p.classify(FEATURES, None), DataError, "a NoneType is no label"),
        (lambda p, v: p.classify(FEATURES, ["w1"], templates=None), DataError, "a NoneType is no template"),
        (lambda p, v: p.classify(FEATURES, ["w1"], templates=[3]), DataError, "template 0 is a int"),
        (lambda p, v: p.classify(FEATURES, ["W1 ", "w1"]), DataError, "the label 'w1' is given more than once"),
        (lambda p, v: p.answer(FEATURES, "w3", ["w1", " W1"]), DataError, "the option 'W1' is given more than once"),
        (lambda p, v: p.answer(FEATURES, SURROGATE, ["w1", "w2"]), DataError, "question 0 has half"),
        (lambda p, v: p.answer(FEATURES, "w3", ["w1", "w2"], top=0), DataError, "top: 0"),
        (lambda p, v: p.classify(FEATURES, ["w1"], top=0), DataError, "top: 0"),
        (lambda p, v: p.retrieve("w1", [FEATURES], top=1.5), DataError, "top: 1.5"),
        (lambda p, v: p.retrieve("w1", np.full((2, p.dim), np.nan)), DataError, "vector 0 has values"),
        (lambda p, v: p.retrieve("w1", torch.zeros(2, 3)), DataError, r"\(2, 3\)"),
        *(
            (lambda p, v, call=call, size=size: call(p, size), DataError, f"batch_size: {size}")
            for size in (0, -1)
            for call in (
                lambda p, size: p.encode_video(FEATURES, batch_size=size),
                lambda p, size: p.encode_text("w1", batch_size=size),
                lambda p, size: p.encode_clips(FEATURES, 2, batch_size=size),
                lambda p, size: p.similarity("w1", FEATURES, batch_size=size),
                lambda p, size: p.classify(FEATURES, ["w1"], batch_size=size),
                lambda p, size: p.retrieve("w1", [FEATURES], batch_size=size),
            )
        ),
        (lambda p, v: p.segment(FEATURES, ["w1"], window_seconds="4"), DataError, "window_seconds: '4'"),
        (lambda p, v: p.segment(FEATURES, ["w1"], stride_seconds=-1), DataError, "stride_seconds: -1"),
        (lambda p, v: p.segment(FEATURES, ["w1"], stride_seconds=2), DataError, "unless window_seconds is given"),
        (lambda p, v: p.segment(FEATURES), DataError, "no classes of its own, so give labels"),
    ],
)
def test_a_mistake_is_named(call: Any, error: type[MMPTError], said: str, folder: Path, loaded: Any) -> None:
    with pytest.raises(error, match=said):
        call(loaded[STATES], str(folder / "a.mp4"))


def test_vectors_go_to_models_that_have_them(loaded: Any) -> None:
    with pytest.raises(DataError, match="has no vectors"):
        loaded[PAIRS].retrieve("w1", np.zeros((2, 8)))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"window_seconds": 4}, "window_seconds: of no effect"),
        ({"window_seconds": 0}, "window_seconds: 0"),
        ({"stride_seconds": 2.0}, "stride_seconds: of no effect"),
        ({"templates": ["a {}"]}, "templates: of no effect"),
    ],
)
def test_a_head_takes_no_windows_and_templates(more: Any, said: str, loaded: Any) -> None:
    with pytest.raises(DataError, match=said):
        loaded[HEAD].segment(FEATURES, list("abcde"), **more)
    assert loaded[HEAD].segment(FEATURES, list("abcde"), templates="{}").scores.shape == (5, 5)


def test_parts_of_features_that_are_rounded_are_told(loaded: Any, caplog: pytest.LogCaptureFixture) -> None:
    loaded[STATES].segment(FEATURES, ["w1"], window_seconds=2, stride_seconds=2)
    assert not caplog.records
    loaded[STATES].segment(FEATURES, ["w1"], window_seconds=2, stride_seconds=0.5)
    assert "stride_seconds 0.5: this model reads features of whole seconds" in caplog.text


@pytest.mark.parametrize(
    ("source", "more", "error", "said"),
    [
        ("", {}, CheckpointError, "'' names no model. Name the YAML"),
        (None, {}, CheckpointError, "None names no model"),
        ("x", {"overrides": "a.b=4"}, ConfigError, "overrides is a list of .* not 'a.b=4'"),
        ("x", {"overrides": [4]}, ConfigError, "overrides: 4 is no string"),
    ],
)
def test_a_source_is_named(source: Any, more: Any, error: type[MMPTError], said: str) -> None:
    with pytest.raises(error, match=said):
        VideoTextPipeline.from_pretrained(source, **more)


def test_one_picture_has_one_vector(loaded: Any) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    found = loaded[STATES].encode_image(picture)
    assert found.shape == (loaded[STATES].dim,)
    np.testing.assert_allclose(found, loaded[STATES].encode_image([picture])[0], atol=1e-5)


def test_a_question_that_is_cut_is_told_once(loaded: Any, caplog: pytest.LogCaptureFixture) -> None:
    one = loaded[STATES]
    before = one.comparer.texts.cut_questions.cut
    one.answer(FEATURES, "w1 w2", ["w3", "w4"])
    assert one.comparer.texts.cut_questions.cut == before and not caplog.records
    for _ in range(2):
        one.answer(FEATURES, "w1 " * 300, ["w3", "w4", "w5"])
    assert one.comparer.texts.cut_questions.cut == before + 2
    assert len([record for record in caplog.records if "questions cut" in record.getMessage()]) == 1
    assert isinstance(_JoinedTexts(one.comparer.texts, "w1").cut_questions.texts, int)


def test_top_of_options_is_what_is_asked_for(loaded: Any) -> None:
    options = [f"w{number}" for number in range(7)]
    found = loaded[STATES].answer(FEATURES, "w8", options)
    assert len(found) == 7
    assert loaded[STATES].answer(FEATURES, "w8", options, top=2) == found[:2]


@pytest.mark.parametrize("call", ["whole", "parts"])
@pytest.mark.parametrize("name", [STATES, PAIRS])
def test_what_is_wrong_with_a_file_is_an_error_of_that_video(name: str, call: str, folder: Path, loaded: Any) -> None:
    with pytest.raises(VideoError, match="broken"):
        if call == "whole":
            loaded[name].similarity(["w1"], [folder / "broken.mp4"])
        else:
            loaded[name].segment(folder / "broken.mp4", ["w1", "w2"])
    with pytest.raises(DataError) as caught:
        loaded[name].classify(folder / "broken.mp4", [])
    assert not isinstance(caught.value, VideoError)


def test_a_bar_of_the_videos_or_of_the_single_one(folder: Path, loaded: Any, monkeypatch: Any) -> None:
    shown = []

    def bar(given: Any, **options: Any) -> Any:
        if not options["disable"]:
            shown.append((options["desc"], options.get("total")))
        return given

    monkeypatch.setattr("mmpt.api.video_input.tqdm", bar)
    video = folder / "a.mp4"
    calls: list[Call] = [
        lambda one: one.classify(video, ["w1"], progress=True),
        lambda one: one.retrieve("w1", [video], progress=True),
        lambda one: one.segment(video, ["w1"], progress=True),
    ]
    for call in calls:
        call(loaded[STATES])
    assert shown == [("reading", 1)] * 3
    shown.clear()
    loaded[PAIRS].classify([video, video], ["w1"], progress=True)
    assert shown == [("videos", None)]
    assert not any(source.progress for source in each_source([video, video], None, True))
