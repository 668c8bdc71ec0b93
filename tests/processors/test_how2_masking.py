"""MFMMLMAligner: sampled as the other aligners do, masked as VLM does."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mmpt.datasets.mmdataset import MMDataset
from mmpt.models.vlm import MMFusionMTM
from mmpt.processors.base import UnusableItemError
from mmpt.processors.how2_masking import MFMMLMAligner
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import build

CLS, SEP, PAD, MASK, WORDS = 2, 3, 0, 4, 64
CONFIG: dict[str, Any] = {
    "bert_name": "tests/data/tiny_bert",
    "max_video_len": 32,
    "max_len": 96,
    "subsampling": 8,
    "sampled_min_len": 8,
    "sampled_max_len": 64,
    "lazy_vfeat_mask": True,
    "mfm_probability": 0.15,
    "mlm_probability": 0.15,
    "mm_prob": 0.5,
}


def make_video(rng: np.random.Generator, seconds: int = 120, captions: int = 40) -> tuple[np.ndarray, dict[str, Any]]:
    feature = rng.standard_normal((seconds, 5)).astype(np.float16)
    start = np.sort(rng.uniform(0, seconds - 0.01, captions))
    cap = [rng.integers(5, WORDS, rng.integers(1, 9)).tolist() for _ in range(captions)]
    return feature, {"start": start.tolist(), "end": (start + rng.uniform(0, 6, captions)).tolist(), "cap": cap}


VIDEO, TEXT = make_video(np.random.default_rng(0))


def sample(seed: int = 0, **changes: Any) -> dict[str, Any]:
    return MFMMLMAligner({**CONFIG, **changes})("v", VIDEO, TEXT, rng=np.random.default_rng(seed))


def original(item: dict[str, Any], text: dict[str, Any], row: int) -> list[int]:
    """The caption tokens of a sample, laid out by hand from what the item says it took."""
    words = [word for i in range(int(item["text_start"][row]), int(item["text_end"][row])) for word in text["cap"][i]]
    caps = [CLS, SEP, *words[:61], SEP]
    return caps + [PAD] * (64 - len(caps))


def test_an_item_of_the_published_size() -> None:
    item = sample(subsampling=32)
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in item.items() if key != "video_id"}
    assert shapes == {
        "caps": ((32, 64), torch.int64),
        "cmasks": ((32, 64), torch.bool),
        "vfeats": ((32, 32, 5), torch.float32),
        "vmasks": ((32, 32), torch.bool),
        "video_label": ((32, 32), torch.bool),
        "text_label": ((32, 64), torch.int64),
        **dict.fromkeys(("video_start", "video_end", "text_start", "text_end"), ((32,), torch.int64)),
    }
    assert item["video_id"] == "v" and isinstance(build("aligner", "MFMMLMAligner", CONFIG), MFMMLMAligner)


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.integers(1, 90),
    captions=st.integers(1, 30),
    mm_type=st.sampled_from(["full", "inverse", "mask", "textgen", "textgen_mask", "no", "normal"]),
    seed=st.integers(0, 10_000),
)
def test_labels_and_inputs_together_are_the_captions(seconds: int, captions: int, mm_type: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    feature, text = make_video(rng, seconds, captions)
    item = MFMMLMAligner({**CONFIG, "mm_type": mm_type})("v", feature, text, rng=rng)
    assert not (item["video_label"] & ~item["vmasks"]).any()
    for row in range(8):
        caps = torch.tensor(original(item, text, row))
        label, masked = item["text_label"][row], item["caps"][row]
        assert torch.equal(item["cmasks"][row], caps != PAD)
        labelled = label != -100
        assert torch.equal(label[labelled], caps[labelled])
        first, stop = int(item["video_start"][row]), int(item["video_end"][row])
        assert stop - first == int(item["vmasks"][row].sum()) > 0
        assert torch.equal(item["vfeats"][row, : stop - first], torch.from_numpy(feature[first:stop]).float())
        if generated(item)[row]:
            assert mm_type.startswith("textgen") and int(masked[2]) == CLS
            assert torch.equal(label[2:], torch.where(caps == PAD, -100, caps)[2:])
            continue
        specials = (caps == CLS) | (caps == SEP) | (caps == PAD)
        assert torch.equal(masked[specials], caps[specials]) and not labelled[specials].any()
        if mm_type != "mask":
            assert torch.equal(masked[~labelled], caps[~labelled])


def generated(item: dict[str, Any]) -> torch.Tensor:
    """Which texts are to be told from left to right: only those have a ``[SEP]`` to tell."""
    return (item["text_label"] == SEP).any(dim=1)


def kinds(item: dict[str, Any]) -> list[str]:
    """Which modality of each sample is blanked, told from the labels alone."""
    found = []
    for row in range(len(item["caps"])):
        words = int(item["cmasks"][row].sum()) - 3
        seconds = int(item["vmasks"][row].sum())
        labelled = int((item["text_label"][row] != -100).sum()), int(item["video_label"][row].sum())
        if labelled == (words, 0):
            found.append("text")
        elif labelled == (0, seconds):
            found.append("video")
        else:
            found.append("both")
    return found


def test_half_of_the_samples_blank_one_modality() -> None:
    # Long texts and clips: a partly masked sample looks like a blanked one once in 10^4 or less.
    count = 12_000
    long_text = {"start": [0.0], "end": [40.0], "cap": [[9] * 61]}
    aligner = MFMMLMAligner({**CONFIG, "subsampling": count})
    item = aligner("v", np.ones((40, 1), np.float16), long_text, rng=np.random.default_rng(1))
    found = kinds(item)
    for kind, share in (("both", 0.5), ("text", 0.25), ("video", 0.25)):
        assert abs(found.count(kind) / count - share) < 5 * math.sqrt(share * (1 - share) / count), kind
    both = torch.tensor([kind == "both" for kind in found])
    for labels, per_row in ((item["text_label"] != -100, 61), (item["video_label"], 32)):
        draws = int(both.sum()) * per_row
        assert abs(labels[both].sum() / draws - 0.15) < 5 * math.sqrt(0.15 * 0.85 / draws)
    # In the part of the samples whose words are all chosen, BERT's rule holds as elsewhere.
    text = item["caps"][torch.tensor([kind == "text" for kind in found])][:, 2:63]
    shares = [(text == MASK).double().mean(), (text == 9).double().mean()]
    tolerance = 5 * math.sqrt(0.8 * 0.2 / text.numel())
    assert abs(shares[0] - 0.8 - 0.1 / WORDS) < tolerance and abs(shares[1] - 0.1 - 0.1 / WORDS) < tolerance
    assert len(text.unique()) == WORDS, "a random id may be any of the vocabulary"


def test_probabilities_come_from_the_config() -> None:
    item = sample(subsampling=2000, mm_prob=0.0, mlm_probability=0.4, mfm_probability=0.05)
    words = int((item["cmasks"].sum(1) - 3).sum())
    assert (item["text_label"] != -100).sum() / words == pytest.approx(0.4, abs=0.02)
    assert item["video_label"].sum() / item["vmasks"].sum() == pytest.approx(0.05, abs=0.01)
    item = sample(subsampling=200, mm_prob=0.0, mlm_probability=0.0, mfm_probability=1.0)
    assert (item["text_label"] == -100).all() and torch.equal(item["video_label"], item["vmasks"])


def test_texts_are_of_varied_length_and_clips_span_them() -> None:
    single = {"start": list(range(400)), "end": list(range(1, 401)), "cap": [[5]] * 400}
    config = CONFIG | {"subsampling": 3000, "sampled_min_len": 8, "sampled_max_len": 12}
    item = MFMMLMAligner(config)("v", np.ones((400, 1), np.float16), single, rng=np.random.default_rng(0))
    lengths, counts = np.unique((item["text_end"] - item["text_start"]).numpy(), return_counts=True)
    assert lengths.tolist() == [8, 9, 10, 11, 12]
    assert ((counts - 600) ** 2 / 600).sum() < 28  # chi-square, 4 degrees: once in 10^5
    assert torch.equal(item["video_start"], item["text_start"]) and torch.equal(item["video_end"], item["text_end"])


@pytest.mark.parametrize("subsampling", [None, 0, 1])
def test_one_sample_is_not_stacked_and_takes_the_text_that_fits(subsampling: int | None) -> None:
    single = {"start": list(range(100)), "end": list(range(1, 101)), "cap": [[5]] * 100}
    config = {key: value for key, value in CONFIG.items() if not key.startswith("sampled")}
    aligner = MFMMLMAligner({**config, "subsampling": subsampling})
    item = aligner("v", np.ones((100, 3), np.float16), single, rng=np.random.default_rng(0))
    assert item["caps"].shape == item["text_label"].shape == item["cmasks"].shape == (64,) and item["cmasks"].all()
    assert item["vfeats"].shape == (32, 3) and item["video_label"].shape == item["vmasks"].shape == (32,)
    assert int(item["text_end"] - item["text_start"]) == 61 and item["video_id"] == "v"


def test_text_generation_brings_its_attention_masks() -> None:
    item = sample(3, subsampling=40, mm_type="textgen")
    assert item["attention_mask"].shape == (40, 96, 96) and item["attention_mask"].dtype == torch.bool
    assert 0 < generated(item).sum() < 40
    for row in range(40):
        valid = [bool(item["cmasks"][row, 0]), *item["vmasks"][row].tolist(), *item["cmasks"][row, 1:].tolist()]
        for query in (0, 1, 20, 33, 34, 40, 60, 95):
            causal = bool(generated(item)[row])
            text_query = query >= 34 and valid[query]
            seen = [valid[key] and (not causal or key < 34 or (text_query and key <= query)) for key in range(96)]
            assert item["attention_mask"][row, query].tolist() == seen, (row, query, causal)
        if generated(item)[row]:
            assert not item["video_label"][row].any()
            labels, words = item["text_label"][row], int(item["cmasks"][row].sum())
            # Position t is to tell what position t + 1 shows.
            assert torch.equal(labels[2 : words - 1], item["caps"][row, 3:words]) and int(labels[words - 1]) == SEP
    assert "attention_mask" not in sample(3)
    corrupted = sample(3, subsampling=40, mm_type="textgen_mask", mlm_probability=0.5)
    rows = generated(corrupted) & (corrupted["cmasks"].sum(1) > 12)
    assert (corrupted["caps"][rows, 3:12] != corrupted["text_label"][rows, 2:11]).any()
    assert "attention_mask" in corrupted


def test_mode_mask_corrupts_what_it_does_not_ask_for() -> None:
    single = {"start": [0.0], "end": [40.0], "cap": [[9] * 61]}
    config = CONFIG | {"subsampling": 400, "mm_type": "mask", "mm_prob": 1.0, "mlm_probability": 0.5}
    item = MFMMLMAligner(config)("v", np.ones((40, 1), np.float16), single, rng=np.random.default_rng(1))
    silent = ~item["video_label"].any(dim=1)
    assert 140 < silent.sum() < 260 and (item["text_label"] == -100).all()
    changed = (item["caps"][:, 2:63] != 9).double().mean(dim=1)
    assert (changed[silent] > 0.15).all() and not changed[~silent].any()


def test_frames_are_emptied_here_only_if_the_model_shall_not() -> None:
    lazy, eager = sample(5), sample(5, lazy_vfeat_mask=False)
    assert "target_vfeats" not in lazy and torch.equal(lazy["vfeats"], eager["target_vfeats"])
    assert torch.equal(lazy["video_label"], eager["video_label"]) and lazy["video_label"].any()
    assert not eager["vfeats"][eager["video_label"]].any()
    rest = ~eager["video_label"]
    assert torch.equal(eager["vfeats"][rest], lazy["vfeats"][rest])


def test_both_ways_of_emptying_frames_are_one_to_the_model() -> None:
    torch.manual_seed(0)
    dataset = {**CONFIG, "max_video_len": 8, "max_len": 24, "sampled_max_len": 12}
    logits = []
    for lazy in (True, False):
        config = MMFusionMTM.tiny_config()
        config.model.input_dim, config.dataset.lazy_vfeat_mask = 5, lazy
        torch.manual_seed(0)
        model = MMFusionMTM(config).eval()
        item = MFMMLMAligner({**dataset, "lazy_vfeat_mask": lazy})("v", VIDEO, TEXT, rng=np.random.default_rng(0))
        tensors = {key: value for key, value in item.items() if torch.is_tensor(value)}
        logits.append(model(**tensors))
    assert len(logits[0]["video_logits"]) == int(item["video_label"].sum()) > 0
    for key in ("video_logits", "text_logits"):
        torch.testing.assert_close(logits[0][key], logits[1][key])


def test_generated_words_are_told_from_the_words_before_them_alone() -> None:
    torch.manual_seed(0)
    config = MMFusionMTM.tiny_config()
    config.model.input_dim = 5
    model = MMFusionMTM(config).eval()
    dataset = {**CONFIG, "max_video_len": 8, "max_len": 24, "sampled_max_len": 12, "mm_type": "textgen", "mm_prob": 1.0}
    item = MFMMLMAligner(dataset)("v", VIDEO, TEXT, rng=np.random.default_rng(0))
    tensors = {key: value for key, value in item.items() if torch.is_tensor(value)}
    row = int(generated(item).nonzero()[0])
    changed = tensors["caps"].clone()
    changed[row, 6] = 5 if changed[row, 6] != 5 else 6
    before, after = (model(**{**tensors, "caps": caps})["text_logits"] for caps in (tensors["caps"], changed))
    rows, positions = (item["text_label"] != -100).nonzero(as_tuple=True)
    differs = (before - after).abs().amax(dim=1) > 1e-5
    assert torch.equal(differs, (rows == row) & (positions >= 6)) and differs.any()


class _Meta:
    split = "train"

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[str, str]:
        return f"v{index}", f"v{index}"


def test_items_depend_on_seed_epoch_and_index_alone() -> None:
    def dataset(seed: int = 1, epoch: int = 0) -> MMDataset:
        made = MMDataset(_Meta(), lambda _: VIDEO, lambda *_, **__: TEXT, MFMMLMAligner(CONFIG), seed=seed)
        made.set_epoch(epoch)
        return made

    def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return all(torch.equal(one[key], other[key]) for key in ("caps", "text_label", "video_label", "vfeats"))

    first = dataset()
    expected = [first[i] for i in range(4)]
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - what items must not depend on
    again = dataset()
    assert all(equal(again[i], expected[i]) for i in (3, 1, 0, 2, 1))
    assert not equal(expected[0], expected[1])
    assert not equal(dataset(epoch=1)[0], expected[0]) and not equal(dataset(seed=2)[0], expected[0])
    batch = first.collater(expected)
    assert batch["caps"].shape == (4, 8, 64) and batch["video_label"].shape == (4, 8, 32)


def test_sampling_is_the_same_whatever_is_masked() -> None:
    one, other = sample(7), sample(7, mm_type="textgen", mm_prob=1.0, mlm_probability=0.9)
    assert all(torch.equal(one[key], other[key]) for key in ("vfeats", "vmasks", "cmasks", "text_start", "video_end"))


def test_captions_that_cannot_be_used_are_handled_as_elsewhere() -> None:
    text = {"start": [0.0, 3.0, 40.0], "end": [2.0, 1.0, 50.0], "cap": [[5], [6], [8]]}
    aligner = MFMMLMAligner(CONFIG)
    item = aligner("v", np.ones((10, 2), np.float16), text, rng=np.random.default_rng(0))
    assert set(item["text_label"].unique().tolist()) <= {-100, 5} and item["vmasks"].any(dim=1).all()
    assert aligner.sampler.dropped_captions == 2
    with pytest.raises(UnusableItemError, match="vid7"):
        aligner("vid7", np.ones((3, 2)), {"start": [9.0], "end": [9.5], "cap": [[5]]})
    with pytest.raises(DataError, match="token id 64"):
        aligner("v", np.ones((3, 2)), {"start": [0.0], "end": [1.0], "cap": [[64]]})


def test_a_text_of_no_words_asks_for_none() -> None:
    item = MFMMLMAligner({**CONFIG, "mlm_probability": 1.0})(
        "v", np.ones((4, 2), np.float16), {"start": [0.0], "end": [2.0], "cap": [[]]}, rng=np.random.default_rng(0)
    )
    assert (item["text_label"] == -100).all() and item["caps"][:, :4].tolist() == [[CLS, SEP, SEP, PAD]] * 8


def test_the_layout_of_one_text_is_not_masked() -> None:
    caps, cmasks = MFMMLMAligner({**CONFIG, "mm_prob": 1.0, "mlm_probability": 1.0})._build_text_seq([7, 8])
    assert caps[:5].tolist() == [CLS, SEP, 7, 8, SEP] and int(cmasks.sum()) == 5 and len(caps) == 64


def test_keep_prob_leaves_captions_out_of_the_text() -> None:
    single = {"start": list(range(64)), "end": list(range(1, 65)), "cap": [[i] for i in range(64)]}
    config = CONFIG | {"subsampling": 3000, "sampled_min_len": 20, "sampled_max_len": 20, "keep_prob": 0.6}
    config |= {"mm_prob": 0.0, "mlm_probability": 0.0}
    single["cap"] = [[5 + i % 59] for i in range(64)]
    item = MFMMLMAligner(config)("v", np.ones((64, 1), np.float16), single, rng=np.random.default_rng(0))
    kept, met = 0, 0
    for row in range(3000):
        caps = item["caps"][row][item["cmasks"][row]][2:-1].tolist()
        inside = [w for i in range(int(item["text_start"][row]), int(item["text_end"][row])) for w in single["cap"][i]]
        rest = iter(inside)
        assert all(word in rest for word in caps), "the order stays"
        assert caps[0] == inside[0] and caps[-1] == inside[-1], "a run begins and ends with captions that it has taken"
        kept += len(caps) - 2
        met += len(inside) - 2
        assert len(caps) <= 20
    # Inside a run every caption but its centre was kept with probability 0.6.
    assert kept / met == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"mm_type": "ful"}, "mm_type: 'ful'"),
        ({"mlm_probability": 1.5}, "mlm_probability"),
        ({"mfm_probability": -0.1}, "mfm_probability"),
        ({"mm_prob": 2.0}, "mm_prob"),
        ({"keep_prob": 0.0}, "keep_prob"),
        ({"sampled_max_len": None}, "sampled_max_len"),
        ({"mm_prob": "often"}, "mm_prob"),
    ],
)
def test_config_errors_name_the_key(change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        MFMMLMAligner({**CONFIG, **change})


def test_settings_may_be_an_omegaconf_section_with_references() -> None:
    config = OmegaConf.create({"p": 0.3, "dataset": {**CONFIG, "mlm_probability": "${p}"}})
    aligner = MFMMLMAligner(config.dataset)
    assert aligner.options.mlm_probability == 0.3 and aligner.sampler.clips_per_video == 8
