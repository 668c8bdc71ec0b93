"""The published snippet with MERLOT and MERLOT Reserve: from checkpoints of ours, of TensorFlow and of Flax."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from mmpt.models import MMPTModel
from mmpt.processors.segment_images import fit_antialiased, fit_corners
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import build
from mmpt.utils.subword_training import train_subwords
from mmpt.utils.weight_files import load_state_dict_file, save_safetensors
from tests.models.published_reserve import FLAX_FILE

TF_FILE = Path(__file__).parents[1] / "data/merlot_checkpoint/model.ckpt"
PUBLISHED = {"merlot": TF_FILE, "reserve": FLAX_FILE}
CLASSES = {"merlot": "MERLOTPretraining", "reserve": "ReservePretraining"}
ALIGNERS = {"merlot": "MERLOTPretrainingAligner", "reserve": "ReservePretrainingAligner"}
SIZES: dict[str, dict[str, Any]] = {
    "merlot": {"image_size": [32, 64], "num_chunks": 4, "chunks_in_group": 2, "max_text_len": 8},
    "reserve": {"image_grid": [2, 4], "num_segments": 4, "num_segment_groups": 2, "seq_len": 40, "lang_seq_len": 32},
}
#: Those of the published files.
MODELS: dict[str, dict[str, Any]] = {
    "merlot": {
        "hidden_size": 64,
        "num_layers": 2,
        "vision_layers": 2,
        "num_heads": 4,
        "intermediate_size": 256,
        "vocab_size": 400,
        "max_text_positions": 64,
        "max_image_positions": 80,
        "resnet_layers": [2, 1, 1],
    },
    "reserve": {
        "hidden_size": 128,
        "joint_layers": 2,
        "vision_layers": 2,
        "audio_layers": 2,
        "span_layers": 2,
        "vocab_size": 512,
    },
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Configs of jobs of the sizes of the published files, with tokenizers."""
    folder = tmp_path_factory.mktemp("jobs")
    found = {}
    for kind in CLASSES:
        train_subwords(kind, ["some text about a few words"] * 3, 370, folder / f"tokenizer_{kind}")
        tokenizer = str(folder / f"tokenizer_{kind}")
        dataset = {**SIZES[kind], "tokenizer": tokenizer, "aligner": ALIGNERS[kind], "split": "test"}
        model = {"model_cls": CLASSES[kind], **MODELS[kind]}
        found[kind] = folder / f"{kind}.yaml"
        OmegaConf.save(OmegaConf.create({"dataset": dataset, "model": model}), found[kind])
    return found


def texts_of(tokenizer: Any, aligner: Any, *texts: str) -> tuple[Tensor, Tensor]:
    pairs = [aligner._build_text_seq(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    caps, cmasks = zip(*pairs, strict=True)
    return torch.stack(caps), torch.stack(cmasks)


def seconds_of(batch: int, seconds: int, fps: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, seconds, fps, 40, 60, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("kind", CLASSES)
@torch.no_grad()
def test_the_snippet_on_a_published_file(kind: str, jobs: dict[str, Path]) -> None:
    model, tokenizer, aligner = MMPTModel.from_pretrained(jobs[kind], PUBLISHED[kind])
    assert not model.load_report.missing and not model.load_report.unexpected and not model.training
    assert model.video_encoder is None and model.num_frames == {"merlot": 4, "reserve": 2}[kind]
    video_frames = seconds_of(3, 2)
    caps, cmasks = texts_of(tokenizer, aligner, "some text", "a few words", "about")
    pooled = model(video_frames, caps, cmasks)
    score = model(video_frames, caps, cmasks, return_score=True)["score"]
    assert pooled.keys() == {"pooled_video", "pooled_text"} and score.shape == (3,)
    torch.testing.assert_close(score, (pooled["pooled_video"] * pooled["pooled_text"]).sum(1))
    torch.testing.assert_close(pooled["pooled_video"].norm(dim=1), torch.ones(3))
    for row in range(3):
        one = model(video_frames[row : row + 1] / 255, caps[row : row + 1], cmasks[row : row + 1], return_score=True)
        torch.testing.assert_close(one["score"][0], score[row], atol=1e-5, rtol=1e-5)
    video = model.encode_video(*model.encode_frames(video_frames))
    torch.testing.assert_close(model.model.score_pairs(model.encode_text(caps, cmasks), video).diagonal(), score)
    with pytest.raises(DataError, match="3 videos and 2 texts"):
        model(video_frames, caps[:2], cmasks[:2], return_score=True)


@pytest.mark.parametrize("kind", CLASSES)
@torch.no_grad()
def test_a_file_of_ours_gives_what_the_published_one_gives(kind: str, jobs: dict[str, Path], tmp_path: Path) -> None:
    published, tokenizer, aligner = MMPTModel.from_pretrained(jobs[kind], PUBLISHED[kind])
    save_safetensors(tmp_path / "ours.safetensors", published.model.state_dict())
    torch.save(
        {"args": None, "model": {f"mmmodel.{k}": v for k, v in published.model.state_dict().items()}},
        tmp_path / "ours.pt",
    )
    inputs = seconds_of(1, 3), *texts_of(tokenizer, aligner, "a few words")
    wanted = published(*inputs)["pooled_video"]
    for name in ("ours.safetensors", "ours.pt"):
        ours, _, _ = MMPTModel.from_pretrained(jobs[kind], tmp_path / name)
        assert torch.equal(ours(*inputs)["pooled_video"], wanted)
    assert len(load_state_dict_file(PUBLISHED[kind])) > 100


@pytest.mark.parametrize("kind", CLASSES)
@torch.no_grad()
def test_the_jobs_of_the_shipped_projects(kind: str, jobs: dict[str, Path]) -> None:
    """The project is expanded in memory; its sizes are made those of the small file."""
    job = {"merlot": "merlot/merlot_pretrain", "reserve": "merlot_reserve/reserve_pretrain"}[kind]
    sizes = {
        "dataset": {**SIZES[kind], "tokenizer": str(jobs[kind].parent / f"tokenizer_{kind}")},
        "model": MODELS[kind],
    }
    overrides = [f"{group}.{key}={value}" for group, values in sizes.items() for key, value in values.items()]
    loaded = MMPTModel.from_pretrained(f"projects/script/{job}.yaml", PUBLISHED[kind], overrides=overrides)
    given = MMPTModel.from_pretrained(jobs[kind], PUBLISHED[kind])
    inputs = seconds_of(1, 3), *texts_of(*loaded[1:], "a few words")
    assert torch.equal(loaded[0](*inputs)["pooled_video"], given[0](*inputs)["pooled_video"])


@pytest.mark.parametrize("kind", CLASSES)
def test_frames_are_fitted_as_the_system_does(kind: str, jobs: dict[str, Path]) -> None:
    model, _, _ = MMPTModel.from_pretrained(jobs[kind], PUBLISHED[kind])
    frames = F.interpolate(torch.rand(1, 3, 5, 6), (40, 90))[0].permute(1, 2, 0)
    frames = (frames * 255).byte()
    vfeats, vmasks = model.encode_frames(frames[None, None])
    fitted = {"merlot": fit_corners, "reserve": fit_antialiased}[kind](frames.numpy(), 32, 64)
    assert vfeats.shape[2:] == (3, 32, 64) and vmasks[0].tolist() == [True] + [False] * (model.num_frames - 1)
    torch.testing.assert_close(vfeats[0, 0] / 255, fitted, atol=2 / 255, rtol=0)


def test_texts_are_laid_out_as_in_training(jobs: dict[str, Path]) -> None:
    _, tokenizer, aligner = MMPTModel.from_pretrained(jobs["merlot"], TF_FILE)
    ids = tokenizer("some text")["input_ids"]
    assert (
        ids
        == [id for word in tokenizer.encode_words(["some", "text"]) for id in word]
        == tokenizer.encode(" some text")
    )
    caps, cmasks = aligner._build_text_seq(ids[:3])
    assert caps.tolist() == [2, *ids[:3], 0, 0, 0, 0] and cmasks.tolist() == [True] * 4 + [False] * 4
    caps, cmasks = aligner._build_text_seq([200] * 20)
    assert caps.tolist() == [2, *[200] * 7] and cmasks.all()
    _, _, aligner = MMPTModel.from_pretrained(jobs["reserve"], FLAX_FILE)
    caps, cmasks = aligner._build_text_seq([20, 21])
    assert caps.tolist() == [20, 21, *[0] * 13] and cmasks.sum() == 2
    assert aligner._build_text_seq([20] * 20)[1].all() and aligner._build_text_seq([])[1].sum() == 0
    with pytest.raises(ValueError, match="aligner"):
        tokenizer("some text", add_special_tokens=True)


def test_a_model_that_answers_questions_has_no_score_of_pairs(jobs: dict[str, Path], tmp_path: Path) -> None:
    config = OmegaConf.load(jobs["merlot"])
    config.model.model_cls, config.dataset.aligner = "MERLOTAnswering", "MERLOTChoiceAligner"
    config.dataset = {
        key: config.dataset[key] for key in ("tokenizer", "aligner", "split", "image_size", "max_text_len")
    }
    OmegaConf.save(config, tmp_path / "job.yaml")
    save_safetensors(tmp_path / "w.safetensors", build("model", "MERLOTAnswering", config).state_dict())
    model, _, _ = MMPTModel.from_pretrained(tmp_path / "job.yaml", tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="MERLOTAnswering does not compare"):
        model(seconds_of(1, 1), torch.ones(1, 4, dtype=torch.long), torch.ones(1, 4))
