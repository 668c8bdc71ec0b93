"""Images, segments and videos as the published demo prepares them."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from mmpt.api.reserve_preprocess import (
    extract_frames_from_video,
    load_tokenizer,
    make_spectrogram,
    preprocess_image_to_patches,
    preprocess_video,
)
from mmpt.utils.errors import DataError
from mmpt.utils.files import REPOSITORY

ROOT = next((one / "shared/goldens/reserve" for one in REPOSITORY.parents if (one / "shared/goldens").is_dir()), None)


class Listed:
    """Stands for the published tokenizer on the texts that are used here."""

    texts = {"in this video i'll be<|MASK|>": [226, 246, 571, 187, 424, 238, 3], "hello there": [1678, 303]}

    def encode(self, text: str) -> list[int]:
        return self.texts[text]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(REPOSITORY / "tests/data/reserve_patches.npz") as file:
        return dict(file)


@pytest.mark.parametrize(("name", "grid"), [("wide", (4, 6)), ("tall", (4, 6)), ("sq", (4, 4))])
def test_patches_are_the_published_ones(golden, name: str, grid: tuple[int, int]) -> None:
    image, wanted = golden[f"img/{name}/in"], torch.from_numpy(golden[f"img/{name}/patches_{grid[0]}x{grid[1]}"])
    for given in (image, torch.from_numpy(image), Image.fromarray(image), image.astype(np.float32) / 255):
        torch.testing.assert_close(preprocess_image_to_patches(given, grid), wanted, atol=2e-3, rtol=0)


def test_an_image_is_fitted_and_the_rest_is_black() -> None:
    patches = preprocess_image_to_patches(np.full((10, 40, 3), 255, np.uint8), (2, 4))
    assert torch.equal(patches[:4], torch.ones(4, 768))
    assert not patches[4:].any()
    with pytest.raises(DataError, match=r"shape \(10, 40\)"):
        preprocess_image_to_patches(np.zeros((10, 40), np.uint8))


def segments(golden) -> list[dict]:
    frames, spectrogram = [golden[f"img/{name}/in"] for name in ("wide", "sq", "wide")], golden["spec/out"]
    made = [{"frame": frame, "spectrogram": spectrogram} for frame in frames]
    made[0] |= {"text": "in this video i'll be<|MASK|>", "use_text_as_input": True}
    made[2] |= {"text": "hello there"}
    return made


def assert_published(golden, tokenizer) -> None:
    video = preprocess_video(segments(golden), (4, 6), tokenizer=tokenizer)
    for name, tolerance in (("images", 2e-3), ("audio_clips", 1e-6)):
        torch.testing.assert_close(video[name], torch.from_numpy(golden[f"video/{name}"]), atol=tolerance, rtol=0)
    for name in ("tokens", "subseg_idxs"):
        assert video[name].tolist() == golden[f"video/{name}"].tolist()


def test_a_video_is_the_published_one(golden) -> None:
    assert_published(golden, Listed())


@pytest.mark.skipif(ROOT is None, reason="the published tokenizer is not here")
def test_a_video_is_the_published_one_with_the_published_tokenizer(golden) -> None:
    pytest.importorskip("mmpt.utils.subwords")
    assert_published(golden, str(ROOT / "lowercase_encoder.json"))


def test_text_may_stand_aside_and_silence_has_no_tokens(golden, caplog) -> None:
    made = segments(golden)
    made[0]["use_text_as_input"] = False
    with caplog.at_level(logging.INFO):
        heard = preprocess_video(made, (2, 4), verbose=True, tokenizer=Listed())
    assert heard["tokens"][:38].tolist() == [5] * 36 + [1678, 303]
    assert heard["subseg_idxs"][:19].tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [3]
    assert "segment 2: text 'hello there'" in caplog.text
    silent = preprocess_video([{"frame": one["frame"], "spectrogram": None} for one in made], (2, 4))
    assert silent["audio_clips"] is None and not silent["tokens"].any()


def test_what_is_too_much_or_missing_is_said(golden, caplog) -> None:
    one = segments(golden)[1]
    with pytest.raises(DataError, match="9 segments"):
        preprocess_video([one] * 9)
    with pytest.raises(DataError, match="0 segments"):
        preprocess_video([])
    with pytest.raises(DataError, match="lowercase_encoder.json"):
        preprocess_video(segments(golden))

    class Long:
        def encode(self, text: str) -> list[int]:
            return [11] * 150

    made = [one, {**one, "text": "long"}]
    video = preprocess_video(made, (2, 4), tokenizer=Long())
    assert "168 tokens: those behind the first 160 are left out" in caplog.text
    assert video["tokens"].shape == (160,) and int(video["tokens"][-1]) == 11
    assert load_tokenizer(Listed()).encode("hello there") == [1678, 303]


def test_the_spectrogram_call_is_the_published_one(golden) -> None:
    assert make_spectrogram(np.zeros(110250, np.float32)).shape == (3, 60, 65)


def test_frames_come_without_black_bars(tmp_path) -> None:
    pytest.importorskip("av")
    from mmpt.store.decode import stream_frames

    path = write_bars(tmp_path / "a.mp4")
    frames = extract_frames_from_video(path, [0.5, 1.5])
    assert [frame.shape for frame in frames] == [(48, 96, 3)] * 2
    whole = extract_frames_from_video(path, [0.5], use_multithreading=True, blackbar_threshold=None)
    assert whole[0].shape == (64, 96, 3)
    assert next(stream_frames(path, 1, None, center_crop=False)).shape[1:] == (64, 96, 3)
    less = extract_frames_from_video(path, [0.5], max_perc_to_trim=0.0625)
    assert less[0].shape == (56, 96, 3)


def write_bars(path):
    """Write two seconds of grey between two black bars of 8 lines."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(16):
            picture = np.zeros((64, 96, 3), np.uint8)
            picture[8:56] = 100 + 5 * number
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return path
