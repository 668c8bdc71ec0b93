"""Captions of a test set: files, references, repeatable draws, and the whole way from features to scores."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from mmpt.datasets.mmdataset import MMDataset
from mmpt.evaluators import Evaluator
from mmpt.evaluators.base import NothingEvaluated
from mmpt.evaluators.caption_predictor import NLGPredictor
from mmpt.models.captioning import MMFusionNLG
from mmpt.modules.decoding import Hypothesis
from mmpt.processors.captioning import DSNLGAligner, NLGTextProcessor
from mmpt.processors.youcook import YoucookVideoProcessor
from mmpt.processors.youcook_captioning import YoucookNLGMetaProcessor
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.schema import validate

BERT = "tests/data/tiny_bert"


def config(folder, **more):
    base = {
        "dataset": {"bert_name": BERT, "use_fast": True},
        # METEOR takes seconds to start.
        "eval": {
            "save_path": str(folder / "eval"),
            "caption_tokenizer": "simple",
            "caption_metrics": ["Bleu_1", "Bleu_4", "ROUGE_L", "CIDEr"],
        },
        "metric": "NLGMetric",
        "predictor": "NLGPredictor",
    }
    return OmegaConf.merge(OmegaConf.create(base), more)


class Writer(nn.Module):
    """Writes the first feature of a video as word ids; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def generate(self, vfeats, vmasks, options, rngs):
        self.calls.append((len(vfeats), options, [rng.random() for rng in rngs]))
        texts = []
        for video, mask in zip(vfeats, vmasks, strict=True):
            texts.append([int(word) for word in video[mask, 0]])
        return texts


def batch(names: list[str], words: list[list[int]], refs: list, first: int = 0) -> dict:
    longest = max(map(len, words))
    vfeats = torch.tensor([[[float(word)] for word in one + [0] * (longest - len(one))] for one in words])
    vmasks = torch.tensor([[True] * len(one) + [False] * (longest - len(one)) for one in words])
    numbers = torch.arange(first, first + len(names))
    return {"video_id": names, "vfeats": vfeats, "vmasks": vmasks, "ref": refs, "idx": numbers}


def test_one_caption_per_clip_with_all_its_references(tmp_path) -> None:
    model, predictor = Writer(), NLGPredictor(config(tmp_path))
    predictor.make_folder()
    batches = [
        batch(["a", "b", "a"], [[9, 8], [0, 2], [9, 8]], ["First A.", ["B one", "B two"], "Second A."]),
        batch(["c", "a"], [[7], [9, 8]], ["C", "First A."], first=3),
        batch(["a", "b"], [[9, 8], [0, 2]], ["Third A.", "B two"], first=5),
    ]
    outputs = predictor(model, batches, device="cpu")
    wanted = {
        "outputs": ["w4 w3", "none", "w2"],
        "targets": [["First A.", "Second A.", "Third A."], ["B one", "B two"], ["C"]],
        "ids": ["a", "b", "c"],
    }
    assert outputs == wanted == predictor.load()
    assert json.loads((tmp_path / "eval" / "merged.json").read_text()) == wanted
    assert [count for count, _, _ in model.calls] == [2, 1]  # a clip is written about once


def test_draws_belong_to_the_item_whatever_the_batch(tmp_path) -> None:
    drawn = []
    for sizes in ((3,), (1, 2), (2, 1)):
        model, first = Writer(), 0
        predictor = NLGPredictor(config(tmp_path, gen_param={"do_sample": True, "seed": 4}))
        predictor.make_folder()
        batches = []
        for size in sizes:
            names = [f"video{number}" for number in range(first, first + size)]
            batches.append(batch(names, [[9]] * size, ["x"] * size, first))
            first += size
        predictor(model, batches, device="cpu")
        assert all(options.do_sample and options.seed == 4 for _, options, _ in model.calls)
        drawn.append([number for _, _, numbers in model.calls for number in numbers])
    assert drawn[0] == drawn[1] == drawn[2] and len(set(drawn[0])) == 3


@pytest.mark.parametrize("use_fast", [True, False])
def test_words_are_joined_as_people_write_them(tmp_path, use_fast: bool) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "don", "'", "t", "fry", "##ing", ",", "it", "."]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    settings = config(tmp_path, dataset={"bert_name": str(folder), "use_fast": use_fast})
    predictor = NLGPredictor(settings)
    predictor.make_folder()
    given = [batch(["a", "b"], [[5, 6, 7, 8, 9, 10, 11, 12], [2, 4, 0, 8]], ["x", "y"])]
    assert predictor(Writer(), given, device="cpu")["outputs"] == ["don't frying, it.", "fry"]


def test_what_cannot_be_captioned_is_named(tmp_path) -> None:
    predictor = NLGPredictor(config(tmp_path))
    predictor.make_folder()
    given = batch(["a"], [[9]], ["x"])
    with pytest.raises(ConfigError, match="NLGPredictor needs a model that writes text; Linear does not"):
        predictor(nn.Linear(1, 1), [given], device="cpu")
    with pytest.raises(NothingEvaluated):
        predictor(Writer(), [], device="cpu")
    with pytest.raises(DataError, match="no references"):
        predictor(Writer(), [{key: value for key, value in given.items() if key != "ref"}], device="cpu")
    (tmp_path / "eval" / "merged.json").write_text("[1]")
    with pytest.raises(DataError, match=r"merged\.json: does not hold outputs, targets and ids"):
        predictor.load()


def test_unknown_keys_of_gen_param_are_errors_of_the_config(tmp_path) -> None:
    assert validate(config(tmp_path, gen_param={"num_beams": 5, "length_penalty": 0.6}), "job") == []
    with pytest.raises(ConfigError, match=r"job: unknown key 'gen_param\.num_beam' .*'num_beams'"):
        validate(config(tmp_path, gen_param={"num_beam": 5}), "job")
    with pytest.raises(ConfigError, match=r"gen_param\.num_beam: unknown key"):
        NLGPredictor(config(tmp_path, gen_param={"num_beam": 5}))


@pytest.fixture
def youcook(tmp_path):
    """Three clips, two of them of one video, in the public layout."""
    sentences = {"vid_A": ["w1 w2.", "W3, w3"], "vidB": ["w5"]}
    database = {
        name: {"annotations": [{"segment": [3 * n, 3 * n + 3], "sentence": text} for n, text in enumerate(texts)]}
        for name, texts in sentences.items()
    }
    (tmp_path / "annotations.json").write_text(json.dumps({"database": database}))
    (tmp_path / "list.txt").write_text("101/vid_A\n102/vidB\n")
    (tmp_path / "feat").mkdir()
    rng = np.random.default_rng(0)
    for name in sentences:
        np.save(tmp_path / "feat" / f"{name}.npy", rng.standard_normal((7, 6)).astype(np.float16))
    paths = {"test_path": "list.txt", "train_path": "list.txt", "trainval_annotation": "annotations.json"}
    dataset = {key: str(tmp_path / name) for key, name in {**paths, "vfeat_dir": "feat"}.items()}
    model = {"model_cls": "MMFusionNLG", "init": "random", "input_dim": 6, "max_decode_length": 9}
    sizes = {"max_video_len": 8, "max_len": 24}
    return config(tmp_path, dataset={**dataset, **sizes}, model=model, gen_param={"num_beams": 3})


def dataset_of(settings, split: str) -> MMDataset:
    section = OmegaConf.merge(settings.dataset, {"split": split})
    parts = (YoucookNLGMetaProcessor, YoucookVideoProcessor, NLGTextProcessor, DSNLGAligner)
    return MMDataset(*(part(section) for part in parts))


def test_from_features_to_scores_on_what_was_learnt(tmp_path, youcook) -> None:
    torch.manual_seed(0)
    model = MMFusionNLG(youcook)
    train, test = dataset_of(youcook, "train"), dataset_of(youcook, "test")
    given = train.collater([train[row] for row in range(3)])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(80):
        optimizer.zero_grad()
        logits = model(**given)["logits"].scores()
        label = given["text_label"]
        loss = nn.functional.cross_entropy(logits, label[label != -100])
        loss.backward()
        optimizer.step()
    evaluator = Evaluator(youcook)
    loader = DataLoader(test, batch_size=2, collate_fn=test.collater)
    metrics = evaluator.evaluate(model, loader, device="cpu")
    saved = json.loads((tmp_path / "eval" / "merged.json").read_text())
    assert saved["targets"] == [["w1 w2."], ["W3, w3"], ["w5"]]  # as they were written
    assert saved["ids"] == ["vid_A_0_3", "vid_A_3_6", "vidB_0_3"]
    # The tiny vocabulary has no comma and no point: they are unknown words, and those are left out of a caption.
    assert saved["outputs"] == ["w1 w2", "w3 w3", "w5"]
    assert metrics["Bleu_1"] == pytest.approx(1.0) and metrics["count"] == 3 and metrics["tokenizer"] == "simple"
    record = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert record["main"] == "Bleu_1" and record["metrics"]["tokenizer"] == "simple"
    assert evaluator() == metrics


class Sure(nn.Module):
    """Writes the task as a word, and is the surer the longer the video."""

    def generate_hypotheses(self, vfeats, vmasks, options, rngs, prompts=None, task_ids=None):
        assert prompts is None or len(prompts) == len(vfeats)
        words = task_ids if prompts is None else prompts[:, 1]
        return [
            Hypothesis([] if word < 5 else [int(word)], -1 / int(mask.sum()), True)
            for word, mask in zip(words, vmasks, strict=True)
        ]


@pytest.mark.parametrize("key", ["prompts", "task_ids"])
def test_pretext_goes_to_the_model_and_confidences_to_the_table(tmp_path, key) -> None:
    given = batch(["a", "b", "a", 'c "é"'], [[9], [9, 8], [9], [9, 8, 7, 6]], ["A", "B", "A again", "C"])
    words = torch.tensor([7, 8, 63, 3])
    given[key] = words if key == "task_ids" else torch.stack([torch.full_like(words, 2), words], dim=1)
    settings = config(tmp_path)
    settings.eval.caption_tsv = True
    validate(settings, "test.yaml")
    predictor = NLGPredictor(settings)
    predictor.make_folder()
    outputs = predictor(Sure(), [given], device="cpu")
    assert outputs["outputs"] == ["w2", "w3", "none"]
    lines = [line.split("\t") for line in (tmp_path / "eval" / "merged.tsv").read_text("utf-8").splitlines()]
    assert [name for name, _ in lines] == ["a", "b", 'c "é"']
    for (_, told), caption, length in zip(lines, outputs["outputs"], (1, 2, 4), strict=True):
        assert json.loads(told) == [{"caption": caption, "conf": pytest.approx(np.exp(-1 / length))}]
    with pytest.raises(ConfigError, match="eval.caption_tsv: Writer does not say how sure it is"):
        predictor(Writer(), [given], device="cpu")
