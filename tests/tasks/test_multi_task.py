"""Multi-task training: whose batches an epoch has, what a config may say, and a training that is cut and goes on."""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mmpt.datasets.member_datasets import MEMBER, Member, MemberDatasets, member_seed
from mmpt.datasets.mmdataset import PADDING_STEP, MMDataset
from mmpt.models.lavender import LAVENDER
from mmpt.models.lavender_heads import LAVENDERMultiHead
from mmpt.tasks.multi_task import MultiTask
from mmpt.tasks.task import config_task
from mmpt.utils.errors import ConfigError
from mmpt.utils.schema import validate
from tests.processors.frame_samples import write_frames
from tests.tasks.conftest import plain


class Items:
    """Items that say who they are and what they have drawn; every part of a dataset in one."""

    dup = 1

    def __init__(self, name: str, count: int, split: str = "train") -> None:
        self.name, self.count, self.split = name, count, split

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[str, int]:
        return f"{self.name}{index}", index

    def __call__(self, video_id: Any, *rest: Any, rng: Any = None) -> Any:
        return {"video_id": video_id, "draw": float(rng.random())} if rest else video_id


SIZES = {"large": (40, 4), "small": (3, 2), "middle": (10, 5)}  # 10 + 2 + 2 batches


def datasets(split: str = "train", seed: int = 5) -> MemberDatasets:
    members = {}
    for name, (count, size) in SIZES.items():
        items = Items(name, count, split)
        members[name] = Member(MMDataset(items, items, items, items, member_seed(seed, name)), size)
    return MemberDatasets(members, seed)


def test_an_epoch_has_as_many_batches_as_its_members_and_each_is_of_one() -> None:
    data = datasets()
    seen: Counter[str] = Counter()
    for epoch in range(1, 101):
        data.set_epoch(epoch)
        batches = data.epoch_batches()
        assert len(batches) == 14
        for batch in batches:
            places = np.searchsorted(data.starts, batch % len(data), side="right") - 1
            assert len(set(places.tolist())) == 1
            name = data.names[places[0]]
            assert len(batch) <= SIZES[name][1]
            seen[name] += 1
    # Uniform over members, not over items or batches: each has a third, 1400 / 3 = 467 +- 18 (one deviation).
    assert all(abs(count - 467) < 4 * 18 for count in seen.values()), seen


def test_a_member_is_passed_over_whole_before_it_comes_again() -> None:
    data = datasets()
    data.set_epoch(3)
    indices = np.concatenate([batch for batch in data.epoch_batches() if data.item(int(batch[0]))[MEMBER] == "small"])
    assert len(indices) > 6, "this epoch passes over it more than once"
    assert len(set(indices.tolist())) == len(indices)
    items = [data[int(index)] for index in indices]
    for start in range(0, len(items) - 2, 3):
        assert sorted(item["video_id"] for item in items[start : start + 3]) == ["small0", "small1", "small2"]
    draws = [item["draw"] for item in items if item["video_id"] == "small0"]
    assert len(set(draws)) == len(draws) > 1, "a later pass draws anew"


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    def drawn(data: MemberDatasets, epoch: int) -> list[list[int]]:
        data.set_epoch(epoch)
        return [batch.tolist() for batch in data.epoch_batches()]

    used = datasets()
    first, second = drawn(used, 1), drawn(used, 2)
    assert first != second and drawn(used, 1) == first
    assert drawn(datasets(), 2) == second and drawn(datasets(seed=6), 2) != second


def test_items_are_those_of_a_training_on_the_member_alone() -> None:
    data, alone = datasets(), Items("middle", 10)
    member = MMDataset(alone, alone, alone, alone, member_seed(5, "middle"))
    for dataset in (data, member):
        dataset.set_epoch(4)
    assert data[43 + 7] == {**member[7], MEMBER: "middle"}
    assert data[43 + 7]["draw"] != data[7]["draw"], "members share no randomness"


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_other_splits_have_every_item_once_in_order(split: str) -> None:
    data = datasets(split)
    batches = data.epoch_batches()
    assert np.concatenate(batches).tolist() == list(range(53))
    assert [len(batch) for batch in batches] == [4] * 10 + [2, 1, 5, 5]
    assert data.meta_processor[52] == ("middle9", 9) and len(data) == 53


@pytest.fixture
def config(pretraining_config: dict[str, Any], tiny_corpus: Path) -> dict[str, Any]:
    """Two members: the narration, 6 batches of 3 videos with 3 clips each, and 18 captioned clips, 3 batches."""
    config = plain(pretraining_config)
    dataset = config["dataset"]
    narration = {
        key: dataset.pop(key)
        for key in (
            "meta_processor", "video_processor", "text_processor", "aligner", "train_path", "val_path", "tfeat_dir",
            "subsampling", "sampled_min_len", "sampled_max_len", "sampled_video_min_len", "sampled_video_max_len",
        )
    }  # fmt: skip
    captions = {
        "meta_processor": "MSRVTTMetaProcessor",
        "text_processor": "MSRVTTTextProcessor",
        "aligner": "DSAligner",
        "train_path": str(tiny_corpus / "train.csv"),
        "json_path": str(tiny_corpus / "captions_vtt.json"),
        "batch_size": 6,
        "video_processor": "VideoProcessor",
        "vfeat_dir": str(tiny_corpus / "features"),
    }
    dataset["members"] = {"narration": narration, "captions": captions}
    config["task"] = "MultiTask"
    config["fairseq"]["dataset"]["batch_size"] = 9
    config["fairseq"]["optimization"]["max_epoch"] = 1
    return config


def test_a_config_of_members(config: dict[str, Any]) -> None:
    made = OmegaConf.create(config)
    assert validate(made, "job.yaml") == []
    task = config_task(made, seed=7)
    assert isinstance(task, MultiTask)
    task.build_dataset()
    assert isinstance(task.train_data, MemberDatasets)
    sizes = {name: (len(member.dataset), member.batch_size) for name, member in task.train_data.members.items()}
    assert sizes == {"narration": (18, 3), "captions": (18, 6)}
    assert isinstance(task.val_data, MemberDatasets) and list(task.val_data.members) == ["narration"]
    task.build_loss()
    model = task.build_model()
    batch = task.train_data.collater([task.train_data[index] for index in (20, 21)])
    assert batch[MEMBER] == ["captions"] * 2
    outputs = task(model, batch)
    assert outputs["measures"]["captions_loss"] == (outputs["loss_scalar"], 1)
    assert outputs["measures"]["narration_loss"] == (0, 0)
    padded = task(model, {**batch, PADDING_STEP: True})
    assert all(measure == (0, 0) for measure in padded["measures"].values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"captions": {"json_pth": "x"}}, "job.yaml: dataset.members.captions: unknown key 'dataset.json_pth'"),
        ({"captions": {"aligner": "DSAlinger"}}, "dataset.members.captions.*DSAligner"),
        ({"captions": {"max_video_len": "long"}}, "dataset.members.captions: .*max_video_len"),
        ({"captions": [1]}, "dataset.members.captions: is a section of keys, not list"),
        ({}, "dataset.members: not set"),
    ],
)  # fmt: skip
def test_keys_of_members_are_checked(config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    members = config["dataset"]["members"]
    for name, keys in change.items():
        members[name] = {**members[name], **keys} if isinstance(keys, dict) else keys
    if not change:
        members.clear()
    with pytest.raises(ConfigError, match=message):
        validate(OmegaConf.create(config), "job.yaml")


def test_what_nothing_reads_is_told(config: dict[str, Any]) -> None:
    config["dataset"]["trainval_annotation"] = "a.json"
    config["dataset"]["members"]["captions"]["sampled_min_len"] = 2
    assert validate(OmegaConf.create(config), "j") == [
        "dataset.trainval_annotation",
        "dataset.members.captions.sampled_min_len",
    ]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("dataset.members.captions.batch_size", 0, "dataset.members.captions: .*batch_size"),
        ("fairseq.dataset.batch_size", None, "dataset.members.narration: neither batch_size"),
        ("dataset.members.captions.aligner", None, "dataset.members.captions: dataset.aligner is not set"),
        ("dataset.split", "test", "each member is tested by a job of its own"),
        ("loss.global_negatives", True, "may be of another task"),
    ],
)
def test_members_that_cannot_be_trained(config: dict[str, Any], path: str, value: Any, message: str) -> None:
    made = OmegaConf.create(config)
    OmegaConf.update(made, path, value, force_add=True)
    task = config_task(made)
    with pytest.raises(ConfigError, match=message):
        task.build_dataset()
        task.build_loss()


@pytest.mark.slow
def test_a_training_that_is_cut_goes_on_with_the_same_tasks(config: dict[str, Any], tmp_path: Path) -> None:
    """9 updates, of which the fifth is cut off; without data workers before, with two of them after."""
    pytest.importorskip("fairseq")
    from fairseq_runs import KILLED, assert_same, final, run

    def in_folder(name: str, workers: int) -> dict[str, Any]:
        made = copy.deepcopy(config)
        made["fairseq"]["checkpoint"] |= {"save_dir": str(tmp_path / name), "save_interval_updates": 3}
        made["fairseq"]["dataset"]["num_workers"] = workers
        return made

    codes, output = run(in_folder("whole", 0), tmp_path)
    assert codes == [0], output
    assert final(tmp_path / "whole")["updates"] == 9
    for key in ("train_narration_loss", "train_captions_loss", "valid_narration_loss"):
        assert f'"{key}"' in output
    assert '"valid_captions_loss"' not in output
    codes, output = run(in_folder("cut", 0), tmp_path, fault=("before_update", 5))
    assert codes == [KILLED], output
    codes, output = run(in_folder("cut", 2), tmp_path)
    assert codes == [0] and "Loaded checkpoint" in output, output
    assert_same(final(tmp_path / "whole"), final(tmp_path / "cut"))


@pytest.mark.slow
def test_two_processes_share_the_tasks(config: dict[str, Any], tmp_path: Path) -> None:
    """Five updates for 9 batches, so that one process has none once; validation is of one member."""
    pytest.importorskip("fairseq")
    from fairseq_runs import final, run

    config["fairseq"]["distributed_training"] = {"ddp_backend": "no_c10d"}
    codes, output = run(config, tmp_path, ranks=2)
    assert codes == [0, 0], output
    found = final(Path(config["fairseq"]["checkpoint"]["save_dir"]))
    assert found["updates"] == 5 and all(torch.isfinite(one).all() for one in found["model"].values())
    assert '"train_captions_loss"' in output and '"valid_narration_loss"' in output


@pytest.fixture
def lavender_members(tmp_path: Path) -> dict[str, Any]:
    """Retrieval, multiple choice, open questions and captions about the same four clips."""
    write_frames(tmp_path / "frames", {f"v{number}": 3 for number in range(4)})
    names = [f"v{number}" for number in range(4)]

    def listed(name: str, **keys: Any) -> dict[str, Any]:
        splits = {split: [{"video": video, **keys} for video in names] for split in ("train", "val", "test")}
        (tmp_path / f"{name}.json").write_text(json.dumps({**splits, "vocab": ["w8", "w9"]}))
        return dict.fromkeys(("train_path", "val_path"), str(tmp_path / f"{name}.json"))

    rows = "".join(f'{name}.mp4\t[{{"caption": "w1 w2"}}, {{"caption": "w3"}}]\n' for name in names)
    (tmp_path / "captions.tsv").write_text(rows)
    (tmp_path / "captions.yaml").write_text("caption: captions.tsv\n")
    captions = dict.fromkeys(("train_path", "val_path"), str(tmp_path / "captions.yaml"))
    options = {"question": "w4", "option_0": "w5", "option_1": "w6", "answer": 1}
    clips = {"video_processor": "FrameVideoProcessor", "text_processor": "ClipTextProcessor"}
    return {
        "retrieval": {
            **clips,
            **listed("retrieval", caption="w1 w2 w3"),
            "meta_processor": "ClipRetrievalMetaProcessor",
            "aligner": "LAVENDERRetrievalAligner",
        },
        "choice": {
            **clips,
            **listed("choice", **options),
            "meta_processor": "ClipChoiceMetaProcessor",
            "aligner": "LAVENDEROptionsAligner",
            "batch_size": 2,
        },
        "question": {
            **clips,
            **listed("question", question="w7", answer_text="w8", answer=0),
            "meta_processor": "ClipQuestionMetaProcessor",
            "aligner": "LAVENDERQuestionAligner",
        },
        "captions": {
            **captions,
            "meta_processor": "CaptionTSVMetaProcessor",
            "video_processor": "FrameVideoProcessor",
            "text_processor": "NLGTextProcessor",
            "aligner": "LAVENDERCaptioningAligner",
            "mask_probability": 0.5,
        },
    }


def losses_of(config: Any) -> dict[str, tuple[int, float]]:
    """Return the size and the loss of the last batch of each member; every head has a gradient then."""
    assert validate(config, "job.yaml") == []
    task = config_task(config, seed=1)
    task.build_dataset()
    task.build_loss()
    model, data, seen = task.build_model(), task.val_data, {}
    assert isinstance(data, MemberDatasets)
    for indices in data.epoch_batches():
        batch = data.collater([data[int(index)] for index in indices])
        outputs = task(model, batch)
        outputs["loss"].backward()
        seen[batch[MEMBER][0]] = (outputs["batch_size"], float(outputs["loss_scalar"]))
    heads = [name for name, one in model.named_parameters() if name.startswith("fc_") and one.grad is None]
    assert not heads
    return seen


def lavender_config(members: dict[str, Any], base: Any, loss: str, **dataset: Any) -> Any:
    shared = {"frame_path": "frames", "image_transform": ["pad_resize"], **dataset, "members": members}
    sections = {"task": "MultiTask", "dataset": shared, "loss": {"loss_cls": loss}}
    return OmegaConf.merge(base, sections, {"fairseq": {"dataset": {"batch_size": 3}}})


def test_lavender_trains_on_members_of_every_kind(lavender_members: dict[str, Any], tmp_path: Path) -> None:
    frames = {"frame_path": str(tmp_path / "frames"), "task_token": True}
    seen = losses_of(lavender_config(lavender_members, LAVENDER.tiny_config(), "LAVENDERLoss", **frames))
    assert list(seen) == ["retrieval", "choice", "question", "captions"]
    assert [size for size, _ in seen.values()] == [1, 4, 1, 1]
    # Untrained, one of 64 words is as likely as another.
    assert all(abs(loss - np.log(64)) < 0.5 for _, loss in seen.values()), seen


def test_a_head_for_each_member(lavender_members: dict[str, Any], tmp_path: Path) -> None:
    for name, aligner in (
        ("retrieval", "FrameAligner"),
        ("choice", "VIOLETMultipleChoiceAligner"),
        ("question", "VIOLETOpenEndedAligner"),
    ):
        lavender_members[name]["aligner"] = aligner
    heads = {
        "retrieval": {"type": "retrieval"},
        "choice": {"type": "retmc"},
        "question": {"type": "qaoe", "outputs": 2},
    }
    base = OmegaConf.merge(LAVENDERMultiHead.tiny_config())
    base.model.heads, base.model.member = heads, None
    seen = losses_of(lavender_config(lavender_members, base, "HeadsLoss", frame_path=str(tmp_path / "frames")))
    # One pair alone is told for certain; of two options, or two answers, one is as likely as the other.
    wanted = {"retrieval": 0, "choice": np.log(2), "question": np.log(2), "captions": np.log(64)}
    assert all(abs(seen[name][1] - loss) < 0.5 for name, loss in wanted.items()), seen
