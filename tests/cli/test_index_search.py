"""mmpt index and mmpt search on real tiny videos, with a model that sees colours."""

import base64
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from mmpt.api.outputs import ClipVectors
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.store.frames_at_times import frames_at_times
from mmpt.store.images import decode_image, encode_jpeg
from mmpt.utils.errors import MMPTError
from mmpt_cli import index as index_command
from mmpt_cli import search as search_command

sys.path.append(str(Path(__file__).parents[1] / "store"))
from test_decode import colour, coloured, indexes, write_video

pytest.importorskip("av")


def seen(pixels):
    return (pixels.reshape(-1, 3).mean(0) - 128).astype(np.float32)


class Colours:
    """Vectors are mean colours; a text is the number of a colour."""

    source, system, dim, calls = __file__, "VideoCLIP", 3, frozenset({"index"})

    def fingerprint(self):
        return "colours"

    def encode_clips(self, video, clip_seconds, stride_seconds=None, batch_size=32):
        starts = np.arange(0, video.duration - 1e-6, stride_seconds)
        frames = list(video.pictures((starts + 0.1).tolist()))
        return ClipVectors(starts, starts + clip_seconds, np.stack([seen(frame) for frame in frames]))

    def encode_text(self, text, batch_size=64):
        return seen(np.array(colour(int(text))))

    def encode_video(self, clip, **_):
        return seen(frames_at_times(clip.path, [clip.start])[0])

    def encode_image(self, images):
        return np.stack([seen(image) for image in images])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", [picture for k in (3, 12, 48) for picture in coloured(10, first=k)[:1] * 10], fps=5)
    (folder / "sub").mkdir()
    write_video(folder / "sub" / "b.mp4", coloured(1, first=51) * 4, fps=5)  # shorter than a clip
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(autouse=True)
def _colours(monkeypatch):
    monkeypatch.setattr(VideoTextPipeline, "from_pretrained", lambda source, **_: Colours())


def run(capsys, command, *arguments):
    code = command.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_commands(tmp_path, videos, capsys):
    out = tmp_path / "index"
    making = (videos, "--model", "colours", "--output", out, "--clip-seconds", 2, "--stride-seconds", 2)
    code, said, wrong = run(capsys, index_command, *making)
    assert code == 1 and said.startswith("added 2,") and "broken.mp4" in said and "33% of the videos failed" in wrong
    code, said, _ = run(capsys, index_command, *making, "--json", "--max-failed", 0.5)
    assert code == 0 and json.loads(said)["unchanged"] == 2
    code, said, _ = run(capsys, index_command, out, "--info", "--json")
    assert (json.loads(said)["clips"], json.loads(said)["videos"], json.loads(said)["failed"]) == (4, 2, 1)
    assert run(capsys, index_command, out, "--verify")[0] == 0
    assert run(capsys, index_command, out, "--compact")[0] == 0

    code, said, _ = run(capsys, search_command, out, "12", "--top", 2)
    assert code == 0
    assert re.fullmatch(r"  1   1\.000  00:02\.0-00:04\.0  .*/a\.mp4", said.splitlines()[0])
    pictures, page = tmp_path / "pictures", tmp_path / "found.html"
    code, said, _ = run(
        capsys, search_command, out, "--clip", f"{videos}/a.mp4@4.5-5", "--json", "--thumbnails", pictures,
        "--html", page,
    )  # fmt: skip
    document = json.loads(said)
    assert (document["index"], document["model"]) == (str(out), Colours.source)
    assert document["query"] == {"clip": f"{videos}/a.mp4@4.5-5"}
    best = document["results"][0]
    assert (best["rank"], best["video"], best["start"], best["end"]) == (1, str(videos / "a.mp4"), 4, 6)
    # the pictures are of the seconds that are told
    assert indexes(decode_image((pictures / "01.jpg").read_bytes())[None]) == [48]
    shown = [base64.b64decode(found) for found in re.findall(r"base64,([^\"]+)", page.read_text())]
    assert len(shown) == 4 and indexes(decode_image(shown[0])[None]) == [48]
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(encode_jpeg(coloured(1, first=51)[0]))
    code, said, _ = run(capsys, search_command, out, "--image", picture, "--json")
    assert json.loads(said)["results"][0]["video"] == str(videos / "sub" / "b.mp4")


def test_mistakes_are_told(tmp_path, videos, capsys):
    assert run(capsys, search_command, tmp_path, "red")[0] == 2
    assert run(capsys, search_command, tmp_path)[0] == 2
    assert "--model and --output" in run(capsys, index_command, videos)[2]
    assert "goes with one index" in run(capsys, index_command, videos, "--info", "--output", "x")[2]
    code, _, wrong = run(capsys, index_command, tmp_path / "absent", "--model", "m", "--output", tmp_path / "i")
    assert code == 2 and "no such folder" in wrong


def test_parts_of_videos():
    assert search_command.clip_of("a@b.mp4@3-8.5") == ("a@b.mp4", 3, 8.5)
    assert search_command.clip_of("a.mp4") == ("a.mp4", 0, None)
    for text in ("a.mp4@8-3", "a.mp4@3", "a.mp4@x-y", "a.mp4@-1-2"):
        with pytest.raises(MMPTError, match="such as one.mp4@3-8"):
            search_command.clip_of(text)
