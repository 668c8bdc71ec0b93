"""MSRVTT-QA: the public file format, options as model inputs, and a step of training on them."""

import copy
import pickle

import numpy as np
import pytest
import torch

from mmpt.datasets.mmdataset import MMDataset
from mmpt.models.embedding import flatten_samples
from mmpt.processors.base import VideoProcessor
from mmpt.processors.msrvtt_qa import Choice, MSRVTTQAAligner, MSRVTTQAMetaProcessor, MSRVTTQATextProcessor
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import build

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "dog", "runs", "who"]
CLS, SEP = 2, 3
HEADER = "vid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n"
LINES = ["msr8\ta dog\tb\tc\td\te\t0\n", 'msr9\ta\tb\tc\t"dog ""runs"""\te\t3\n', "msr8\ta\tb\tc\td\te e\t4\n"]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "mc.csv").write_text(HEADER + "".join(LINES))
    (tmp_path / "feat").mkdir()
    for name in ("video8", "video9"):
        np.save(tmp_path / "feat" / f"{name}.npy", np.arange(12, dtype=np.float16).reshape(6, 2))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    return tmp_path


def config(files, split="test", **more):
    base = {"test_path": str(files / "mc.csv"), "train_path": str(files / "mc.csv"), "split": split}
    sizes = {"max_video_len": 4, "max_len": 12}
    return {**base, **sizes, "vfeat_dir": str(files / "feat"), "bert_name": str(files / "bert"), **more}


def dataset(files, split="test", **more) -> MMDataset:
    section = config(files, split, **more)
    parts = (MSRVTTQAMetaProcessor, VideoProcessor, MSRVTTQATextProcessor, MSRVTTQAAligner)
    return MMDataset(*(part(section) for part in parts))


def ids(*words):
    return [WORDS.index(word) for word in words]


def test_the_public_file(files):
    meta = MSRVTTQAMetaProcessor(config(files))
    assert meta.data == [
        ("video8", (0, ("a dog", "b", "c", "d", "e"))),
        ("video9", (3, ("a", "b", "c", 'dog "runs"', "e"))),
        ("video8", (4, ("a", "b", "c", "d", "e e"))),
    ]
    assert pickle.loads(pickle.dumps(meta)).data == meta.data


@pytest.mark.parametrize("number", [2, 12])
def test_any_number_of_options_in_the_order_of_their_numbers(files, number):
    names = [f"a{i}" for i in range(1, number + 1)]
    shuffled = sorted(names)  # a1, a10, a11, a12, a2 ..
    lines = ["\t".join(["extra", "vid_key", *shuffled, "answer"])]
    lines.append("\t".join(["x", "msr8", *(f"text {name}" for name in shuffled), str(number - 1)]))
    (files / "mc.csv").write_text("\n".join(lines) + "\n")
    ((_, (answer, options)),) = MSRVTTQAMetaProcessor(config(files)).data
    assert (answer, options) == (number - 1, tuple(f"text {name}" for name in names))


def test_only_names_of_the_corpus_are_renamed(files):
    lines = [LINES[0].replace("msr8", name) for name in ("video8", "msrX", "-msr8")]
    (files / "mc.csv").write_text(HEADER + "".join(lines))
    names = [name for name, _ in MSRVTTQAMetaProcessor(config(files, vfeat_dir=None)).data]
    assert names == ["video8", "msrX", "-msr8"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "msr8\ta\tb\tc\td\te\t5\n", "mc.csv: line 2: column 'answer': '5' is not the index.*0 to 4"),
        (HEADER + LINES[0] + "msr8\ta\tb\tc\td\te\t-1\n", "line 3: column 'answer': '-1'"),
        (HEADER + "msr8\ta\tb\tc\td\te\tb\n", "column 'answer': 'b'"),
        (HEADER + "msr8\ta\tb\tc\td\te\t1.0\n", "column 'answer': '1.0'"),
        (HEADER + "msr8\ta\t\tc\td\te\t1\n", "line 2: column 'a2' is empty"),
        (HEADER + "msr8\ta\tb\tc\td\t1\n", "line 2: 6 cells, but the header names 7"),
        (HEADER.replace("a3", "b3") + LINES[0], "no column 'a3' .*Did you mean"),
        ("vid_key\ta1\tanswer\nmsr8\ta\t0\n", "no column 'a2'"),
        (HEADER.replace("vid_key", "vidkey") + LINES[0], "no column 'vid_key'.*Did you mean 'vidkey'"),
        (HEADER.replace("answer", "anwser") + LINES[0], "no column 'answer'.*Did you mean 'anwser'"),
        (HEADER + "../x\ta\tb\tc\td\te\t0\n", "line 2: '../x' is not a video id"),
        ((HEADER + LINES[0]).replace("\t", ","), "no column 'vid_key'"),
        (HEADER, "lists no questions"),
        ("", "lists no questions"),
    ],
)
def test_wrong_files_are_named_with_line_and_column(files, content, message):
    (files / "mc.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        MSRVTTQAMetaProcessor(config(files))


def test_videos_without_features_are_counted(files):
    (files / "mc.csv").write_text(HEADER + LINES[0] * 19 + LINES[0].replace("msr8", "msr7"))
    assert len(MSRVTTQAMetaProcessor(config(files))) == 19
    with pytest.raises(DataError, match=r"1 of 20 questions are left out: 1 without features \(for example video7\)"):
        MSRVTTQAMetaProcessor(config(files, max_missing=0.01))


def test_an_item(files):
    item = dataset(files)[1]
    assert item["caps"].shape == item["cmasks"].shape == (5, 8) and item["caps"].dtype == torch.int64
    assert item["caps"][3].tolist() == [CLS, SEP, *ids("dog", "[UNK]", "runs", "[UNK]"), SEP, 0]
    assert item["cmasks"].sum(1).tolist() == [4, 4, 4, 7, 4]
    assert item["answers"].tolist() == [3] and item["answers"].dtype == torch.int64
    assert item["vfeats"].shape == (4, 2) and item["vfeats"][:, 0].tolist() == [0, 2, 4, 6]
    assert item["video_id"] == "video9" and item["options"][3] == 'dog "runs"' and item["question"] == ""
    assert "option_mask" not in item


def test_metadata_are_never_changed(files):
    data = dataset(files)
    before = copy.deepcopy(data.meta_processor.data)
    once = [data[i]["caps"] for i in range(3)]
    again = [data[i]["caps"] for i in range(3)]
    assert data.meta_processor.data == before
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))
    text_id = (1, ["a", "dog"])
    data.text_processor(text_id)
    assert text_id == (1, ["a", "dog"])


def test_a_batch_and_its_samples(files):
    data = dataset(files, "train")
    batch = data.collater([data[i] for i in range(3)])
    assert batch["caps"].shape == (3, 5, 8) and batch["answers"].shape == (3, 1) and "options" not in batch
    flat = flatten_samples(batch)
    assert flat["caps"].shape == flat["cmasks"].shape == (15, 8)
    assert flat["vfeats"].shape == (3, 4, 2) and flat["answers"].shape == (3, 1)


@pytest.mark.parametrize("seconds", [4, 5])
def test_videos_stay_one_per_question_even_with_as_many_seconds_as_options(files, seconds):
    data = dataset(files, "train", max_video_len=seconds, max_len=13)
    flat = flatten_samples(data.collater([data[i] for i in range(3)]))
    assert flat["vfeats"].shape == (3, seconds, 2) and flat["vmasks"].shape == (3, seconds)


def test_a_question_stands_before_each_option_and_is_cut_first(files):
    section = config(files)
    text = MSRVTTQATextProcessor(section)(Choice(1, ("a b", "c"), "who runs d e f"))
    feature = np.zeros((2, 2), np.float32)
    caps = MSRVTTQAAligner(section)("v", feature, text)["caps"]
    # five words fit; the longest option has two, so that both options keep three words of the question
    assert caps[0].tolist() == [CLS, SEP, *ids("who", "runs", "d", "a", "b"), SEP]
    assert caps[1].tolist() == [CLS, SEP, *ids("who", "runs", "d", "c"), SEP, 0]
    long = MSRVTTQATextProcessor(section)(Choice(0, ("a b c d e f", "a"), "who"))
    caps = MSRVTTQAAligner(section)("v", feature, long)["caps"]
    assert caps[0].tolist() == [CLS, SEP, *ids("a", "b", "c", "d", "e"), SEP] and caps[1, 2] == ids("a")[0]


def test_questions_with_fewer_options_are_filled_up(files):
    section = config(files)
    text = MSRVTTQATextProcessor(section)(Choice(1, ("a", "b"), slots=4))
    item = MSRVTTQAAligner(section)("v", np.zeros((2, 2), np.float32), text)
    assert item["caps"].shape == (4, 8) and item["option_mask"].tolist() == [True, True, False, False]
    assert item["caps"][3].tolist() == [CLS, SEP, SEP, 0, 0, 0, 0, 0] and item["cmasks"][3].sum() == 3
    assert item["options"] == ["a", "b"]


def test_the_published_form_without_texts_is_accepted(files):
    item = MSRVTTQAAligner(config(files))("v", np.zeros((2, 2), np.float32), (1, [ids("a"), ids("b", "c")]))
    assert item["caps"].shape == (2, 8) and "options" not in item


def test_an_answer_that_is_no_option_and_empty_features(files):
    aligner = MSRVTTQAAligner(config(files))
    with pytest.raises(DataError, match="video v: 2 is no index of its 2 options"):
        aligner("v", np.zeros((2, 2), np.float32), (2, [[5], [6]]))
    with pytest.raises(DataError, match="video v: its features hold no second"):
        aligner("v", np.zeros((0, 2), np.float32), (1, [[5], [6]]))


def test_shared_options_are_tokenised_and_laid_out_once(files, monkeypatch):
    section = config(files)
    text, aligner = MSRVTTQATextProcessor(section), MSRVTTQAAligner(section)
    labels, feature = ("a dog", "b", "who runs", "c d"), np.zeros((2, 2), np.float32)
    first = aligner("v", feature, text(Choice(2, labels)))
    calls = []
    build_row = aligner._build_text_seq
    monkeypatch.setattr(aligner, "_build_text_seq", lambda ids: calls.append(ids) or build_row(ids))
    for answer in range(4):
        choice = text(Choice(answer, (*labels,)))
        assert choice.options[0] is text(Choice(0, labels)).options[0] and choice.answer == answer
        item = aligner("v", feature, choice)
        assert torch.equal(item["caps"], first["caps"]) and torch.equal(item["cmasks"], first["cmasks"])
        assert item["answers"].tolist() == [answer] and item["options"] == list(labels)
        item["caps"].zero_()  # an item belongs to who gets it
    assert len(calls) == 4, "only the caption that the base class lays out for itself"
    # another question, another number of rows and other options are laid out anew
    assert aligner("v", feature, text(Choice(0, labels, "who")))["caps"][1, 2] == ids("who")[0]
    assert aligner("v", feature, text(Choice(0, labels, slots=6)))["caps"].shape == (6, 8)
    assert aligner("v", feature, text(Choice(0, labels[::-1])))["caps"][3].tolist() == first["caps"][0].tolist()
    for number in range(50):
        aligner("v", feature, text(Choice(0, (*labels, "e " * number))))
    assert len(aligner._laid_out) <= 8


def test_training_may_see_a_draw_of_the_options(files):
    options = tuple("abcdefgh")
    text = MSRVTTQATextProcessor(config(files, "train", sampled_options=3))
    seen = set()
    for seed in range(200):
        drawn = text(Choice(4, options), np.random.default_rng(seed))
        words = [WORDS[option[0]] for option in drawn.options]
        assert words[drawn.answer] == "e" and len(set(words)) == 3 and words == sorted(words)
        seen.update(words)
    assert seen == set(options)
    assert len(text(Choice(0, ("a", "b"), slots=8), np.random.default_rng(0)).options) == 2
    assert text(Choice(0, ("a", "b"), slots=8), np.random.default_rng(0)).slots == 3
    one, two = (text(Choice(4, options), np.random.default_rng(7)) for _ in range(2))
    assert one == two
    assert len(MSRVTTQATextProcessor(config(files, "test", sampled_options=3))(Choice(4, options)).options) == 8
    with pytest.raises(ConfigError, match="sampled_options: 1"):
        MSRVTTQATextProcessor(config(files, "train", sampled_options=1))


@pytest.mark.parametrize("name", ["MMFusionSeparate", "MMFusionJoint"])
def test_multiple_choice_loss_falls_in_training(files, name):
    """Questions with one right option each are learned by heart, and only the order of the answers says which."""
    from mmpt.tasks.task import Task
    from mmpt.utils.registry import resolve_class

    settings = resolve_class("model", name).tiny_config()
    settings.model.input_dim = 2
    if name == "MMFusionJoint":
        settings.dataset.num_iso_layer = settings.dataset.get("num_iso_layer") or 1
    settings.merge_with({"loss": {"loss_cls": "MultipleChoiceLoss"}})
    task = Task(settings)
    torch.manual_seed(0)
    model, _ = task.build_model().train(), task.build_loss()
    data = dataset(files, "train", bert_name=str(settings.dataset.bert_name), use_fast=False)
    batch = data.collater([{**data[i], "vfeats": torch.randn(4, 2)} for i in range(3)])
    words = torch.arange(5).view(1, 5) + 5 + 5 * torch.arange(3).view(3, 1)
    batch["caps"][:, :, 2] = words
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        outputs = task(model, batch)
        outputs["loss"].backward()
        optimizer.step()
        losses.append(float(outputs["loss_scalar"]))
    assert outputs["batch_size"] == 15
    assert losses[-1] < 0.1 < losses[0]


def test_options_that_only_fill_up_take_no_part_in_the_loss():
    loss = build("loss", "MultipleChoiceLoss")
    video, text = torch.randn(2, 4), torch.randn(2, 3, 4)
    alone = [loss(video[:1], text[0, :2], torch.tensor([1])), loss(video[1:], text[1], torch.tensor([2]))]
    text[0, 2] = 1000.0  # would win, or lose, everything
    mask = torch.tensor([[True, True, False], [True, True, True]])
    batch = {"caps": torch.zeros(2, 3, 5), "answers": torch.tensor([[1], [2]]), "option_mask": mask}
    flat = flatten_samples(batch)
    both = loss(pooled_video=video, pooled_text=text.flatten(0, 1), **flat)
    assert both.item() == pytest.approx((alone[0] + alone[1]).item() / 2, rel=1e-5)


def test_names_of_the_registry(files):
    section = config(files)
    for kind, name in (
        ("meta_processor", "MSRVTTQAMetaProcessor"),
        ("text_processor", "MSRVTTQATextProcessor"),
        ("aligner", "MSRVTTQAAligner"),
    ):
        assert type(build(kind, name, section)).__name__ == name
