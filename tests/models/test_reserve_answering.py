"""Reserve's answers to VCR and TVQA: every text scored by a second implementation, item by item."""

import pytest
import reserve_reference as reference
import torch
from reserve_goldens import GRID, golden_config, parameters
from torch import Tensor

from mmpt.losses import CrossEntropy, ReserveTVQALoss
from mmpt.models.base import VideoTextModel
from mmpt.models.embedding import flatten_samples
from mmpt.models.reserve_answering import ReserveTVQA, ReserveVCR
from mmpt.modules.reserve_towers import patches_of
from mmpt.utils.checkpoint import load_into
from mmpt.utils.errors import DataError
from mmpt.utils.registry import build

MASK, AUDIOSPAN = 3, 5
FRAMES = 7
PROJECTION = torch.randn(128, generator=torch.Generator().manual_seed(9))


def make(cls: type) -> VideoTextModel:
    model = cls(golden_config(cls.__name__)).eval()
    load_into(model, {**parameters(), "proj/kernel": PROJECTION[:, None]})
    return model


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def texts(*leading: int, length: int = 12) -> tuple[Tensor, Tensor]:
    """Words of unlike length with a MASK behind them."""
    tokens = (10 + draw(*leading, length, seed=1) * 500).long()
    ends = (3 + draw(*leading, seed=2) * (length - 3)).long()[..., None]
    place = torch.arange(length)
    tokens = tokens.where(place < ends, 0).where(place != ends, MASK)
    return tokens, place <= ends


def score_at(tokens: Tensor, states: Tensor) -> Tensor:
    return states[tokens.tolist().index(MASK)] @ PROJECTION


def without_head() -> dict[str, Tensor]:
    return {**parameters(), "head/kernel": torch.eye(128), "head/bias": torch.zeros(128)}


def frame(picture: Tensor) -> Tensor:
    return reference.vision(parameters(), patches_of(picture), GRID)[1]


def vcr_batch() -> dict[str, Tensor]:
    tokens, mask = texts(2, 2, 4)
    frames = draw(2, 1, 3, 64, 64, seed=3)
    vmasks = torch.ones(2, 1, dtype=torch.bool)
    return {
        "vfeats": frames,
        "vmasks": vmasks,
        "caps": tokens,
        "cmasks": mask,
        "answers": torch.tensor([[0, 3], [2, 1]]),
    }


def test_vcr_scores_every_option_beside_its_image() -> None:
    model, batch = make(ReserveVCR), vcr_batch()
    with torch.no_grad():
        outputs = model(**batch)
        flattened = model(**flatten_samples(batch))
        one = {**batch, "caps": batch["caps"][:, 1], "cmasks": batch["cmasks"][:, 1], "answers": batch["answers"][:, 1]}
        alone = model(**one)
    assert outputs["logits"].shape == (2, 2, 4)
    assert torch.equal(outputs["targets"], batch["answers"])
    for name, value in outputs.items():
        assert torch.equal(flattened[name], value)
    torch.testing.assert_close(alone["logits"], outputs["logits"][:, 1])
    assert torch.equal(alone["targets"], batch["answers"][:, 1])
    for item in range(2):
        picture = frame(batch["vfeats"][item, 0])[None]
        for question in range(2):
            for option in range(4):
                tokens = batch["caps"][item, question, option]
                states = reference.joint(without_head(), tokens, [0] * len(tokens), picture, length=20)
                wanted = score_at(tokens, states)
                torch.testing.assert_close(outputs["logits"][item, question, option], wanted, atol=1e-4, rtol=0)
    assert CrossEntropy()(**outputs) > 0


def test_padding_of_a_text_changes_nothing() -> None:
    for model, batch in ((make(ReserveVCR), vcr_batch()), (make(ReserveTVQA), tvqa_batch())):
        noisy = {**batch, "caps": batch["caps"].where(batch["cmasks"], 77)}
        assert not torch.equal(noisy["caps"], batch["caps"])
        with torch.no_grad():
            assert torch.equal(model(**noisy)["logits"], model(**batch)["logits"])


def tvqa_batch() -> dict[str, Tensor]:
    tokens, _ = texts(1, 2, 2, length=FRAMES * 18 + 16)
    question, place = 8, torch.arange(tokens.shape[-1])
    tokens[..., question - 1] = MASK
    tokens[..., :question].masked_fill_(tokens[..., :question] == 0, 40)
    tokens[..., : question - 1].masked_fill_(tokens[..., : question - 1] == MASK, 41)
    segments = torch.where(place < question, 0, 1 + (place - question) // 18 % FRAMES).expand_as(tokens).clone()
    sound = torch.where(place < question, tokens[:, 1], AUDIOSPAN).where(place < question + 18 * FRAMES, 0)
    tokens[:, 1] = sound
    segments = segments.masked_fill(tokens == 0, -1)
    return {
        "vfeats": draw(1, FRAMES, 3, 64, 64, seed=4),
        "vmasks": torch.arange(FRAMES)[None] < 5,
        "caps": tokens,
        "cmasks": tokens != 0,
        "segments": segments,
        "audio_clips": draw(1, 3 * FRAMES, 60, 65, seed=5),
        "answers": torch.tensor([1]),
    }


def test_tvqa_reads_every_option_with_subtitles_and_with_sound() -> None:
    model, batch = make(ReserveTVQA), tvqa_batch()
    with torch.no_grad():
        outputs = model(**batch)
        scores = model.option_scores(**batch)
        flattened = model(**flatten_samples(batch))
        noisy = dict(batch)
        noisy["vfeats"] = batch["vfeats"].where(batch["vmasks"][:, :, None, None, None], torch.nan)
        assert torch.equal(model(**noisy)["logits"], outputs["logits"])
    assert outputs["logits"].shape == (1, 2, 2)
    assert outputs["targets"].tolist() == [[1, 1]]
    assert torch.equal(flattened["logits"], outputs["logits"])
    pictures = batch["vfeats"][0] * batch["vmasks"][0][:, None, None, None]
    frames = torch.stack([frame(picture) for picture in pictures])
    sounds = torch.stack([reference.audio(parameters(), clip)[1] for clip in batch["audio_clips"][0]])
    for kind in range(2):
        for option in range(2):
            tokens, segments = batch["caps"][0, kind, option], batch["segments"][0, kind, option].tolist()
            runs = [int((tokens[: k + 1] == AUDIOSPAN).sum() - 1) // 6 for k in range(len(tokens))]
            states = reference_with_offset(tokens, segments, frames, sounds, torch.tensor(runs))
            wanted = score_at(tokens, states)
            torch.testing.assert_close(outputs["logits"][0, kind, option], wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(scores, outputs["logits"].softmax(-1).sum(1))


def reference_with_offset(tokens: Tensor, segments: list[int], frames: Tensor, sounds: Tensor, runs: Tensor) -> Tensor:
    """Frames in segments 1 ..: one that is not seen stands in segment 0."""
    hidden = torch.cat([torch.full_like(frames[:1], 7.0), frames])
    return reference.joint(
        without_head(),
        tokens,
        segments,
        hidden,
        sounds=sounds,
        pointers=runs,
        hide_first=True,
        length=len(tokens) + 4 * len(hidden),
    )


def test_tvqa_objective_is_the_sum_of_both() -> None:
    model, batch = make(ReserveTVQA), tvqa_batch()
    outputs = model(**batch)
    loss = ReserveTVQALoss()
    wanted = -outputs["logits"].log_softmax(-1)[0, :, 1].sum()
    torch.testing.assert_close(loss(**outputs), wanted)
    measures = loss.measures(**outputs)
    assert set(measures) == {"accuracy", "subtitles_accuracy", "sound_accuracy"}
    assert float(measures["accuracy"]) == float(model.option_scores(**batch).argmax(-1) == 1)
    assert type(build("loss", "ReserveTVQALoss")) is ReserveTVQALoss


def test_what_does_not_fit_is_refused() -> None:
    vcr, tvqa = make(ReserveVCR), make(ReserveTVQA)
    batch = vcr_batch()
    with pytest.raises(DataError, match="no MASK"):
        vcr(**{**batch, "caps": batch["caps"].masked_fill(batch["caps"] == MASK, 11)})
    with pytest.raises(DataError, match="6 texts for 2 images"):
        vcr(**{**batch, "caps": batch["caps"][:, 0, :3], "cmasks": batch["cmasks"][:, 0, :3]})
    other = tvqa_batch()
    with pytest.raises(DataError, match="audio_clips"):
        tvqa(**{**other, "audio_clips": other["audio_clips"][:, :20]})
    with pytest.raises(DataError, match="segments of shape"):
        tvqa(**{**other, "segments": other["segments"][:, :, :1]})
    with pytest.raises(DataError, match="ReservePretraining encodes texts"):
        vcr.encode_text(batch["caps"][0, 0])
    with pytest.raises(DataError, match="ReservePretraining encodes videos"):
        tvqa.encode_video(other["vfeats"])
