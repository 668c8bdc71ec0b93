"""The records of VIST, VCR and TVQA become a store and a file of questions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.store.frame_store import open_frames
from mmpt.store.segment_store import open_segments
from mmpt.store.tfrecord_questions import import_questions
from mmpt.store.video_shards_writer import VideoShardsWriter
from mmpt.utils.errors import DataError, StorageError
from scripts.segment_importer.import_tfrecords import main
from scripts.tiny_data.tfrecord_files import write_layout


def imported(tmp_path: Path, layout: str, *more: str) -> tuple[list[dict], list[dict]]:
    """Import records by the command; return what was written into them, and the lines."""
    records, lines = tmp_path / "a.tfrecord", tmp_path / "q.jsonl"
    written = write_layout(records, layout)
    arguments = ["--layout", layout, "--input", str(records), "--store", str(tmp_path / "s"), "--questions", str(lines)]
    assert main([*arguments, "--quiet", *more]) == 0
    return written, [json.loads(line) for line in lines.read_text().splitlines()]


def test_vist(tmp_path: Path) -> None:
    written, lines = imported(tmp_path, "vist")
    assert [line["id"] for line in lines] == ["story0", "story1", "story2", "story3"]
    assert lines[2]["sentences"] == [written[2][f"sentence/sentence_{number}"] for number in range(5)]
    frames = open_frames(tmp_path / "s")[lines[2]["images"]]
    assert [image.tobytes() for image in frames] == [written[2][f"image/image_{number}_encoded"] for number in range(5)]


@pytest.mark.parametrize("drawing", ["segm", "bbox"])
def test_merlot_vcr(tmp_path: Path, drawing: str) -> None:
    written, lines = imported(tmp_path, "merlot_vcr", "--drawing", drawing)
    line, record, store = lines[1], written[1], open_frames(tmp_path / "s")
    assert line["answer"] == {
        "context": record["answer/ctx"],
        "choices": [record[f"answer/choice_{number}"] for number in range(4)],
        "label": record["label/answer_label"],
    }
    assert line["rationale"]["contexts"] == [record["rationale/ctx"]]
    for kind in ("answer", "rationale"):
        assert store[line["image"][kind]][0].tobytes() == record[f"{kind}/{drawing}/image/encoded"]


def test_reserve_vcr(tmp_path: Path) -> None:
    written, lines = imported(tmp_path, "reserve_vcr")
    line, record, store = lines[0], written[0], open_frames(tmp_path / "s")
    assert line["image"] == {"answer": "val-0", "rationale": "val-0", "flipped": "val-0/flipped"}
    assert store["val-0/flipped"][0].tobytes() == record["image_fliplr"]
    assert line["rationale"]["label"] == record["qar_label"] and line["answer"]["context"] == record["qa_query"]


def test_tvqa(tmp_path: Path) -> None:
    written, lines = imported(tmp_path, "tvqa")
    line, record = lines[1], written[1]
    assert line["id"] == "000001~clip1" and line["frames"] == 6 and line["answer"] == record["qa_label"]
    assert line["query"] == record["qa_query"]
    assert line["subtitles"] == [record[f"c{number:02d}/sub"] for number in range(7)]
    segments = open_segments(tmp_path / "s")[line["segments"]]
    spectrogram = segments.spectrogram(2)
    assert len(segments) == 7 and spectrogram.shape == (188, 64)
    assert not spectrogram[180:].any() and np.isfinite(spectrogram).all() and spectrogram[:180].max() <= 255 / 30 + 0.01


@pytest.mark.parametrize(
    ("layout", "change", "told"),
    [
        ("vist", {"image/image_3_is_valid": 0}, "story story0: image 3 is missing"),
        ("vist", {"permutation_identity_encode": 943210}, "943210 says that the images are not in their true order"),
        ("vist", {"image/image_3_encoded": None}, "no feature 'image/image_3_encoded'"),
        ("merlot_vcr", {"answer/choice_3": None}, "no feature 'answer/choice_3'"),
        ("merlot_vcr", {"answer/choice_4": [5]}, "more than 4"),
        ("merlot_vcr", {"label/answer_label": 4}, "4 is none of 4 choices"),
        ("reserve_vcr", {"image": b"x"}, "neither JPEG nor PNG"),
        ("tvqa", {"num_frames": 8}, "8 is not 1 to 7"),
        ("tvqa", {"qa_label": -2}, "-2 is none of 5 choices"),
        ("tvqa", {"id": "000001~clip1"}, "comes twice"),
    ],
)
def test_a_wrong_record_is_counted(tmp_path: Path, layout: str, change: dict, told: str) -> None:
    write_layout(tmp_path / "a.tfrecord", layout, 3, changes=[change])
    summary = import_questions([tmp_path / "a.tfrecord"], tmp_path / "s", tmp_path / "q", layout, progress=False)
    assert summary.done == 2 and len((tmp_path / "q").read_text().splitlines()) == 2
    [(_, reason)] = summary.failures
    assert told in reason


@pytest.mark.parametrize(
    ("layout", "kind"), [("vist", "merlot"), ("merlot_vcr", "merlot"), ("reserve_vcr", "reserve"), ("tvqa", "reserve")]
)
def test_lines_say_whose_ids_they_hold(tmp_path: Path, layout: str, kind: str) -> None:
    _, lines = imported(tmp_path, layout)
    assert {line["tokenizer"] for line in lines} == {kind}
    texts = {f"sentence/sentence_{number}": "a dog" for number in range(5)}
    write_layout(tmp_path / "a.tfrecord", "vist", 1, changes=[texts])
    import_questions([tmp_path / "a.tfrecord"], tmp_path / "t", tmp_path / "q", "vist", progress=False)
    assert "tokenizer" not in json.loads((tmp_path / "q").read_text())


def test_unknown_labels_are_null(tmp_path: Path) -> None:
    write_layout(tmp_path / "a.tfrecord", "reserve_vcr", 1, changes=[{"qa_label": None}])
    import_questions([tmp_path / "a.tfrecord"], tmp_path / "s", tmp_path / "q", "reserve_vcr", progress=False)
    assert json.loads((tmp_path / "q").read_text())["answer"]["label"] is None


def test_a_second_run_keeps_the_images(tmp_path: Path) -> None:
    for _ in range(2):
        write_layout(tmp_path / "a.tfrecord", "vist", 2)
        summary = import_questions([tmp_path / "a.tfrecord"], tmp_path / "s", tmp_path / "q", "vist", progress=False)
    assert (summary.done, summary.skipped, summary.frames) == (0, 2, 0) and "skipped 2" in summary.describe()


def test_what_is_stored_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_layout(tmp_path / "a.tfrecord", "tvqa", 2)
    arguments: tuple[Any, ...] = [tmp_path / "a.tfrecord"], tmp_path / "s", tmp_path / "q", "tvqa"
    import_questions(*arguments, progress=False)
    lines = (tmp_path / "q").read_text()

    def read(*_: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr("mmpt.store.tfrecord_questions._tvqa_segments", read)
    with pytest.raises(InterruptedError):
        import_questions(*arguments, progress=False, force=True)
    assert import_questions(*arguments, progress=False).skipped == 2 and (tmp_path / "q").read_text() == lines


def test_other_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The images would stay those of the first run."""
    imported(tmp_path, "merlot_vcr")
    before = open_frames(tmp_path / "s")["val-0/answer"][0].tobytes()
    arguments = ["--layout", "merlot_vcr", "--input", str(tmp_path / "a.tfrecord"), "--store", str(tmp_path / "s")]
    arguments += ["--questions", str(tmp_path / "q.jsonl"), "--quiet"]
    for more in ([], ["--force"]):
        assert main([*arguments, "--drawing", "bbox", *more]) == 2
        assert "made with other settings (drawing 'segm', now 'bbox')" in capsys.readouterr().err
    assert main(arguments) == 0 and open_frames(tmp_path / "s")["val-0/answer"][0].tobytes() == before


def test_questions_appear_with_their_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_layout(tmp_path / "a.tfrecord", "vist", 2)

    def full(self: VideoShardsWriter) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(VideoShardsWriter, "close_shard", full)
    with pytest.raises(StorageError, match="disk full"):
        import_questions([tmp_path / "a.tfrecord"], tmp_path / "s", tmp_path / "q", "vist", progress=False)
    assert not (tmp_path / "q").exists() and not (tmp_path / "s/frames.json").exists()


def test_a_shard_may_hold_fewer(tmp_path: Path) -> None:
    imported(tmp_path, "vist", "--videos-per-shard", "1")
    assert len(list((tmp_path / "s").glob("shard_*.frames_index.json"))) == 4


@pytest.mark.parametrize(
    ("layout", "option"), [("vist", "--drawing=bbox"), ("merlot", "--random-text=t"), ("tvqa", "--videos-per-shard=0")]
)
def test_options_without_effect_are_refused(
    tmp_path: Path, layout: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--layout", layout, "--input", "a", "--store", str(tmp_path / "s"), option]) == 2
    assert option.partition("=")[0] in capsys.readouterr().err


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write_layout(path, "vist", 1)
    assert main(["--layout", "vist", "--input", str(path), "--store", str(tmp_path / "s"), "--quiet"]) == 2
    with pytest.raises(DataError, match="none of vist"):
        import_questions([path], tmp_path / "s", tmp_path / "q", "vistt", progress=False)
    with pytest.raises(DataError, match="neither segm nor bbox"):
        import_questions([path], tmp_path / "s", tmp_path / "q", "vist", progress=False, drawing="box")
    with pytest.raises(DataError, match="no question could be used"):
        import_questions([path], tmp_path / "s", tmp_path / "q", "tvqa", progress=False)
    assert not (tmp_path / "q").exists()
