"""Published frame files into a store and back: no byte changes, and no first frame is lost."""

import base64
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmpt.store.frame_export import export_tsv
from mmpt.store.frame_import import FrameImportOptions, import_frames
from mmpt.store.frame_rows import find_frame_column
from mmpt.store.frame_store import FrameStore
from mmpt.store.images import encode_jpeg
from mmpt.utils.errors import DataError


def jpeg(seed: int) -> bytes:
    return encode_jpeg(np.full((24, 32, 3), seed * 7 % 256, np.uint8))


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (seed, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


VIDEOS = {"video1": [jpeg(1), jpeg(2), jpeg(3)], "vidéo 2": [jpeg(4)], "c": [png(5), jpeg(6)], "d": [jpeg(7)] * 4}


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def row(video_id: str, images: list[bytes], meta: str | None = None) -> bytes:
    return "\t".join([video_id, *([] if meta is None else [meta]), *map(text, images)]).encode() + b"\n"


def violet(videos: dict[str, list[bytes]]) -> bytes:
    return b"".join(row(video_id, images) for video_id, images in videos.items())


def lavender(videos: dict[str, list[bytes]], meta: str = "{}") -> bytes:
    return b"".join(row(video_id, images, meta) for video_id, images in videos.items())


def stored(folder: Path) -> dict[str, list[bytes]]:
    store = FrameStore(folder)
    return {video_id: [frame.tobytes() for frame in store[video_id]] for video_id in store}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("column", [None, 1])
def test_a_tsv_of_violet(tmp_path: Path, column: int | None) -> None:
    file = write(tmp_path / "img.tsv", violet(VIDEOS))
    summary = import_frames([file], tmp_path / "out", FrameImportOptions(column, videos_per_shard=3))
    assert (summary.done, summary.skipped, summary.failed, summary.frames) == (4, 0, 0, 10)
    assert "frames from column 1 on" in summary.describe()
    assert stored(tmp_path / "out") == VIDEOS
    assert np.isnan(FrameStore(tmp_path / "out")["d"].seconds).all()
    again = import_frames([file], tmp_path / "out", FrameImportOptions(column))
    assert (again.done, again.skipped) == (0, 4)


@pytest.mark.parametrize("meta", ["{}", "", "video1", '{"width": 3}', "/9j"])
@pytest.mark.parametrize("column", [None, 2])
def test_a_tsv_of_lavender_keeps_its_first_frame(tmp_path: Path, column: int | None, meta: str) -> None:
    file = write(tmp_path / "img.tsv", lavender(VIDEOS, meta).replace(b"\n", b"\r\n"))
    summary = import_frames([file], tmp_path / "out", FrameImportOptions(column))
    assert "frames from column 2 on" in summary.describe()
    assert stored(tmp_path / "out") == VIDEOS


def test_the_wrong_layout_is_refused_and_not_read_without_the_first_frame(tmp_path: Path) -> None:
    file = write(tmp_path / "img.tsv", violet(VIDEOS))
    with pytest.raises(DataError, match="line 1: column 1 holds a frame, which would be lost"):
        import_frames([file], tmp_path / "out", FrameImportOptions(2))
    file = write(tmp_path / "img.tsv", lavender(VIDEOS))
    with pytest.raises(DataError, match="column 1 holds no JPEG or PNG"):
        import_frames([file], tmp_path / "out", FrameImportOptions(1))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("first", [violet, lavender])
def test_two_layouts_in_one_file_are_refused(tmp_path: Path, first) -> None:
    second = lavender if first is violet else violet
    few = write(tmp_path / "few.tsv", first(VIDEOS) + second({"x": [jpeg(1), jpeg(2)]}))
    with pytest.raises(DataError, match="line . has its first frame in column 1, .*line . in column 2"):
        import_frames([few], tmp_path / "out")
    many = {f"v{number}": [jpeg(number)] for number in range(30)}
    late = write(tmp_path / "late.tsv", first(many) + second({"x": [jpeg(1), jpeg(2)]}))
    if first is lavender:
        with pytest.raises(DataError, match=r"late.tsv, line 31: column 1 holds a frame, which would be lost"):
            import_frames([late], tmp_path / "late")
    else:  # could be damage as well, and nothing is lost but this row, which is told
        summary = import_frames([late], tmp_path / "late")
        assert (summary.done, [video for video, _ in summary.failures]) == (30, ["x"])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"a\tb\tc\n" * 3, "neither column 1 nor column 2 holds"), (b"only ids\n", "neither")],
)
def test_what_is_no_file_of_frames(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_frame_column(write(tmp_path / "x.tsv", content))


def test_damaged_rows_are_counted_with_line_and_reason(tmp_path: Path) -> None:
    cut = text(jpeg(1)[:-20])
    rows = {
        "cut": ["cut", text(jpeg(1)), cut],
        "letters": ["letters", text(jpeg(1)), "not base64!"],
        "none": ["none"],
        "gif": ["gif", text(b"GIF89a" + bytes(30))],
        "first": ["first", cut],
    }
    bad = "".join("\t".join(columns) + "\n" for columns in rows.values()).encode()
    content = bad + violet(VIDEOS) + b"\xff\xfe\t" + text(jpeg(1)).encode() + b"\n\t" + text(jpeg(1)).encode() + b"\n"
    file = write(tmp_path / "img.tsv", content)
    summary = import_frames([file], tmp_path / "out")
    assert stored(tmp_path / "out") == VIDEOS
    assert (summary.done, summary.failed) == (4, 7)
    reasons = dict(summary.failures)
    assert f"{file}, line 1: frame 1: a JPEG that is cut" in reasons["cut"]
    assert "line 2: frame 1: not base64" in reasons["letters"]
    assert "line 3: it has no frame" in reasons["none"]
    assert "line 4: frame 0: neither JPEG nor PNG" in reasons["gif"]
    assert "line 5: frame 0: a JPEG that is cut" in reasons["first"]
    assert all(summary.describe().count(f"{file}, line {line}") == 1 for line in (10, 11))  # once, as there is no id
    assert "is not UTF-8" in reasons[f"{file}, line 10"] and "has no id" in reasons[f"{file}, line 11"]
    entries = json.loads((tmp_path / "out" / "manifest.json").read_text())["videos"]
    assert entries["cut"]["status"] == "failed"
    write(file, violet({**VIDEOS, "cut": [jpeg(9)]}))
    assert import_frames([file], tmp_path / "out").done == 1
    entries = json.loads((tmp_path / "out" / "manifest.json").read_text())["videos"]
    assert entries["cut"]["status"] == "done"


def test_a_pickle(tmp_path: Path) -> None:
    content = {video_id: list(map(text, images)) for video_id, images in VIDEOS.items()}
    content |= {"raw": [jpeg(1)], "bytes": [text(jpeg(2)).encode()], "one": text(jpeg(3))}
    file = write(
        tmp_path / "img.pkl",
        pickle.dumps({**content, "bad": 3, 7: ["x"], "empty": [], 1.5: [text(jpeg(1))], 8: [text(jpeg(8))]}),
    )
    summary = import_frames([file], tmp_path / "out")
    assert stored(tmp_path / "out") == {
        **VIDEOS,
        "raw": [jpeg(1)],
        "bytes": [jpeg(2)],
        "one": [jpeg(3)],
        "8": [jpeg(8)],
    }
    assert {video for video, _ in summary.failures} == {"bad", "7", "empty", "1.5"}


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_pickle_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "img.pkl", pickle.dumps({"a": Evil()}))
    with pytest.raises(DataError, match="not executed"):
        import_frames([file], tmp_path / "out")
    assert not Path("executed").exists()


def test_parts_go_into_one_store_and_an_id_that_comes_twice_is_told(tmp_path: Path) -> None:
    names = list(VIDEOS)
    one = write(tmp_path / "1.tsv", violet({name: VIDEOS[name] for name in names[:2]}))
    two = write(tmp_path / "2.tsv", lavender({names[1]: [jpeg(9)], **{name: VIDEOS[name] for name in names[2:]}}))
    summary = import_frames([one, two], tmp_path / "out")
    assert stored(tmp_path / "out") == VIDEOS
    assert (names[1], f"{two}, line 1: the id comes twice; the first row counts") in summary.notes
    forced = import_frames([two], tmp_path / "out", FrameImportOptions(force=True))
    assert forced.done == 3
    assert stored(tmp_path / "out") == {**VIDEOS, names[1]: [jpeg(9)]}


def offsets(content: bytes) -> list[int]:
    lines = content.splitlines(keepends=True)
    return [sum(map(len, lines[:number])) for number in range(len(lines))]


def test_ids_of_an_index_count_and_its_rows_must_be_there(tmp_path: Path) -> None:
    paths = {f"videos/{name}.mp4": images for name, images in VIDEOS.items()}
    file = write(tmp_path / "img_x.tsv", lavender(paths))
    index = dict(zip(VIDEOS, offsets(lavender(paths)), strict=True))
    del index["c"]
    write(tmp_path / "img_x.id2lineidx.pkl", pickle.dumps({**index, "gone": 10**6}))
    summary = import_frames([file], tmp_path / "out")
    assert stored(tmp_path / "out") == {name: VIDEOS[name] for name in VIDEOS if name != "c"}
    assert [video for video, _ in summary.failures] == ["gone"]
    assert (str(file), "1 rows that its .id2lineidx.pkl does not name") in summary.notes
    (tmp_path / "img_x.id2lineidx.pkl").unlink()
    import_frames([file], tmp_path / "stems", FrameImportOptions(id_is_path=True))
    assert stored(tmp_path / "stems") == VIDEOS
    with pytest.raises(DataError, match="an index of rows holds no frames"):
        import_frames([tmp_path / "img_x.id2lineidx.pkl"], tmp_path / "out")
    write(tmp_path / "other.pkl", pickle.dumps(index))
    with pytest.raises(DataError, match="holds the offsets of rows"):
        import_frames([tmp_path / "other.pkl"], tmp_path / "out")


def test_a_file_that_is_shorter_than_its_lineidx_has_failures(tmp_path: Path) -> None:
    content = violet(VIDEOS)
    write(tmp_path / "img.lineidx", "".join(f"{offset}\n" for offset in offsets(content)).encode())
    file = write(tmp_path / "img.tsv", content[: offsets(content)[2] + 30])
    summary = import_frames([file], tmp_path / "out")
    assert (summary.done, summary.failed) == (2, 2)
    assert "the file has fewer" in summary.describe()


@pytest.mark.parametrize("layout", ["violet", "lavender"])
def test_round_trips_change_no_byte(tmp_path: Path, layout: str) -> None:
    content = violet(VIDEOS) if layout == "violet" else b"".join(row(name, VIDEOS[name], name) for name in VIDEOS)
    import_frames([write(tmp_path / "in.tsv", content)], tmp_path / "out", FrameImportOptions(videos_per_shard=3))
    target = tmp_path / "new" / "img.tsv"
    assert export_tsv(FrameStore(tmp_path / "out"), target, layout) == 4
    assert target.read_bytes() == content
    lines = list(map(int, target.with_suffix(".lineidx").read_text().splitlines()))
    assert lines == offsets(content)
    index = target.with_suffix(".id2lineidx.pkl")
    if layout == "lavender":
        assert pickle.loads(index.read_bytes()) == dict(zip(VIDEOS, lines, strict=True))
    assert index.exists() == (layout == "lavender")
    import_frames([target], tmp_path / "again")
    assert stored(tmp_path / "again") == VIDEOS


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    import_frames([write(tmp_path / "in.tsv", violet(VIDEOS))], tmp_path / "out")
    store = FrameStore(tmp_path / "out")
    assert export_tsv(store, tmp_path / "two.tsv", "violet", ["d", "c"]) == 2
    assert (tmp_path / "two.tsv").read_bytes() == violet({name: VIDEOS[name] for name in "dc"})
    for ids, message in ((["d", "d"], "listed twice"), (["vido1"], "Did you mean 'video1'")):
        with pytest.raises(DataError, match=message):
            export_tsv(store, tmp_path / "x.tsv", "violet", ids)
    with pytest.raises(DataError, match=r"name of a \.tsv"):
        export_tsv(store, tmp_path / "x.txt")
    write(tmp_path / "tabs.pkl", pickle.dumps({"a\tb": [text(jpeg(1))]}))
    import_frames([tmp_path / "tabs.pkl"], tmp_path / "tabs")
    with pytest.raises(DataError, match="cannot stand in a TSV"):
        export_tsv(FrameStore(tmp_path / "tabs"), tmp_path / "x.tsv")
    assert not (tmp_path / "x.tsv").exists()
