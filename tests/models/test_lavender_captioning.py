"""LAVENDER's captioning: the published texts, and the same ones as from encoding everything anew for every word."""

from typing import Any

import numpy as np
import pytest
import torch
from frame_goldens import fill, frame_golden, golden_bert, golden_config
from omegaconf import OmegaConf
from torch import Tensor

from mmpt.models.lavender import LAVENDER
from mmpt.modules.decoding import decode, read_decoding_options
from mmpt.processors.lavender_captioning import LAVENDERCaptioningAligner
from mmpt.store.frame_store import StoredFrames
from mmpt.store.images import encode_jpeg
from mmpt.utils.errors import ConfigError

BERT = "tests/data/tiny_bert"
PAD, CLS, SEP, MASK = 0, 2, 3, 4


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> LAVENDER:
    bert = golden_bert("lavender", tmp_path_factory.mktemp("bert") / "bert")
    config = golden_config("lavender", "LAVENDER", bert, model={"max_decode_length": 10})
    model = fill(LAVENDER(OmegaConf.create(config)))
    assert isinstance(model, LAVENDER)
    return model


@pytest.mark.parametrize("kind", ["plain", "prompt"])
def test_greedy_texts_are_the_published_ones(published: LAVENDER, kind: str) -> None:
    golden = frame_golden("lavender")
    images, pretext = torch.from_numpy(golden["img"]), {}
    if kind == "prompt":
        pretext["prompts"] = torch.from_numpy(golden["captioning/prompt/prompt/0"])[None]
    texts = published.generate_hypotheses(images, torch.ones(3, 4, dtype=torch.bool), **pretext)
    # Published: [CLS], eight words, and [SEP] in place of the ninth.
    wanted = golden[f"captioning/{kind}/gen_ids"][:, 0]
    assert [[101, *text.ids, 102] for text in texts] == wanted.tolist()
    assert not any(text.finished for text in texts)
    scores = np.array([text.score for text in texts])
    np.testing.assert_allclose(scores, golden[f"captioning/{kind}/gen_logprob"][:, 0], atol=2e-5)


def model_of(seed: int = 0, **options: Any) -> LAVENDER:
    torch.manual_seed(seed)
    model = LAVENDER(OmegaConf.merge(LAVENDER.tiny_config(), {"model": options}))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.3)
    return model


def videos(count: int = 5) -> tuple[Tensor, Tensor]:
    """Videos of one or two frames."""
    vfeats = torch.rand(count, 2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    return vfeats, torch.arange(2)[None] < 1 + torch.arange(count)[:, None] % 2


def pretexts(count: int) -> dict[str, dict[str, Tensor]]:
    return {
        "none": {},
        "prompt": {"prompts": torch.tensor([[CLS, 9, 12, 30, SEP]]).expand(count, -1)},
        "token": {"task_ids": torch.arange(count) % 4},
    }


class Anew:
    """The texts begun so far, each encoded with its video from the beginning for every word."""

    def __init__(self, model: LAVENDER, vfeats: Tensor, vmasks: Tensor, pretext: dict[str, Tensor]) -> None:
        self.model, self.pretext, self.vfeats, self.vmasks = model, pretext, vfeats, vmasks
        self.texts = torch.zeros(len(vfeats), 0, dtype=torch.long)

    def select(self, rows: Tensor) -> None:
        self.vfeats, self.vmasks, self.texts = self.vfeats[rows], self.vmasks[rows], self.texts[rows]
        self.pretext = {key: value[rows] for key, value in self.pretext.items()}

    def next_word(self, tokens: Tensor, _: Any) -> Tensor:
        self.texts = torch.cat([self.texts, tokens[:, None]], dim=1)
        caps = torch.nn.functional.pad(self.texts, (0, 1), value=MASK)
        # The scores that training computes of a masked last word.
        labels = torch.nn.functional.pad(torch.full_like(self.texts, -100), (0, 1), value=5)
        batch = {"caps": caps, "cmasks": torch.ones_like(caps), "text_label": labels, "objective": "captioning"}
        return self.model(**batch, vfeats=self.vfeats, vmasks=self.vmasks, **self.pretext)["logits"]


@pytest.mark.parametrize("kind", ["none", "prompt", "token"])
def test_every_step_gives_the_scores_of_training(kind: str) -> None:
    model, (vfeats, vmasks) = model_of().eval(), videos()
    with torch.inference_mode():
        state = model.begin(vfeats, vmasks, **pretexts(5)[kind])
        anew = Anew(model, vfeats, vmasks, pretexts(5)[kind])
        tokens = torch.full((5,), CLS)
        for step in range(6):
            scores, wanted = model.next_word(tokens, state), anew.next_word(tokens, None)
            assert (scores - wanted).abs().max() <= 1e-5 * max(1, wanted.abs().max()), step
            assert state.words == step + 1
            tokens = (scores.argmax(-1) + torch.arange(len(scores))) % 60
            if step == 2:  # rows leave, come twice, and change places
                rows = torch.tensor([3, 0, 3])
                state.select(rows)
                anew.select(rows)
                tokens = tokens[rows]


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"num_beams": 2, "length_penalty": 0.5}, {"do_sample": True, "top_k": 9}, {"min_length": 4}],
    ids=str,
)
def test_any_search_finds_the_texts_that_encoding_anew_finds(options: dict[str, Any]) -> None:
    model, (vfeats, vmasks) = model_of(max_decode_length=7), videos()
    with torch.no_grad():  # texts of different lengths
        model.fc_mtm["predictions"].bias[SEP] += 6
    pretext, decoding = pretexts(5)["prompt"], read_decoding_options(options)
    texts = model.generate_hypotheses(vfeats, vmasks, decoding, **pretext)
    assert model.training, "its mode is what it was"
    assert [text.ids for text in texts] == model.generate(vfeats, vmasks, decoding, **pretext)
    model.eval()
    anew = Anew(model, vfeats, vmasks, pretext)
    with torch.no_grad():
        wanted = decode(anew.next_word, anew, torch.full((5,), CLS), decoding, end=SEP, max_tokens=6)
    for text, other in zip(texts, wanted, strict=True):
        assert text.finished == other.finished
        assert text.ids == (other.ids if other.finished else other.ids[:-1])
        factor = 1 if other.finished else (7 / 6) ** decoding.length_penalty
        assert text.score == pytest.approx(other.score * factor, abs=1e-4)
    assert len({len(text.ids) for text in texts}) > 1 or "min_length" in options


def test_a_score_is_the_mean_log_probability_with_the_end() -> None:
    model, (vfeats, vmasks) = model_of().eval(), videos(1)
    with torch.no_grad():
        model.fc_mtm["predictions"].bias[SEP] += 6
        (text,) = model.generate_hypotheses(vfeats, vmasks)
        anew, total, last = Anew(model, vfeats, vmasks, {}), 0.0, CLS
        assert text.finished
        for word in (*text.ids, SEP):
            scores = anew.next_word(torch.tensor([last]), None).log_softmax(-1)
            total, last = total + float(scores[0, word]), word
    assert text.score == pytest.approx(total / (len(text.ids) + 1), abs=1e-5)


def test_a_batch_of_videos_equals_videos_alone() -> None:
    model, (vfeats, vmasks) = model_of(), videos()
    together = model.generate(vfeats, vmasks)
    assert together == [model.generate(vfeats[row : row + 1], vmasks[row : row + 1])[0] for row in range(5)]
    noise = torch.where(vmasks[..., None, None, None], vfeats, torch.rand_like(vfeats))
    assert model.generate(noise, vmasks) == together, "absent frames do not matter"


@pytest.mark.parametrize("length", [2, 65])
def test_lengths_that_cannot_be(length: int) -> None:
    with pytest.raises(ConfigError, match="max_decode_length"):
        model_of(max_decode_length=length)


def aligner(split: str, **options: Any) -> LAVENDERCaptioningAligner:
    return LAVENDERCaptioningAligner(
        {"bert_name": BERT, "split": split, "max_text_len": 12, "image_size": 32, "num_frames": 2, **options}
    )


FRAMES = StoredFrames.of([encode_jpeg(np.full((32, 32, 3), 90 * number, np.uint8)) for number in range(3)])


def test_a_training_masks_every_position_of_the_text_alike() -> None:
    text, align = torch.tensor([CLS, 9, 8, 7, 6, SEP, *[PAD] * 6]), aligner("train", mask_probability=0.3)
    counts = torch.zeros(12)
    for seed in range(200):
        item = align("v", FRAMES, ([9, 8, 7, 6], "a text"), np.random.default_rng(seed))
        hidden = item["text_label"] != -100
        assert torch.equal(item["caps"], torch.where(hidden, MASK, text))
        assert torch.equal(item["text_label"][hidden], text[hidden])
        counts += hidden
    assert item["cmasks"].tolist() == [True] * 6 + [False] * 6 and counts[6:].sum() == 0
    assert (counts[:6] - 60).abs().max() < 4 * 6.5, "a standard deviation is 6.5"
    assert item["ref"] == "a text" and item["objective"] == "captioning" and item["vfeats"].shape == (2, 3, 32, 32)


def test_a_test_has_the_text_and_all_references() -> None:
    item = aligner("test", task_token=True)("v", FRAMES, (list(range(10, 30)), ["one", "two"]))
    assert item["caps"].tolist() == [CLS, *range(10, 20), SEP]
    assert item["ref"] == ["one", "two"] and "text_label" not in item
    assert item["task_ids"].item() == 3
