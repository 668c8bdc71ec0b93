"""MMPTModel with the systems that read raw frames, on random weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from mmpt.api.raw_frames import FrameInput, prepare_frames
from mmpt.models import MMPTModel
from mmpt.models.cross_modal import tiny_cross_modal_config
from mmpt.processors.frame_transforms import FrameTransform
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import build

ALIGNERS = {"VIOLETRetrieval": "FrameAligner", "LAVENDER": "LAVENDERRetrievalAligner"}
WORDS = {"true_word": "w0", "false_word": "w1"}


def job(system: str, folder: Path) -> Path:
    """Write the config and the checkpoint of a job; return the config's path."""
    dataset = {"aligner": ALIGNERS[system], "image_transform": ["pad_resize"], "split": "test"}
    fairseq = {"checkpoint": {"save_dir": str(folder)}}
    model = WORDS if system == "LAVENDER" else {}
    config = tiny_cross_modal_config(system, dataset=dataset, model=model, fairseq=fairseq)
    torch.manual_seed(0)
    state = {f"mmmodel.{key}": value for key, value in build("model", system, config).state_dict().items()}
    torch.save({"args": None, "model": state}, folder / "checkpoint_best.pt")
    OmegaConf.save(config, folder / "job.yaml")
    return folder / "job.yaml"


def frames_of(batch: int, frames: int, height: int = 64, width: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, frames, height, width, 3), dtype=torch.uint8, generator=generator)


def texts_of(tokenizer: Any, aligner: Any, *texts: str) -> tuple[Tensor, Tensor]:
    pairs = [aligner._build_text_seq(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    caps, cmasks = zip(*pairs, strict=True)
    return torch.stack(caps), torch.stack(cmasks)


@pytest.mark.parametrize("system", ALIGNERS)
@torch.no_grad()
def test_the_snippet_scores_pairs_of_frames_and_texts(system: str, tmp_path: Path) -> None:
    model, tokenizer, aligner = MMPTModel.from_pretrained(job(system, tmp_path))
    assert model.video_encoder is None and model.reads_frames and not model.training
    frames, (caps, cmasks) = frames_of(3, 2), texts_of(tokenizer, aligner, "w5 w6", "w7", "w8 w9 w10")
    score = model(frames, caps, cmasks, return_score=True)["score"]
    assert score.shape == (3,)
    # What was asked for as floats, one at a time, and of encoded sides, is the same.
    for row in range(3):
        one = model(frames[row : row + 1] / 255, caps[row : row + 1], cmasks[row : row + 1], return_score=True)["score"]
        torch.testing.assert_close(one[0], score[row], atol=1e-5, rtol=1e-5)
    video = model.encode_video(*model.encode_frames(frames))
    together = model.model.score_pairs(model.encode_text(caps, cmasks), video)
    torch.testing.assert_close(together.diagonal(), score, atol=1e-5, rtol=1e-5)
    assert together.std() > 0


@pytest.mark.parametrize("key", ["prompt", "task_token"])
@torch.no_grad()
def test_texts_have_before_them_what_the_job_says(key: str, tmp_path: Path) -> None:
    path = job("LAVENDER", tmp_path)
    model, tokenizer, aligner = MMPTModel.from_pretrained(path, overrides=[f"dataset.{key}=true"])
    frames, (caps, cmasks) = frames_of(2, 2), texts_of(tokenizer, aligner, "w5 w6", "w7")
    score = model(frames, caps, cmasks, return_score=True)["score"]
    given = {name: torch.stack([one, one]) for name, one in aligner.pretext().items()}
    torch.testing.assert_close(model(frames, caps, cmasks, return_score=True, **given)["score"], score)
    plain = MMPTModel.from_pretrained(path)[0](frames, caps, cmasks, return_score=True)["score"]
    assert not torch.allclose(plain, score)


def test_frames_are_sampled_and_squared_as_in_a_test() -> None:
    wanted = FrameInput(3, (16, 16), FrameTransform("pad_resize", 16))
    video = torch.zeros(2, 5, 32, 64, 3, dtype=torch.uint8)
    video += torch.arange(5, dtype=torch.uint8)[None, :, None, None, None] * 50
    mask = torch.tensor([[True] * 5, [False, True, False, False, False]])
    vfeats, vmasks = prepare_frames(video, mask, wanted)
    assert vfeats.shape == (2, 3, 3, 16, 16) and vmasks.tolist() == [[True] * 3, [True, False, False]]
    assert vfeats[0, :, 0, 8, 8].tolist() == [0, 100, 200] and vfeats[1, 0, 0, 8, 8] == 50
    assert not vfeats[0, :, :, 0].any(), "black above the wide picture"


def test_seconds_of_frames_are_their_frames_one_after_another() -> None:
    wanted = FrameInput(4, (8, 8), FrameTransform("pad_resize", 8))
    video, mask = frames_of(2, 6, 8, 8), torch.tensor([[True, True, True], [True, True, False]])
    vfeats, vmasks = prepare_frames(video.unflatten(1, (3, 2)), mask, wanted)
    expected = prepare_frames(video, mask.repeat_interleave(2, dim=1), wanted)
    assert torch.equal(vfeats, expected[0]) and torch.equal(vmasks, expected[1])
    assert torch.equal(
        prepare_frames(video.unflatten(1, (3, 2)), None, wanted)[0], prepare_frames(video, None, wanted)[0]
    )


@pytest.mark.parametrize(
    ("frames", "mask", "match"),
    [
        (torch.zeros(1, 2, 3, 8, 8), None, r"expected \(batch, frames, height, width, 3\)"),
        (torch.zeros(1, 2, 8, 8, 3, dtype=torch.int32), None, "int32"),
        (torch.full((1, 2, 8, 8, 3), 255.0), None, r"outside \[0, 1\]"),
        (torch.zeros(1, 2, 8, 8, 3), torch.ones(1, 3), "one value per frame"),
        (torch.zeros(2, 2, 8, 8, 3), torch.tensor([[1, 1], [0, 0]]), "video 1 of the batch has no frame"),
    ],
)
def test_wrong_frames_are_refused(frames: Tensor, mask: Tensor | None, match: str) -> None:
    with pytest.raises(DataError, match=match):
        prepare_frames(frames, mask, FrameInput(2, (8, 8), FrameTransform("pad_resize", 8)))


def test_unlike_numbers_of_frames_and_texts_are_refused(tmp_path: Path) -> None:
    model, tokenizer, aligner = MMPTModel.from_pretrained(job("VIOLETRetrieval", tmp_path))
    with pytest.raises(DataError, match="2 videos and 1 texts"):
        model(frames_of(2, 2), *texts_of(tokenizer, aligner, "w5"), return_score=True)
    with pytest.raises(ConfigError, match="aligner"):
        MMPTModel.from_pretrained(tmp_path / "job.yaml", overrides=["dataset.aligner=NoSuchAligner"])


def test_texts_that_do_not_end_in_the_mask_are_refused_by_lavender(tmp_path: Path) -> None:
    config = job("LAVENDER", tmp_path)
    model, tokenizer, aligner = MMPTModel.from_pretrained(config, overrides=["dataset.aligner=FrameAligner"])
    with pytest.raises(ConfigError, match="LAVENDERRetrievalAligner"):
        model(frames_of(1, 2), *texts_of(tokenizer, aligner, "w5"), return_score=True)


def test_more_frames_than_in_training_keep_the_rows_that_there_are(tmp_path: Path) -> None:
    config = job("VIOLETRetrieval", tmp_path)
    same, _, _ = MMPTModel.from_pretrained(config)
    more, _, _ = MMPTModel.from_pretrained(config, overrides=["model.max_frames=8", "dataset.num_frames=8"])
    assert torch.equal(more.model.enc_img.emb_len[:, :6], same.model.enc_img.emb_len) and more.num_frames == 8
