"""VIST, VCR and TVQA in their authors' files become a store and a file of questions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.store.drawn_objects import DrawnObject, draw_objects, hashed_colour, person_colour
from mmpt.store.frame_store import open_frames
from mmpt.store.images import decode_image, encode_jpeg
from mmpt.store.segment_store import open_segments
from mmpt.store.tvqa_annotations import WINDOW_SECONDS, tvqa_items, window_starts
from mmpt.store.vcr_annotations import object_names, vcr_items, written
from mmpt.utils.errors import DataError
from mmpt.utils.files import write_json
from scripts.segment_importer.import_annotations import main
from scripts.tiny_data.tfrecord_files import picture
from tests.store.sound_samples import write_sound_video


def run(folder: Path, corpus: str, *more: str) -> int:
    files = {"annotations": "a.json", "images": "images", "store": "store", "questions": "q.jsonl"}
    paths = [f"--{name}={folder / value}" for name, value in files.items()]
    return main(["--corpus", corpus, "--quiet", *paths, *more])


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "q.jsonl").read_text().splitlines()]


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def stories(folder: Path) -> list[list[dict[str, Any]]]:
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(5):
        size = (900, 36) if number == 4 else (64, 36)
        (folder / f"images/{number}.jpg").write_bytes(picture(rng, size[1], size[0]))
    keys = ("story_id", "photo_flickr_id", "worker_arranged_photo_order", "original_text")
    return [[dict(zip(keys, ("7", str(n), 4 - n, f"Sentence {n}."), strict=True))] for n in range(5)]


def test_stories_are_put_in_their_order(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"annotations": stories(tmp_path)})
    assert run(tmp_path, "vist") == 0
    [line] = lines(tmp_path)
    assert line["sentences"] == [f"Sentence {number}." for number in (4, 3, 2, 1, 0)]
    frames = open_frames(tmp_path / "store")["7"]
    assert decode_image(frames[0]).shape == (32, 800, 3)  # made smaller
    assert frames[1].tobytes() == (tmp_path / "images/3.jpg").read_bytes()


@pytest.mark.parametrize("fault", ["missing", "damaged", "four", "order"])
def test_a_wrong_story_is_named(tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = stories(tmp_path)
    whole = [[{**one[0], "story_id": "8"}] for one in annotations]
    if fault == "missing":
        (tmp_path / "images/9.jpg").write_bytes((tmp_path / "images/3.jpg").read_bytes())
        annotations[3][0]["photo_flickr_id"] = "nowhere"
    elif fault == "damaged":
        (tmp_path / "images/9.jpg").write_bytes(b"no image")
        annotations[3][0]["photo_flickr_id"] = "9"
    elif fault == "four":
        del annotations[3]
    else:
        annotations[3][0]["worker_arranged_photo_order"] = "third"
    write_json(tmp_path / "a.json", {"annotations": [*annotations, *whole]})
    assert run(tmp_path, "vist") == 1
    assert "story 7" in capsys.readouterr().out and [line["id"] for line in lines(tmp_path)] == ["8"]


def test_words_of_vcr() -> None:
    assert (
        written(["Is", [0, 2], "here", ",", "too", "?"], ["Alex", "x", "the dog"], "")
        == "Is Alex and the dog here, too?"
    )
    assert written(["She", "does", "n't", "see", [0], "'s", "(", "old", ")", "car", "."], ["Lee"], "") == (
        "She doesn't see Lee's (old) car."
    )
    for wrong in ([3], [-1], [], ["a"], 5):
        with pytest.raises(DataError, match="neither a word nor numbers of 3 objects"):
            written([wrong], ["a", "b", "c"], "here")  # type: ignore[list-item]


def test_names_of_objects() -> None:
    objects = ["person", "dog", "person", "car", "car"]
    assert object_names(objects, "reserve") == ["Person 1", "the dog", "Person 2", "Car 1", "Car 2"]
    merlot = object_names([*objects, *["person"] * 60], "merlot")
    assert merlot[1] == "dog" and merlot[3:5] == ["car", "car"] and merlot[0] != merlot[2]
    assert merlot[5] == merlot[55] and len({*merlot}) == 50 + 2


def test_objects_are_drawn_where_they_are() -> None:
    image = np.full((60, 80, 3), 100, np.uint8)
    shape = DrawnObject((10, 10, 50, 40), [[(10, 10), (50, 10), (50, 40), (10, 40)]], (255, 0, 0))
    drawn, boxed = draw_objects(image, [shape], boxes=False), draw_objects(image, [shape], boxes=True)
    assert drawn[10, 30].tolist() == boxed[10, 30].tolist() == [255, 0, 0]
    assert drawn[25, 30].tolist() == pytest.approx([100 + 0.15 * 155, 85, 85], abs=1)  # 15 % of the colour
    assert boxed[25, 30].tolist() == drawn[55, 70].tolist() == [100, 100, 100]
    assert (drawn[7:14, 30] == (255, 0, 0)).all() and drawn[15, 30, 0] < 200  # seven pixels
    assert person_colour(0) == person_colour(11) != person_colour(1) and person_colour(None) not in map(
        person_colour, range(40)
    )
    assert hashed_colour("the dog") == hashed_colour("the dog") != hashed_colour("the cat")
    with pytest.raises(DataError, match="2 corners"):
        draw_objects(image, [DrawnObject((0, 0, 1, 1), [[(0, 0), (1, 1)]], (0, 0, 0))], boxes=False)


def reasoning(folder: Path) -> list[dict[str, Any]]:
    (folder / "images").mkdir()
    (folder / "images/1.jpg").write_bytes(encode_jpeg(np.full((60, 80, 3), 100, np.uint8)))
    square = [[[5, 5], [30, 5], [30, 30], [5, 30]]]
    write_json(folder / "images/1.json", {"boxes": [[5, 5, 30, 30, 0.9], [40, 5, 70, 30, 0.9]], "segms": [square, []]})
    record: dict[str, Any] = {"annot_id": "val-0", "img_id": "val-0", "img_fn": "1.jpg", "metadata_fn": "1.json"}
    record |= {"objects": ["person", "dog"], "question": ["Who", "is", [0], "?"], "answer_label": 2}
    record |= {"answer_choices": [[[0], f"is{n}", "."] for n in range(4)], "rationale_label": 1}
    record |= {"rationale_choices": [[[1], f"r{n}", "."] for n in range(4)]}
    return [{**record, "annot_id": f"val-{number}"} for number in range(2)]


def test_vcr_for_merlot(tmp_path: Path) -> None:
    """Texts begin with a space, and an image shows the objects that its texts mention."""
    write_lines(tmp_path / "a.json", reasoning(tmp_path))
    assert run(tmp_path, "vcr") == 0
    line, name = lines(tmp_path)[0], object_names(["person"], "merlot")[0]
    assert line["answer"] == {
        "context": f" Who is {name}?",
        "choices": [f" {name} is{number}." for number in range(4)],
        "label": 2,
    }
    assert line["rationale"]["contexts"][3] == f" Who is {name}? {name} is3."
    assert line["rationale"]["choices"][1] == " dog r1." and line["rationale"]["label"] == 1
    store = open_frames(tmp_path / "store")
    answer, reason = (decode_image(store[line["image"][kind]][0]).astype(int) for kind in ("answer", "rationale"))
    flat = np.abs(answer[:, 45:] - 100).max() < 12  # the dog is not drawn
    assert flat and np.abs(reason[5, 40:70] - 100).max() > 60 and np.abs(answer[5, 8:28] - 100).max() > 60


def test_vcr_for_reserve(tmp_path: Path) -> None:
    """All objects are drawn, questions share an image, and the mirror image mirrors pixels and boxes."""
    write_lines(tmp_path / "a.json", reasoning(tmp_path))
    assert run(tmp_path, "vcr", "--style=reserve", "--mirrored") == 0
    first, second = lines(tmp_path)
    assert first["image"] == second["image"] == {"answer": "val-0", "rationale": "val-0", "flipped": "val-0/flipped"}
    assert first["answer"]["context"] == "Who is the person?"
    assert first["rationale"]["contexts"][1] == "Who is the person? Answer: the person is1."
    store = open_frames(tmp_path / "store")
    image, mirror = (decode_image(store[name][0]).astype(int) for name in ("val-0", "val-0/flipped"))
    assert np.abs(image[:, ::-1] - mirror).mean() < 4 and np.abs(image - mirror).mean() > 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"img_fn": "absent.jpg"}, "absent.jpg: cannot be read"),
        ({"img_fn": "../a.json"}, "is not the name of a file below"),
        ({"metadata_fn": "absent.json"}, "no such file"),
        ({"objects": ["person"]}, "not boxes and segms of 1 objects"),
        ({"answer_choices": [["a"]] * 3}, "answer_choices: expected 4 lists of words"),
        ({"answer_label": 4}, "answer_label: 4 is none of 4 choices"),
        ({"question": ["Who", [7]]}, "neither a word nor numbers"),
        ({"annot_id": 7}, "is no id"),
    ],
)
def test_a_wrong_question_of_vcr_is_named(
    tmp_path: Path, change: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = reasoning(tmp_path)
    if "objects" in change:
        change = {**change, "rationale_choices": [["a"]] * 4}
    write_lines(tmp_path / "a.json", [first | change, second])
    assert run(tmp_path, "vcr") == 1
    assert told in capsys.readouterr().out and len(lines(tmp_path)) == 1


def test_outlines_must_be_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = reasoning(tmp_path)
    for name, outlines in (("2.json", [None, []]), ("3.json", [[None], []])):
        write_json(tmp_path / "images" / name, {"boxes": [[5, 5, 30, 30]] * 2, "segms": outlines})
    changed = [first | {"metadata_fn": "2.json"}, first | {"annot_id": "x", "metadata_fn": "3.json"}]
    write_lines(tmp_path / "a.json", [*changed, second])
    assert run(tmp_path, "vcr") == 1 and len(lines(tmp_path)) == 1
    assert capsys.readouterr().out.count("is no list of polygons") == 2


@pytest.mark.parametrize("style", ["merlot", "reserve"])
def test_images_are_drawn_once(tmp_path: Path, style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions of Reserve share one; a second run draws none."""
    write_lines(tmp_path / "a.json", reasoning(tmp_path))
    drawn: list[Any] = []

    def counted(*given: Any, **named: Any) -> np.ndarray:
        drawn.append(given)
        return draw_objects(*given, **named)

    monkeypatch.setattr("mmpt.store.vcr_annotations.draw_objects", counted)
    for _ in range(2):
        assert run(tmp_path, "vcr", f"--style={style}") == 0
        assert len(drawn) == (1 if style == "reserve" else 4)


@pytest.mark.parametrize("changed", [["--style=reserve"], ["--boxes"]])
def test_images_of_another_kind_are_refused(
    tmp_path: Path, changed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path / "a.json", reasoning(tmp_path))
    assert run(tmp_path, "vcr") == 0 and run(tmp_path, "vcr") == 0
    assert run(tmp_path, "vcr", *changed) == 2
    assert "made with other settings" in capsys.readouterr().err


def test_mirrored_and_sound_are_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vcr").mkdir()
    write_lines(tmp_path / "vcr/a.json", reasoning(tmp_path / "vcr"))
    assert run(tmp_path / "vcr", "vcr", "--style=reserve") == 0
    assert run(tmp_path / "vcr", "vcr", "--style=reserve", "--mirrored") == 2
    assert "(mirrored False, now True)" in capsys.readouterr().err
    write_lines(tmp_path / "a.json", clips(tmp_path, False))
    assert run(tmp_path, "tvqa", f"--subtitles={tmp_path / 'subs.jsonl'}") == 0
    assert run(tmp_path, "tvqa", f"--subtitles={tmp_path / 'subs.jsonl'}", f"--sound={tmp_path}") == 2
    assert "(sound False, now True)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("corpus", "options"),
    [
        ("vcr", ["--style=reserve", "--boxes"]),
        ("vcr", ["--mirrored"]),
        ("vcr", ["--sound=s"]),
        ("vist", ["--subtitles=s"]),
        ("tvqa", ["--style=merlot"]),
    ],
)
def test_options_without_effect_are_refused(
    tmp_path: Path, corpus: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, corpus, *options) == 2
    assert f"{options[-1].partition('=')[0]}: of no effect" in capsys.readouterr().err
    with pytest.raises(DataError, match="--mirrored: of no effect with --style merlot"):
        next(vcr_items(tmp_path / "a.json", tmp_path, "merlot", mirrored=True))


def test_failures_that_the_report_has_no_room_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An import keeps no manifest, and its report names none."""
    annotations = stories(tmp_path)
    broken = [[{**one[0], "story_id": f"x{k}", "photo_flickr_id": "absent"}] for k in range(25) for one in annotations]
    write_json(tmp_path / "a.json", {"annotations": annotations + broken})
    assert run(tmp_path, "vist") == 1
    told = capsys.readouterr().out
    assert "failed: 5 more; without --quiet each is told as it happens" in told and "manifest" not in told


def test_windows_of_tvqa() -> None:
    """Seven around the middle, in steps of 4 2/3 s; at the edges of a clip more on the other side."""
    starts = window_starts(28.0, 32.0, 60.0)
    assert len(starts) == 7 and starts[3] == pytest.approx(30 - WINDOW_SECONDS / 2)
    np.testing.assert_allclose(np.diff(starts), WINDOW_SECONDS, atol=0.34)
    assert window_starts(0.0, 2.0, 60.0)[0] == pytest.approx(1 - WINDOW_SECONDS / 2)
    early = window_starts(0.0, 2.0, 60.0)
    assert len(early) == 7 and early[0] + WINDOW_SECONDS > 0
    assert len(window_starts(1.0, 4.0, 6.0)) < 7


def clips(folder: Path, sound: bool) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    frames = folder / "images/show_frames/clip"
    frames.mkdir(parents=True)
    for number in range(1, 47):  # 15 seconds
        (frames / f"{number:05d}.jpg").write_bytes(picture(rng))
    said = [{"text": "hello\nthere", "start": 6.0, "end": 8.0}, {"text": "bye", "start": 14.5, "end": 15.0}]
    write_lines(folder / "subs.jsonl", [{"vid_name": "clip", "sub": said}])
    if sound:
        (folder / "sound").mkdir()
        write_sound_video(folder / "sound/clip.mp4", 15)
    asked = {"qid": 12, "q": "Who speaks?", "ts": "6-8", "vid_name": "clip", "answer_idx": 3}
    return [{**asked, "qid": 12 + number, **{f"a{option}": f"A{option}" for option in range(5)}} for number in range(2)]


@pytest.mark.parametrize("sound", [False, True])
def test_tvqa(tmp_path: Path, sound: bool) -> None:
    if sound:
        pytest.importorskip("av")
    write_lines(tmp_path / "a.json", clips(tmp_path, sound))
    more = [f"--sound={tmp_path / 'sound'}"] if sound else []
    assert run(tmp_path, "tvqa", f"--subtitles={tmp_path / 'subs.jsonl'}", *more) == 0
    line = lines(tmp_path)[0]
    starts = window_starts(6.0, 8.0, 15.0)
    assert line["id"] == "000012~clip" and line["frames"] == len(starts) < 7 and line["answer"] == 3
    middle = next(n for n, start in enumerate(starts) if start <= 7 < start + WINDOW_SECONDS)
    assert line["subtitles"][middle] == "hello there" and len(line["subtitles"]) == 7
    length = starts[-1] + WINDOW_SECONDS - starts[0]
    assert line["span"] == f"{int(100 * (6 - starts[0]) / length)} to {int(100 * (8 - starts[0]) / length)}"
    segments = open_segments(tmp_path / "store")["000012~clip"]
    number = round((starts[middle] + WINDOW_SECONDS / 2) * 3) + 1
    assert segments.image(middle).tobytes() == (tmp_path / f"images/show_frames/clip/{number:05d}.jpg").read_bytes()
    loud = segments.spectrogram(middle)
    assert loud.shape == (188, 64) and (loud.max() > 1) == sound and not loud[180:].any()


@pytest.mark.parametrize(
    ("spoken_of", "duration", "expected"),
    [("0-90", 90.0, "0 to 100"), ("44-46", 90.0, "46 to 53"), ("0-1", 90.0, "5 to 8"), ("89-90", 90.0, "91 to 94")],
)
def test_the_span_is_a_share_of_what_is_seen(
    tmp_path: Path, spoken_of: str, duration: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question about more than the seven windows is about all of them: never less than 0 or more than 100."""
    frames = tmp_path / "images/clip"
    frames.mkdir(parents=True)
    for number in (1, int(duration * 3) + 1):
        (frames / f"{number:05d}.jpg").touch()
    write_lines(tmp_path / "subs.jsonl", [{"vid_name": "clip", "sub": []}])
    asked = {"qid": 1, "q": "Who?", "ts": spoken_of, "vid_name": "clip", **{f"a{n}": "A" for n in range(5)}}
    write_lines(tmp_path / "a.json", [asked])
    [(_, read)] = tvqa_items(tmp_path / "a.json", tmp_path / "images", tmp_path / "subs.jsonl")
    assert read().line["span"] == expected


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"a4": None}, "5 answers a0"),
        ({"answer_idx": 5}, "answer_idx: 5 is none of 5"),
        ({"ts": "later"}, "is not start-end in seconds"),
        ({"vid_name": "other"}, "no folder with its frames"),
        ({"qid": "x"}, "is no number"),
    ],
)
def test_a_wrong_question_of_tvqa_is_named(
    tmp_path: Path, change: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = clips(tmp_path, False)
    write_lines(tmp_path / "a.json", [first | change, second])
    assert run(tmp_path, "tvqa", f"--subtitles={tmp_path / 'subs.jsonl'}") == 1
    assert told in capsys.readouterr().out
    assert run(tmp_path, "tvqa") == 2  # no subtitles
