"""An index of clips: what is in it after runs, kills and damage, and what a query finds."""

import json
import os
import signal
import time

import numpy as np
import pytest
from fake_clips import DIM, FakePipeline, directions, write

from mmpt.api.search import ClipIndex, index_folder, nearest
from mmpt.api.search.snapshot import Snapshot
from mmpt.api.search.writer import compact, repair, writing_index
from mmpt.store.extraction_manifest import Manifest
from mmpt.utils.errors import DataError, MMPTError, UnsafePathError
from mmpt_cli import index as index_command


def run(videos, out, pipeline=None, **options):
    return index_folder(
        pipeline or FakePipeline(), videos, out, clip_seconds=4, thumbnail_pixels=0, workers=1, **options
    )


def held(out):
    """All that an index holds: path -> vectors, checked to be of unit length."""
    snapshot = Snapshot(out)
    assert list(snapshot.damaged()) == []
    found = {}
    for video in snapshot.videos:
        found[video.key.partition(":")[2]] = vectors = snapshot.vectors[video.span].astype(np.float32)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    return found


def wanted(**videos):
    return {
        name: vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for name, content in videos.items()
        for vectors in [directions(content.split()[0], int(content.split()[1]))]
    }


def same(found, expected):
    expected = {name + ".mp4": value for name, value in expected.items()}
    assert sorted(found) == sorted(expected)
    for name, vectors in expected.items():
        assert np.allclose(found[name], vectors, atol=2e-3), name


def test_what_changed_is_done_again_and_nothing_else(tmp_path):
    videos, out = write(tmp_path / "v", a="red 3", b="blue 2", c="green 1"), tmp_path / "index"
    pipeline = FakePipeline()
    summary = run(videos, out, pipeline)
    assert (summary.added, summary.videos, summary.clips) == (3, 3, 6)
    assert run(videos, out, pipeline).unchanged == 3
    assert pipeline.encoded == ["a.mp4", "b.mp4", "c.mp4"]
    write(videos, b="violet 5")
    os.utime(videos / "a.mp4", (1, 1))  # touched only
    (videos / "c.mp4").rename(videos / "moved.mp4")
    write(videos, bad="broken")
    summary = run(videos, out, pipeline)
    assert (summary.unchanged, summary.replaced, summary.moved, summary.removed) == (1, 1, 1, 0)
    assert [(os.path.basename(path), reason.endswith("no frame can be decoded")) for path, reason in summary.failures]
    assert summary.failed_fraction == 1 / 4
    same(held(out), wanted(a="red 3", b="violet 5", moved="green 1"))
    assert pipeline.encoded[3:] == ["b.mp4", "bad.mp4"]
    (videos / "a.mp4").unlink()
    assert run(videos, out, pipeline).removed == 1
    same(held(out), wanted(b="violet 5", moved="green 1"))


def test_compaction_keeps_what_is_there(tmp_path):
    videos, out = write(tmp_path / "v", a="red 3", b="blue 2"), tmp_path / "index"
    run(videos, out)
    (videos / "a.mp4").unlink()
    old = Snapshot(out)
    run(videos, out)  # more than half is gone: compacted
    assert sorted(path.name for path in out.iterdir()) == ["data_00001", "index.json"]
    assert len(Snapshot(out).vectors) == 2 and len(old.vectors[:]) == 5
    assert np.isfinite(old.vectors).all()
    before = held(out)
    write(videos, c="green 4")
    run(videos, out)
    assert compact(out) == 0
    same(held(out), wanted(b="blue 2", c="green 4"))
    assert np.array_equal(held(out)["b.mp4"], before["b.mp4"])


def test_hits_are_right(tmp_path):
    videos, out = write(tmp_path / "v", a="red 3", sub__b="blue 9"), tmp_path / "index"
    run(videos, out)
    index = ClipIndex.open(out, FakePipeline())
    best = index.search("red")[0]
    assert best.video == str(videos / "a.mp4") and best.score == pytest.approx(1, abs=2e-3)
    assert (best.start, best.end) == (0, 4) and best.thumbnail() is None
    assert index.search(clip=(str(videos / "sub/b.mp4"), 0, 4))[0].video.endswith("sub/b.mp4")
    vector = directions("blue", 9)[5]
    hit = index.search(vector=vector, merge=False, top=1)[0]
    assert (hit.video, hit.start, hit.end) == (str(videos / "sub/b.mp4"), 10, 14)
    every = index.search(vector=vector, merge=False, top=100)
    assert len(every) == 12 == len(index)
    assert [hit.score for hit in every] == sorted((hit.score for hit in every), reverse=True)
    assert len(index.search(vector=vector, merge=False, per_video=1)) == 2
    merged = index.search(vector=vector, top=100)
    for hit in merged:
        others = [other for other in merged if other is not hit and other.video == hit.video]
        assert all(hit.end <= other.start or other.end <= hit.start for other in others)
    assert all(hit.score >= 0.5 for hit in index.search(vector=vector, min_score=0.5))
    assert index.search(image=np.full((4, 4, 3), 7, np.uint8), top=3)
    with pytest.raises(DataError, match="needs one of"):
        index.search("red", vector=vector)
    with pytest.raises(DataError, match="width 8"):
        index.search(vector=np.ones(3))


def test_no_clip_and_no_video(tmp_path):
    with pytest.raises(DataError, match="no videos"):
        run(write(tmp_path / "v"), tmp_path / "index")
    summary = run(write(tmp_path / "v", a="red 0"), tmp_path / "index")
    assert (summary.videos, summary.clips) == (1, 0)
    assert ClipIndex.open(tmp_path / "index", FakePipeline()).search("red") == []


def test_another_model_and_other_settings_are_refused(tmp_path):
    videos, out = write(tmp_path / "v", a="red 3"), tmp_path / "index"
    run(videos, out)
    with pytest.raises(DataError, match="fingerprint 'fingerprint-one', now 'fingerprint-two'"):
        run(videos, out, FakePipeline("two"))
    with pytest.raises(DataError, match="stride_seconds 2.0, now 1.0"):
        run(videos, out, stride_seconds=1)
    with pytest.raises(DataError, match="their vectors do not compare"):
        ClipIndex.open(out, FakePipeline("two"))


def test_one_writer_and_readers_beside_it(tmp_path):
    videos, out = write(tmp_path / "v", a="red 3"), tmp_path / "index"
    run(videos, out)
    reader = ClipIndex.open(out, FakePipeline())
    with writing_index(out) as writer:
        with pytest.raises(DataError, match="another run is writing there"):
            run(videos, out)
        writer.add("0:b.mp4", np.zeros(1), np.ones(1), directions("blue"), [], {})
        assert len(reader) == 3 and len(ClipIndex.open(out)) == 4
        assert reader.search("red")[0].score > 0.99
    reader.refresh()
    assert len(reader) == 4


def test_a_moved_root_and_names_that_lead_out(tmp_path):
    videos, out = write(tmp_path / "v", a="red 3"), tmp_path / "index"
    run(videos, out)
    videos.rename(tmp_path / "w")
    index = ClipIndex.open(out, FakePipeline(), roots=[tmp_path / "w"])
    assert index.search("red")[0].video == str(tmp_path / "w" / "a.mp4")
    with pytest.raises(DataError, match="has 1 roots"):
        ClipIndex.open(out, roots=["a", "b"])
    manifest = out / "data_00000" / "manifest.json"
    for name in ("../../etc/secret.mp4", "/etc/secret.mp4", "passwd"):
        manifest.write_text(manifest.read_text().replace('"0:a.mp4"', f'"0:{name}"'))
        with pytest.raises(UnsafePathError):
            ClipIndex.open(out, FakePipeline()).search("red")
        manifest.write_text(manifest.read_text().replace(f'"0:{name}"', '"0:a.mp4"'))
    manifest.write_text(manifest.read_text().replace('"0:a.mp4"', '"7:a.mp4"'))
    with pytest.raises(DataError, match="is not a video below one of 1 roots"):
        ClipIndex.open(out)


@pytest.mark.parametrize("name", ["vectors.f16", "clips.bin"])
def test_damage_is_found_and_mended(tmp_path, name):
    videos, out = write(tmp_path / "v", a="red 3", b="blue 2"), tmp_path / "index"
    run(videos, out)
    path = out / "data_00000" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert list(Snapshot(out).damaged()) == ["0:b.mp4"]
    with pytest.raises(DataError, match="damaged"):
        compact(out)
    path.write_bytes(content[:-20])
    for call in (Snapshot, run_there):
        with pytest.raises(DataError, match=f"was cut. Mend it with: mmpt index {out} --repair"):
            call(out)
    assert repair(out) == (["0:b.mp4"], "none")
    same(held(out), wanted(a="red 3"))
    summary = run(videos, out)
    assert (summary.unchanged, summary.added) == (1, 1)
    same(held(out), wanted(a="red 3", b="blue 2"))
    assert repair(out) == ([], "none")


def run_there(out):
    return run(out.parent / "v", out)


def test_a_flipped_byte_of_the_faiss_index_is_found_and_mended(tmp_path, monkeypatch, capsys):
    pytest.importorskip("faiss")
    monkeypatch.setattr(nearest, "EXACT_UP_TO", 100)
    videos, out = write(tmp_path / "v", a="red 200", b="blue 300"), tmp_path / "index"
    run(videos, out)
    path = out / "data_00000" / "nearest.faiss"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    assert index_command.main([str(out), "--verify", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out) == {"videos": 2, "damaged": [], "unreadable": [], "faiss_index": "damaged"}
    assert f"mmpt index {out} --repair" in told.err
    assert index_command.main([str(out), "--repair", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": [], "faiss_index_was": "damaged"}
    assert path.read_bytes() == whole and index_command.main([str(out), "--verify"]) == 0


def kill_at(step, call):
    """Run a call in a child that kills itself at the given step of what touches the disk; tell whether it was."""
    if (child := os.fork()) == 0:
        counted = 0

        def die_in_time(function):
            def replaced(*arguments, **options):
                nonlocal counted
                counted += 1
                if counted == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return replaced

        os.fsync, os.replace, os.unlink = map(die_in_time, (os.fsync, os.replace, os.unlink))
        Manifest._append = die_in_time(Manifest._append)
        try:
            call()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_kill_at_any_step_loses_nothing_that_was_committed(tmp_path):
    videos = write(tmp_path / "v", a="red 3", b="blue 2", c="green 4")
    before, expected = wanted(a="red 3", b="blue 2", c="green 4"), wanted(a="red 1", c="green 4", d="violet 5")
    for step in range(1, 60):
        videos = write(tmp_path / f"v{step}", a="red 3", b="blue 2", c="green 4")
        out = tmp_path / f"index{step}"
        run(videos, out)
        write(videos, a="red 1", d="violet 5")
        (videos / "b.mp4").unlink()
        killed = kill_at(step, lambda videos=videos, out=out: (run(videos, out), compact(out)))
        found = held(out)  # whatever it was, what is there is whole
        for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4"):
            options = [side[name[0]] for side in (before, expected) if name[0] in side]
            absent_ok = name[0] in "bd"
            assert (name in found) or absent_ok
            if name in found:
                vectors = found[name]
                assert any(v.shape == vectors.shape and np.allclose(v, vectors, atol=2e-3) for v in options)
        run(videos, out)
        same(held(out), expected)
        if not killed:
            break
    assert 15 < step < 59


def test_many_clips_have_a_faiss_index_also_after_a_compaction(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(nearest, "EXACT_UP_TO", 100)
    videos, out = write(tmp_path / "v", a="red 200", b="blue 300", c="tan 20"), tmp_path / "index"
    run(videos, out)
    assert ClipIndex.open(out).nearest.indexed == 520
    (videos / "b.mp4").unlink()
    run(videos, out)
    index = ClipIndex.open(out, FakePipeline())
    assert (index.settings.data, len(index), index.nearest.indexed) == ("data_00001", 220, 220)
    hit = index.search(vector=directions("tan", 20)[7], merge=False)[0]
    assert (hit.video, hit.start) == (str(videos / "c.mp4"), 14)
    (out / "data_00001" / "nearest.faiss").unlink()
    write(videos, d="grey 1")
    run(videos, out)
    assert ClipIndex.open(out).nearest.indexed == 221


def test_threads_and_several_folders(tmp_path):
    one, two, out = (
        write(tmp_path / "one", a="red 3", s__b="tan 2"),
        write(tmp_path / "two", a="blue 2"),
        tmp_path / "i",
    )
    (two / "link.mp4").symlink_to(write(tmp_path / "out", x="red 1") / "x.mp4")
    told = []
    options = {"workers": 2, "on_progress": lambda *step: told.append(step[:2])}
    summary = index_folder(FakePipeline(), [one, two], out, thumbnail_pixels=40, **options)  # no video: no thumbnails
    assert (summary.added, summary.clips, told[-1]) == (3, 7, (4, 4))
    ((failed, reason),) = summary.failures
    assert failed.endswith("link.mp4") and "leads out" in reason
    assert sorted(video.key for video in Snapshot(out).videos) == ["0:a.mp4", "0:s/b.mp4", "1:a.mp4"]
    (one / "s/b.mp4").rename(one / "s/c.mp4")
    write(one, a="grey 1")
    summary = index_folder(FakePipeline(), one / "s", out, thumbnail_pixels=40)  # the rest is not looked at
    assert (summary.moved, summary.added, summary.replaced, summary.removed, summary.unchanged) == (1, 0, 0, 0, 0)
    with pytest.raises(DataError, match="is indexed by itself"):
        index_folder(FakePipeline(), tmp_path, out, thumbnail_pixels=40)


def test_thumbnails_outlive_a_compaction(tmp_path):
    videos, out = write(tmp_path / "v", a="red 2"), tmp_path / "index"
    run(videos, out)
    with writing_index(out) as writer:
        writer.add("0:b.mp4", np.zeros(2), np.ones(2), directions("blue", 2), [b"first", b"second"], {})
    reader = Snapshot(out)
    with writing_index(out) as writer:
        writer.remove("0:a.mp4")
    assert compact(out) == 2
    assert [reader.thumbnail(row) for row in range(4)] == [None, None, b"first", b"second"]
    assert [Snapshot(out).thumbnail(row) for row in range(2)] == [b"first", b"second"]


def test_the_clock_goes_on(tmp_path):
    """A file that changed without changing its size is seen by its time."""
    videos, out = write(tmp_path / "v", a="red 3"), tmp_path / "index"
    run(videos, out)
    write(videos, a="tan 3")
    os.utime(videos / "a.mp4", ns=(time.time_ns(), time.time_ns() + 10**9))
    assert run(videos, out).replaced == 1
    same(held(out), wanted(a="tan 3"))


def test_errors_are_for_users(tmp_path):
    with pytest.raises(MMPTError, match="no index of clips"):
        ClipIndex.open(tmp_path)
    assert DIM == 8
