"""Stretches of videos: where they lie, what is stored of them, and that the model hears and sees the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.api.merlot_reserve import PretrainedMerlotReserve
from mmpt.api.reserve_video_segments import video_to_segments_zero_shot
from mmpt.api.reserve_windows import anticipation_items, anticipation_windows, question_windows
from mmpt.models.reserve import ReservePretraining
from mmpt.modules.reserve_tokens import MASK
from mmpt.store.images import decode_image
from mmpt.store.segment_store import open_segments
from mmpt.store.spectrogram import mel_blocks
from mmpt.store.video_list import VideoItem
from mmpt.utils.errors import DataError
from mmpt.utils.files import write_json
from scripts.segment_importer.cut_windows import main
from scripts.tiny_data.subword_files import write_reserve_tokenizer
from tests.evaluators.downstream_tests import build
from tests.store.sound_samples import write_sound_video

pytest.importorskip("av")


@pytest.mark.parametrize(
    ("duration", "seconds", "expected"),
    [
        (9.0, 3.0, [(0, 3), (3, 6), (6, 9)]),
        (10.0, 3.0, [(0.5, 3.5), (3.5, 6.5), (6.5, 9.5)]),
        (2.0, 3.0, [(0, 2)]),
    ],
)
def test_questions_are_about_the_middle(duration: float, seconds: float, expected: list[Any]) -> None:
    np.testing.assert_allclose(question_windows(duration, seconds), expected)
    with pytest.raises(DataError):
        question_windows(0.0)


def test_what_is_seen_before_an_action() -> None:
    windows = anticipation_windows(20.5)
    assert len(windows) == 8 and windows[0] == (3.5, 5.5) and windows[-1] == (17.5, 19.5)
    assert anticipation_windows(40.0, 5, 6)[0] == (9.0, 14.0)
    assert anticipation_windows(4.5) == [(0.0, 1.5), (1.5, 3.5)]
    assert anticipation_windows(1.0) == []


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_sound_video(folder / "loud.mp4", 10)
    write_sound_video(folder / "silent.mp4", 7, sound=None)
    return folder


def test_videos_into_a_store(videos: Path, tmp_path: Path) -> None:
    arguments = ["--videos", str(videos), "--store", str(tmp_path / "s"), "--quiet"]
    assert main(arguments) == 0
    store = open_segments(tmp_path / "s")
    assert sorted(store.ids) == ["loud", "silent"]
    loud, silent = store["loud"], store["silent"]
    assert (len(loud), len(silent)) == (3, 2)
    assert not silent.spectrogram(0).any() and loud.spectrogram(1).max() > 1
    cut = video_to_segments_zero_shot(videos / "loud.mp4", times=[tuple(pair) for pair in loud.times.tolist()])
    for number, segment in enumerate(cut):
        blocks = mel_blocks(loud.spectrogram(number).astype(np.float32), 1)
        np.testing.assert_allclose(blocks, segment["spectrogram"], atol=5e-3)
        assert np.abs(decode_image(loud.image(number)).astype(int) - segment["frame"]).mean() < 3
    assert main(arguments) == 0 and len(open_segments(tmp_path / "s")) == 2  # nothing is done twice


def test_actions_into_a_store(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "val.csv").write_text(
        "narration_id,video_id,start_timestamp\na1,loud,00:00:08.00\na2,loud,00:00:00.50\na3,absent,00:00:08.00\n"
    )
    arguments = ["--videos", str(videos), "--before", str(tmp_path / "val.csv"), "--store", str(tmp_path / "s")]
    assert main([*arguments, "--quiet"]) == 1  # stretches of 2 seconds
    told = capsys.readouterr()
    assert "nothing to be seen before" in told.out and "no video 'absent'" in told.out and "67%" in told.err
    store = open_segments(tmp_path / "s")
    assert store.ids == ["a1"] and store["a1"].times[-1].tolist() == [5, 7] and len(store["a1"]) == 4
    assert main([*arguments, "--number", "0", "--quiet"]) == 2


def test_other_stretches_need_another_store(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "val.csv").write_text("narration_id,video_id,start_timestamp\na1,silent,00:00:06.00\n")
    arguments = ["--videos", str(videos), "--before", str(tmp_path / "val.csv"), "--store", str(tmp_path / "s")]
    assert main([*arguments, "--quiet"]) == 0
    for name, before, now in (("seconds", "2.0", "1.0"), ("number", "8", "3"), ("gap", "1.0", "0.5")):
        assert main([*arguments, f"--{name}", now, "--quiet"]) == 2
        assert f"made with other settings ({name} {before}, now {now})" in capsys.readouterr().err
    for option in ("--number=8", "--gap=1"):
        assert main(["--videos", str(videos), "--store", str(tmp_path / "t"), option]) == 2
        assert "of no effect without --before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("narration_id,video_id\n1,a\n", "no column 'start_timestamp'"),
        ("narration_id,video_id,start_timestamp\n1,a,7.5\n", "is no time"),
        ("narration_id,video_id,start_timestamp\n", "lists no actions"),
    ],
)
def test_wrong_lists(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "val.csv").write_text(content)
    with pytest.raises(DataError, match=told):
        anticipation_items(tmp_path / "val.csv", [VideoItem("a", "a.mp4")])


def test_the_model_reads_what_the_api_reads(videos: Path, tmp_path: Path) -> None:
    """The state at the gap is that of the published calls on the same segments."""
    assert main(["--videos", str(videos / "loud.mp4"), "--store", str(tmp_path / "s"), "--quiet"]) == 0
    asked = [{"video": "loud", "question": "it is a<|MASK|>", "answer": "cat"}]
    write_json(tmp_path / "txt.json", {"train": asked, "test": asked})
    tokenizer = str(write_reserve_tokenizer(tmp_path / "subwords.json"))
    paths = {key: str(tmp_path / "txt.json") for key in ("train_path", "test_path")}
    parts = {"meta_processor": "ClozeMetaProcessor", "video_processor": "WholeSegmentsVideoProcessor"}
    parts |= {"text_processor": "SubwordTextProcessor", "aligner": "ClozeAligner", "split": "test"}
    own = {"segment_path": str(tmp_path / "s"), "tokenizer": tokenizer, "image_grid": [2, 4]}
    task, model = build("ReserveCloze", {**paths, **parts, **own})
    assert task.test_data is not None
    item = {key: value[None] for key, value in task.test_data[0].items() if isinstance(value, torch.Tensor)}
    names = ("caps", "cmasks", "segments", "vfeats", "vmasks", "audio_pointers", "audio_clips")
    with torch.no_grad():
        found = model.mask_vectors(**{name: item[name] for name in names})[0]
    other = ReservePretraining(task.config)
    other.load_state_dict(model.state_dict())
    published = PretrainedMerlotReserve(other.eval(), (2, 4), tokenizer)
    stored = open_segments(tmp_path / "s")["loud"]
    segments: list[dict[str, Any]] = [
        {"frame": decode_image(stored.image(k)), "spectrogram": mel_blocks(stored.spectrogram(k).astype(np.float32), 1)}
        for k in range(3)
    ]
    segments[2]["text"] = "it is a<|MASK|>"
    inputs = published.preprocess_video(segments)
    states = published.embed_video(**inputs)[inputs["tokens"] == MASK]
    torch.testing.assert_close(found, states[0], atol=5e-3, rtol=0)
    assert float(found @ states[0]) > 0.999
