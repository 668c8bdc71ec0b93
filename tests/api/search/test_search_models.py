"""Indexing and searching small files with a tiny model of every system that has vectors."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mmpt.api import VideoTextPipeline
from mmpt.api.outputs import VideoClip
from mmpt.api.search import ClipIndex, index_folder
from mmpt.store.frames_at_times import frames_at_times
from mmpt.store.images import decode_image
from mmpt.utils.errors import DataError
from mmpt_cli import index as index_command
from mmpt_cli import search as search_command
from tests.api.tiny_models import write_model, write_video

pytest.importorskip("av")

WITH_VECTORS = ["MMFusionSeparate", "MMFusionJoint", "MERLOTPretraining", "ReservePretraining"]
TEXTS = ["w5 w6", "w7 w3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "videos" / "below").mkdir(parents=True)
    write_video(folder / "videos" / "a.mp4", 6.0, 0, sound=False)
    write_video(folder / "videos" / "below" / "b.mp4", 9.5, 1, sound=False)
    return folder


@pytest.fixture(scope="module", params=WITH_VECTORS)
def indexed(request, folder):
    """A pipeline, and an index of the folder's videos."""
    pipeline = VideoTextPipeline.from_pretrained(write_model(folder, request.param), device="cpu")
    out = folder / f"index_{request.param}"
    summary = index_folder(pipeline, folder / "videos", out)
    assert (summary.added, summary.videos, summary.failures) == (2, 2, [])
    return ClipIndex.open(out, pipeline)


def units(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_a_clip_finds_itself(indexed, folder):
    for name, start in (("a.mp4", 2.0), ("below/b.mp4", 4.0)):
        path = str(folder / "videos" / name)
        hits = indexed.search(clip=(path, start, start + 4), merge=False, top=100)
        (own,) = [hit for hit in hits if (hit.video, hit.start, hit.end) == (path, start, start + 4)]
        assert own.score == pytest.approx(1, abs=2e-3)  # stored as float16
        vectors = indexed.pipeline.encode_clips(path, 4, 2).vectors[int(start) // 2]
        np.testing.assert_allclose(indexed.snapshot.vectors[own.row], units(vectors), atol=1e-3)
        alike = [hit for hit in hits if hit.score > 0.995]  # with random weights, as all clips may be
        assert own in alike and (len(alike) > 1 or hits[0] == own)
    spans = {(hit.video, hit.start, hit.end) for hit in indexed.search(TEXTS[0], merge=False, top=100)}
    times = {"a.mp4": [(0, 4), (2, 6)], "below/b.mp4": [(0, 4), (2, 6), (4, 8)]}
    wanted = {(str(folder / "videos" / name), *span) for name in times for span in times[name]}
    assert spans - wanted == {next(iter(spans - wanted))} and wanted < spans
    ((_, start, end),) = spans - wanted
    assert start == 6 and end in (9.5, 10)  # systems of features have seconds, the last of which may be begun


def test_texts_rank_as_the_models_own_scores_do(indexed):
    for text in TEXTS:
        hits = indexed.search(text, merge=False, top=100)
        clips = [VideoClip(hit.video, hit.start, min(hit.end, 9.5)) for hit in hits]
        vectors = indexed.pipeline.encode_video(clips)
        scores = indexed.pipeline.similarity(text, clips)[0]
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(indexed.pipeline.encode_text(text))
        np.testing.assert_allclose([hit.score for hit in hits], scores / lengths, atol=3e-3)


def test_a_picture_is_a_video_that_stands_still(indexed, folder):
    picture = np.full((48, 64, 3), 90, np.uint8)
    hits = indexed.search(image=picture, merge=False, top=3)
    vectors = indexed.pipeline.encode_clips(hits[0].video, 4, 2)
    row = vectors.starts.tolist().index(hits[0].start)
    cosine = units(vectors.vectors[row]) @ units(indexed.pipeline.encode_image([picture])[0])
    assert hits[0].score == pytest.approx(cosine, abs=3e-3)


def test_thumbnails_are_of_the_middle(indexed, folder):
    """Pictures change every frame, so that a thumbnail of elsewhere would differ; the last clip has any near it."""
    for hit in indexed.search(TEXTS[0], merge=False, top=100):
        found = np.asarray(Image.open(io.BytesIO(hit.thumbnail()))).astype(float)
        assert found.shape == (48, 64, 3)  # never enlarged
        times = np.arange(max(hit.start, (hit.start + hit.end) / 2 - 1), min(hit.end, 9.4), 0.125)
        near = [np.abs(found[:, 30:] - frame[:, 30:]).mean() for frame in frames_at_times(hit.video, times.tolist())]
        distance = abs(times[int(np.argmin(near))] - (hit.start + hit.end) / 2)
        assert min(near) < 3 and distance <= 1


def test_two_at_a_time_are_what_one_is(indexed, folder, tmp_path):
    index_folder(indexed.pipeline, folder / "videos", tmp_path / "i", workers=1)
    one, two = ClipIndex.open(tmp_path / "i").snapshot, indexed.snapshot
    assert [video.key for video in one.videos] == [video.key for video in two.videos]
    assert np.array_equal(one.vectors, two.vectors) and np.array_equal(one.clips, two.clips)


def test_what_was_taken_out_for_damage_is_encoded_again(indexed, folder, tmp_path, capsys):
    out = tmp_path / "i"
    shutil.copytree(indexed.folder, out)
    pictures = out / "data_00000" / "thumbnails.bin"
    content = pictures.read_bytes()
    pictures.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert index_command.main([str(out), "--verify"]) == 1 and "0:a.mp4" in capsys.readouterr().out
    assert index_command.main([str(out), "--repair"]) == 0
    summary = index_folder(indexed.pipeline, folder / "videos", out)
    assert (summary.added, summary.unchanged) == (1, 1)
    hit = ClipIndex.open(out, indexed.pipeline).search(clip=(str(folder / "videos/a.mp4"), 0, 4), merge=False)[0]
    assert hit.score == pytest.approx(1, abs=2e-3) and decode_image(hit.thumbnail()).shape == (48, 64, 3)


def test_commands(folder, tmp_path, capsys, caplog, monkeypatch):
    model, videos, out = write_model(tmp_path, "MMFusionSeparate"), tmp_path / "videos", tmp_path / "index"
    shutil.copytree(folder / "videos", videos)
    (videos / "bad.mp4").write_bytes(b"no video")
    monkeypatch.chdir(tmp_path)
    assert index_command.main(["videos", "--model", model.name, "--output", "index", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["clips"] == 6 and "33% of the videos failed" in told.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # the model is found from any folder
    page = tmp_path / "found.html"
    query = [str(out), "--clip", f"{videos}/a.mp4@2-6"]
    assert search_command.main([*query, "--json", "--html", str(page), "--thumbnails", str(tmp_path / "t")]) == 0
    told = json.loads(capsys.readouterr().out)["results"]
    assert told[0]["rank"] == 1 and told[0]["video"] == str(videos / "a.mp4") and told[0]["start"] <= 2
    assert page.read_text().count("<img") == len(told) == len(list((tmp_path / "t").glob("*.jpg")))
    assert f"{(videos / 'a.mp4').as_uri()}#t={told[0]['start']:g}," in page.read_text()
    videos.rename(tmp_path / "moved")
    assert search_command.main([str(out), TEXTS[0]]) == 0
    assert f"{videos} is not there any more" in caplog.text and capsys.readouterr().out
    caplog.clear()
    assert search_command.main([str(out), TEXTS[0], "--root", str(tmp_path / "moved"), "--top", "1"]) == 0
    told = capsys.readouterr()
    assert str(tmp_path / "moved") in told.out and not told.err and not caplog.text
    model.rename(tmp_path / "model")
    assert search_command.main([str(out), TEXTS[0]]) == 2
    assert "Say where it is now: --model" in capsys.readouterr().err
    assert search_command.main([str(out), TEXTS[0], "--model", str(tmp_path / "model")]) == 0
    other = write_model(tmp_path, "MMFusionJoint")
    assert search_command.main([str(out), TEXTS[0], "--model", str(other)]) == 2
    assert "their vectors do not compare" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["VIOLETRetrieval", "LAVENDER"])
def test_models_without_vectors_are_refused(name, folder, tmp_path, capsys):
    model = write_model(tmp_path, name)
    assert index_command.main([str(folder / "videos"), "--model", str(model), "--output", str(tmp_path / "i")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {model}") and "VideoCLIP" in error
    assert not (tmp_path / "i").exists()


def test_a_model_that_is_gone_is_said(indexed, tmp_path):
    out = tmp_path / "i"
    shutil.copytree(indexed.folder, out)
    settings = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps(settings | {"model": "/no/model"}))
    with pytest.raises(DataError, match="was made with cannot be loaded"):
        ClipIndex.open(out).search("w5")
