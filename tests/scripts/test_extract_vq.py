"""extract_vq.py and import_vq.py: which pixels the tokens are of, resume, counted failures, exit codes."""

import importlib.util
import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from mmpt.modules.dvae import DVAEEncoder
from mmpt.modules.visual_tokenizer import load_visual_tokenizer
from mmpt.processors.visual_token_extraction import LOCK, TokenOptions, extract_tokens
from mmpt.store.frame_store import open_frames
from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.images import decode_image, encode_jpeg
from mmpt.store.visual_tokens import VisualTokenStore, token_shards
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import read_json, sole_writer
from mmpt.utils.weight_files import save_safetensors

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "visual_tokens"
VIDEOS = {"a": 3, "b": 1, "c": 2, "d": 4, "e": 1}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_script", SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


extract, import_vq = script("extract_vq").main, script("import_vq").main


def picture(video: str, frame: int) -> np.ndarray:
    """Smooth colours, wider than high."""
    rng = np.random.default_rng([*video.encode(), frame])
    small = Image.fromarray(rng.integers(0, 256, (3, 5, 3)).astype(np.uint8))
    return np.asarray(small.resize((160, 90), Image.Resampling.BICUBIC))


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    with FrameStoreWriter(tmp_path / "frames", videos_per_shard=3) as writer:
        for video, count in VIDEOS.items():
            writer.append(video, [encode_jpeg(picture(video, frame), 95) for frame in range(count)])
    return tmp_path / "frames"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_safetensors(tmp_path / "dvae.safetensors", DVAEEncoder(8, 40, 1).state_dict())
    return tmp_path / "dvae.safetensors"


def arguments(frames: Path, weights: Path, *more: str) -> list[str]:
    out = str(frames.parent / "vq")
    return ["--frames", str(frames), "--out", out, "--weights", str(weights), "--image-size", "64", *more]


def test_tokens_are_of_the_whole_frame_in_a_square(frames: Path, weights: Path, capsys) -> None:
    assert extract(arguments(frames, weights, "--shard-size", "2", "--batch-size", "3")) == 0
    assert "done 5, skipped 0, failed 0" in capsys.readouterr().out
    store, tokenizer = VisualTokenStore(frames.parent / "vq"), load_visual_tokenizer(weights)
    assert store.grid == (2, 2) and len(token_shards(frames.parent / "vq")) == 3
    for video, count in VIDEOS.items():
        assert store[video].shape == (count, 2, 2)
        for frame in range(count):
            pixels = decode_image(open_frames(frames)[video][frame])
            square = np.pad(pixels, ((35, 35), (0, 0), (0, 0)))
            small = np.asarray(Image.fromarray(square).resize((16, 16), Image.Resampling.BILINEAR))
            with torch.no_grad():
                wanted = tokenizer.codes(torch.from_numpy(small.copy()).permute(2, 0, 1)[None])[0]
            assert np.array_equal(store[video][frame], wanted.numpy())


def test_a_second_run_does_what_is_left(frames: Path, weights: Path, capsys) -> None:
    assert extract(arguments(frames, weights)) == 0
    with FrameStoreWriter(frames) as writer:
        writer.append("new", [encode_jpeg(picture("new", 0))])
        writer.append("b", [encode_jpeg(picture("b", frame)) for frame in range(2)])  # has another frame now
    before = VisualTokenStore(frames.parent / "vq")["a"].copy()
    assert extract(arguments(frames, weights)) == 0
    assert "done 2, skipped 4" in capsys.readouterr().out
    store = VisualTokenStore(frames.parent / "vq")
    assert len(store["b"]) == 2 and len(store) == 6 and np.array_equal(store["a"], before)
    assert extract(arguments(frames, weights)) == 0
    assert "done 0, skipped 6" in capsys.readouterr().out


def test_other_weights_or_sizes_need_another_folder(frames: Path, weights: Path, tmp_path: Path, capsys) -> None:
    assert extract(arguments(frames, weights)) == 0
    save_safetensors(tmp_path / "other.safetensors", DVAEEncoder(8, 40, 1).state_dict())
    assert extract(arguments(frames, tmp_path / "other.safetensors")) == 2
    assert extract([*arguments(frames, weights)[:-1], "96"]) == 2
    assert capsys.readouterr().err.count("other weights or another image size") == 2
    with pytest.raises(ConfigError, match=r"dataset\.image_size: 100"):
        extract_tokens(open_frames(frames), load_visual_tokenizer(weights), tmp_path / "x", TokenOptions(100))


def test_damaged_frames_are_counted(frames: Path, weights: Path, capsys) -> None:
    with FrameStoreWriter(frames) as writer:
        writer.append("bad", [encode_jpeg(picture("bad", 0)), b"\xff\xd8\xff no image"])
    assert extract(arguments(frames, weights)) == 1
    printed = capsys.readouterr()
    assert "failed 1" in printed.out and "failed: bad: frame 1 of 2" in printed.out and "17% of the" in printed.err
    assert len(VisualTokenStore(frames.parent / "vq")) == 5
    kept = read_json(frames.parent / "vq" / "manifest.json")["videos"]
    assert list(kept) == ["bad"] and kept["bad"]["reason"].startswith("frame 1 of 2")
    assert extract(arguments(frames, weights, "--max-failed", "0.5", "--quiet")) == 0
    with FrameStoreWriter(frames) as writer:
        writer.append("bad", [encode_jpeg(picture("bad", 0))])
    assert extract(arguments(frames, weights, "--quiet")) == 0
    assert not read_json(frames.parent / "vq" / "manifest.json")["videos"]


def test_a_codebook_of_the_frames_serves_without_weights(frames: Path, capsys) -> None:
    given = arguments(frames, Path("x"))
    given[given.index("--weights") : given.index("--weights") + 2] = ["--fit-codebook", "12"]
    assert extract(given) == 0
    store = VisualTokenStore(frames.parent / "vq")
    kept = frames.parent / "vq" / "codebook.safetensors"
    assert load_visual_tokenizer(kept).num_codes == 12
    used = np.unique(np.concatenate([store[video].ravel() for video in VIDEOS]))
    assert len(used) > 6 and used.max() < 12
    assert extract(given) == 0  # fits nothing again
    given[given.index("12")] = "13"
    assert extract(given) == 2 and "holds 12 codes, --fit-codebook says 13" in capsys.readouterr().err


def test_a_folder_that_another_run_writes_to_gets_no_codebook(frames: Path, capsys) -> None:
    out = frames.parent / "vq"
    with sole_writer(out / LOCK):
        assert extract(["--frames", str(frames), "--out", str(out), "--fit-codebook", "12", "--image-size", "64"]) == 2
        assert "another run is writing there" in capsys.readouterr().err
        assert not (out / "codebook.safetensors").exists()


def test_what_is_no_checkpoint_is_told_without_advice_to_execute_it(frames: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "encoder.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert extract(arguments(frames, tmp_path / "encoder.pkl")) == 2
    told = capsys.readouterr().err
    assert "encoder.pkl: damaged, or not a PyTorch checkpoint" in told and "weights_only" not in told


def test_published_files_are_imported_by_the_command(tmp_path: Path, capsys) -> None:
    (tmp_path / "vq_x.pkl").write_bytes(pickle.dumps({"v": np.zeros((1, 7, 7), np.int16)}))
    (tmp_path / "bad.pkl").write_bytes(b"no pickle")
    files = [str(tmp_path / "vq_x.pkl")]
    assert import_vq(["--out", str(tmp_path / "vq"), *files, *files]) == 0
    assert "1 videos imported" in (printed := capsys.readouterr().out) and "imported before" in printed
    assert import_vq(["--out", str(tmp_path / "vq"), str(tmp_path / "bad.pkl")]) == 2
    with pytest.raises(DataError, match="not among"):
        VisualTokenStore(tmp_path / "vq")["w"]
