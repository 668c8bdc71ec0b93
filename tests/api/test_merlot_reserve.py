"""The published calls on a released model: published numbers, from both kinds of files."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from mmpt.api import reserve_files
from mmpt.api.merlot_reserve import PretrainedMerlotReserve
from mmpt.models.reserve import ReservePretraining
from mmpt.models.reserve_options import PRESETS, tiny_reserve_config
from mmpt.models.reserve_weights import published_names
from mmpt.modules.reserve_tokens import MASK
from mmpt.utils.errors import CheckpointError, ConfigError, DataError
from mmpt.utils.weight_files import save_safetensors
from tests.models.published_reserve import reserve_golden

GRID = (4, 4)
#: Calls and their published numbers.
CALLS = (
    "embed_text_spans_only",
    "embed_audio_only",
    "get_imgseq_only",
    "get_audioseq_only",
    "embed_video",
    "embed_preencoded_noaudio",
)


class Letters:
    """A tokenizer of one token per letter."""

    def encode(self, text: str) -> list[int]:
        return [20 + ord(letter) % 400 for letter in text]


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in reserve_golden().items()}


@pytest.fixture(scope="module")
def weights(golden, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "ours.safetensors"
    state = published_names({key[7:]: value for key, value in golden.items() if key.startswith("params/")})
    save_safetensors(path, state, {"size_per_head": "64"})
    return path


@pytest.fixture(scope="module")
def model(weights) -> PretrainedMerlotReserve:
    return PretrainedMerlotReserve.from_pretrained(weights, GRID, tokenizer=Letters(), device="cpu")


@pytest.fixture(scope="module")
def inputs(golden) -> dict[str, Tensor]:
    return {
        "spans": golden["inputs/text_spans"].view(36, 15),
        "images": golden["inputs/images"].view(3, 4, 16, 768),
        "sounds": golden["inputs/audio_clips"].view(3, 12, 60, 65),
        "tokens": golden["inputs/zs_tokens"],
        "subsegments": golden["inputs/zs_subseg_idxs"],
    }


def call(model: PretrainedMerlotReserve, name: str, given: dict[str, Tensor]) -> Tensor:
    images, sounds = given["images"], given["sounds"]
    text = (given["tokens"], given["subsegments"])
    return {
        "embed_text_spans_only": lambda: model.embed_text_spans_only(given["spans"]),
        "embed_audio_only": lambda: model.embed_audio_only(sounds),
        "get_imgseq_only": lambda: model.get_imgseq_only(images),
        "get_audioseq_only": lambda: model.get_audioseq_only(sounds),
        "embed_video": lambda: model.embed_video(images[0], sounds[0], *text),
        "embed_preencoded_noaudio": lambda: model.embed_preencoded_noaudio(model.get_imgseq_only(images[0]), *text),
    }[name]()


@pytest.mark.parametrize("name", CALLS)
def test_calls_give_the_published_numbers(model, inputs, golden, name: str) -> None:
    found = call(model, name, inputs)
    torch.testing.assert_close(found, golden[f"outputs/api/{name}"], atol=1e-4, rtol=0)


def test_calls_that_mean_the_same_agree(model, inputs) -> None:
    images, sounds, text = inputs["images"], inputs["sounds"], (inputs["tokens"], inputs["subsegments"])
    frames, heard = model.get_imgseq_only(images[0]), model.get_audioseq_only(sounds[0])
    whole = model.embed_video(images[0], sounds[0], *text)
    encoded = model.embed_preencoded_audio(frames, heard, *text, inputs["subsegments"])
    torch.testing.assert_close(encoded, whole, atol=1e-6, rtol=0)
    silent = model.embed_video(images[0], None, *text)
    torch.testing.assert_close(model.embed_preencoded_noaudio(frames, *text), silent, atol=1e-6, rtol=0)
    prompted = model.embed_singleimg_with_multiimg_prompt(frames[:3], images[0, 3:], *text)
    torch.testing.assert_close(prompted, silent, atol=1e-6, rtol=0)
    batched = model.batch_embed_video(images, sounds, *(one.expand(3, -1) for one in text))
    assert batched.shape == (3, 20, 128)
    torch.testing.assert_close(batched[0], whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(batched.norm(dim=-1), torch.ones(3, 20), atol=1e-3, rtol=0)


def test_the_joint_sequence_can_be_assembled_alone(model, inputs, golden) -> None:
    found = model.prepare_multimodal_inputs(
        inputs["tokens"][None],
        inputs["subsegments"][None].div(3, rounding_mode="floor"),
        vision_input=model.get_imgseq_only(inputs["images"][:1]).flatten(1, 2),
        audio_spans=model.get_audioseq_only(inputs["sounds"][0])[None],
        audio_pointers=inputs["subsegments"][None],
        padding_len=44,
    )
    torch.testing.assert_close(found["x"], golden["outputs/mm/x"], atol=1e-4, rtol=0)
    torch.testing.assert_close(found["rotary_coords"], golden["outputs/mm/rotary_coords"])
    assert torch.equal(found["attention_mask"], golden["outputs/mm/attention_mask"])


def test_a_half_precision_flax_file_gives_nearly_the_same(inputs, golden, tmp_path) -> None:
    msgpack = pytest.importorskip("msgpack")
    tree: dict = {"step": 7, "params": {}, "opt_state": None}
    for key, value in golden.items():
        *levels, leaf = key.split("/")
        if levels[:1] == ["params"] or key == "params/contrastive_scales":
            at = tree
            for level in levels:
                at = at.setdefault(level, {})
            packed = msgpack.packb((list(value.shape), "float16", value.half().numpy().tobytes()))
            at[leaf] = msgpack.ExtType(1, packed)
    path = tmp_path / "ckpt_7"
    path.write_bytes(msgpack.packb(tree))
    model = PretrainedMerlotReserve.from_pretrained(path, GRID, device="cpu")
    for name in CALLS:
        torch.testing.assert_close(call(model, name, inputs), golden[f"outputs/api/{name}"], atol=2e-3, rtol=0)


def test_labels_are_text_spans(model) -> None:
    space = model.get_label_space(["cooking", "a text of more than fifteen letters", "a text of more t and so on"])
    assert space.shape == (3, 128)
    torch.testing.assert_close(space.norm(dim=-1), torch.ones(3), atol=1e-3, rtol=0)
    assert torch.equal(space[1], space[2])  # cut at 15 tokens
    padded = torch.tensor([Letters().encode("cooking") + [0] * 8])
    torch.testing.assert_close(space[:1], model.embed_text_spans_only(padded), atol=1e-6, rtol=0)
    torch.testing.assert_close(space[:1], model.embed_text_spans_only(padded[:, :7]), atol=1e-5, rtol=0)
    with pytest.raises(DataError, match="'' has no words"):
        model.get_label_space([""])


def test_segments_end_to_end(model) -> None:
    picture = np.full((64, 64, 3), 90, np.uint8)
    segments = [{"frame": picture, "spectrogram": np.ones((3, 60, 65), np.float32)} for _ in range(2)]
    segments.append({"frame": picture, "spectrogram": None, "text": "abc"})
    video = model.preprocess_video(segments)
    video["tokens"][39] = MASK
    video["subseg_idxs"][39] = 6
    states = model.embed_video(**video)[video["tokens"] == MASK]
    probabilities = (100 * states @ model.get_label_space(["cooking", "dancing"]).T).softmax(-1)
    assert probabilities.shape == (1, 2) and float(probabilities.sum()) == pytest.approx(1)


def test_what_is_missing_is_said(weights, tmp_path, caplog) -> None:
    with pytest.raises(
        CheckpointError, match="base: no such checkpoint file. The host of the published weights is gone"
    ):
        PretrainedMerlotReserve.from_pretrained("base")
    with pytest.raises(CheckpointError, match="absent"):
        PretrainedMerlotReserve.from_pretrained(tmp_path / "absent")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no MERLOT Reserve"):
        PretrainedMerlotReserve.from_pretrained(tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="dataset.image_grid"):
        PretrainedMerlotReserve.from_pretrained(weights, (3, 4))
    with caplog.at_level(logging.WARNING):
        bare = PretrainedMerlotReserve.from_pretrained(weights, (4, 6))
    assert "no weights were released for (4, 6)" in caplog.text
    with pytest.raises(DataError, match="give tokenizer="):
        bare.get_label_space(["a"])
    with pytest.raises(DataError, match="9 frames"):
        frames, ids = torch.zeros(8, 6, 128), torch.zeros(3)
        bare.embed_singleimg_with_multiimg_prompt(frames, torch.zeros(1, 24, 768), ids, ids)


def test_heads_are_those_of_the_training_that_made_the_weights(tmp_path, weights) -> None:
    config = OmegaConf.create({"model": {**tiny_reserve_config("ReservePretraining").model, "hidden_size": 128}})
    torch.manual_seed(0)
    trained = ReservePretraining(config).eval()
    run = tmp_path / "run"
    run.mkdir()
    torch.save({"model": trained.state_dict()}, run / "checkpoint_last.pt")
    spans = torch.randint(20, 60, (2, 5))
    with pytest.raises(CheckpointError, match=r"nothing tells into how many heads its 128 .*give size_per_head="):
        PretrainedMerlotReserve.from_pretrained(run / "checkpoint_last.pt", GRID, device="cpu")
    given = PretrainedMerlotReserve.from_pretrained(run, GRID, device="cpu", size_per_head=32)
    OmegaConf.save(config, run / "config.yaml")
    with torch.no_grad():
        wanted = trained.encode_text(spans)
    beside = PretrainedMerlotReserve.from_pretrained(run / "checkpoint_last.pt", GRID, device="cpu")
    for one in (given, beside, PretrainedMerlotReserve.from_pretrained(run, GRID, device="cpu")):
        torch.testing.assert_close(one.embed_text_spans_only(spans), wanted)
    with pytest.raises(CheckpointError, match="size_per_head 64, but its heads have 32"):
        PretrainedMerlotReserve.from_pretrained(run, GRID, device="cpu", size_per_head=64)
    job = tmp_path / "job.yaml"
    OmegaConf.save(OmegaConf.merge(config, {"eval": {"save_path": str(run)}}), job)
    (run / "checkpoint_last.pt").rename(run / "checkpoint_best.pt")
    by_job = PretrainedMerlotReserve.from_pretrained(job, GRID, device="cpu")
    torch.testing.assert_close(by_job.embed_text_spans_only(spans), wanted)


def test_sizes_of_a_published_model_say_its_heads() -> None:
    with torch.device("meta"):
        state = ReservePretraining({"model": {"preset": "base"}}).state_dict()
    patch = pytest.MonkeyPatch()
    with patch.context() as inside:
        inside.setattr(reserve_files, "load_state_dict_file", lambda file: state)
        assert reserve_files.read_weights(Path("base.pt"), None)[1] == PRESETS["base"]


def test_the_published_keywords_name_a_file_in_a_folder(weights, tmp_path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(CheckpointError, match=r"host of the published weights is gone.* in which large_resadapt lies"):
        PretrainedMerlotReserve.from_pretrained(model_name="large", cache_dir=cache)
    (cache / "mine.safetensors").write_bytes(weights.read_bytes())
    model = PretrainedMerlotReserve.from_pretrained(
        model_name="mine.safetensors", image_grid_size=GRID, cache_dir=str(cache), device="cpu"
    )
    assert model.image_grid_size == GRID
    for grid, name in (((18, 32), "base_resadapt"), ((12, 20), "base")):
        (cache / name).write_bytes(b"")
        assert reserve_files.find_weights("base", grid, cache)[0] == cache / name
        assert reserve_files.find_weights(name, grid, cache)[0].name == name


def test_the_model_is_a_pre_training_model(model) -> None:
    assert isinstance(model.model, ReservePretraining) and not model.model.training
    assert model.device == torch.device("cpu")
