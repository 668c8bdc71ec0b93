"""CrossTask: hand-made files in the public formats, the split, and the windows of a video with known steps."""

import logging
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.datasets.mmdataset import MMDataset
from mmpt.processors.annotations import SkipReport
from mmpt.processors.base import VideoProcessor
from mmpt.processors.crosstask import CrossTaskAligner, CrossTaskMetaProcessor, CrossTaskTextProcessor, StepVideo
from mmpt.processors.crosstask_files import (
    Segment,
    StepTask,
    read_segments,
    read_tasks,
    read_video_list,
    split_videos,
    step_targets,
)
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import REPOSITORY

TINY = {"bert_name": str(REPOSITORY / "tests/data/tiny_bert"), "use_fast": False}
PRIMARY = """105222
Make Jello Shots
https://www.wikihow.com/Make-Jello-Shots
3
pour water,stir mixture,pour mixture into cup

16815
Make a Latte
https://www.wikihow.com/Make-a-Latte
2
add coffee,press coffee

"""
RELATED = """113766
Make Tea
https://www.wikihow.com/Make-Tea
1
pour water

40567
Grill Steak
https://www.wikihow.com/Grill-Steak
2
season steak,flip steak"""
URL = "https://www.youtube.com/watch?v={}&list=a,b"
SHOTS = [f"jello{number}" for number in range(6)]
LATTES = ["latte_0", "latte-1"]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "primary.txt").write_text(PRIMARY)
    (tmp_path / "related.txt").write_text(RELATED)
    pairs = [("105222", name) for name in SHOTS] + [("16815", name) for name in LATTES]
    pairs += [("113766", "tea"), ("40567", "steak")]
    (tmp_path / "videos.csv").write_text("".join(f"{task},{name},{URL.format(name)}\n" for task, name in pairs))
    (tmp_path / "videos_val.csv").write_text(f"105222,{SHOTS[0]},{URL.format(SHOTS[0])}\n")
    for folder in ("annotations", "feat"):
        (tmp_path / folder).mkdir()
    for task, name in pairs:
        np.save(tmp_path / "feat" / f"{name}.npy", np.ones((10, 4), np.float16))
        if task != "40567":  # of the related tasks, not all are annotated
            (tmp_path / "annotations" / f"{task}_{name}.csv").write_text("1,0.5,2\n")
    return tmp_path


def config(files, split="train", **more):
    names = {
        "train_path": "videos.csv",
        "val_path": "videos_val.csv",
        "test_path": "videos_val.csv",
        "train_csv_path": "videos.csv",
        "val_csv_path": "videos_val.csv",
        "primary_path": "primary.txt",
        "related_path": "related.txt",
        "annotation_path": "annotations",
        "vfeat_dir": "feat",
    }
    paths = {key: str(files / name) for key, name in names.items()}
    return {**paths, "split": split, "n_train": 3, "max_missing": 0.0, **TINY, **more}


def videos(files, split, **more) -> list[tuple[str, str]]:
    return [(item.task, item.video_id) for item, _ in CrossTaskMetaProcessor(config(files, split, **more)).data]


class TestFiles:
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("tail", ["", "\n", "\n\n\n"])
    def test_tasks(self, tmp_path, end, tail):
        path = tmp_path / "tasks.txt"
        path.write_bytes(("\ufeff" + PRIMARY.rstrip() + tail).replace("\n", end).encode())
        steps = ("pour water", "stir mixture", "pour mixture into cup")
        assert read_tasks(path) == {
            "105222": StepTask("105222", "Make Jello Shots", steps),
            "16815": StepTask("16815", "Make a Latte", ("add coffee", "press coffee")),
        }

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("\n3\n", "\n4\n", r"line 1: task '105222': should have 4 steps, but lists 3"),
            ("\n2\n", "\ntwo\n", r"line 7: task '16815': 'two' is not a number of steps"),
            ("add coffee,", ",", r"task '16815': should have 2 steps"),
            ("\n2\nadd coffee,press coffee\n", "\n", r"line 7: task '16815': '' is not a number of steps"),
            ("\n16815\n", "\n105222\n", r"task '105222' is listed twice"),
            ("into cup\n", "into cup\nand more\n", r"task '105222': a blank line .* not 'and more'"),
        ],
    )
    def test_damaged_records_spoil_their_task_alone(self, tmp_path, old, new, message):
        path = tmp_path / "tasks.txt"
        assert old in PRIMARY
        path.write_text(PRIMARY.replace(old, new) + RELATED)
        tasks = read_tasks(path)
        faults = [task for task in tasks.values() if task.fault]
        assert len(faults) == 1 and not faults[0].steps
        with pytest.raises(DataError, match=message) as error:
            faults[0].usable()
        assert str(path) in str(error.value)
        # the records after it are read as if it were not there
        assert tasks["40567"].usable() == StepTask("40567", "Grill Steak", ("season steak", "flip steak"))
        assert tasks["113766"].steps == ("pour water",)

    def test_a_record_that_is_cut_at_the_end_of_the_file(self, tmp_path):
        path = tmp_path / "tasks.txt"
        path.write_text(PRIMARY + "7\nMake Tea\nhttps://x")
        tasks = read_tasks(path)
        assert [task.fault == "" for task in tasks.values()] == [True, True, False]
        with pytest.raises(DataError, match="task '7': its record has 3 lines"):
            tasks["7"].usable()

    def test_a_record_without_its_url(self, tmp_path):
        path = tmp_path / "tasks.txt"
        path.write_text(PRIMARY.replace("https://www.wikihow.com/Make-a-Latte", ""))
        assert read_tasks(path)["16815"].usable().steps == ("add coffee", "press coffee")

    def test_an_empty_list_of_tasks(self, tmp_path):
        (tmp_path / "tasks.txt").write_text("\n\n")
        with pytest.raises(DataError, match=r"tasks\.txt: lists no tasks"):
            read_tasks(tmp_path / "tasks.txt")

    def test_video_list(self, tmp_path):
        path = tmp_path / "videos.csv"
        path.write_bytes(b"1,a,http://x/?q=1,2,3\r\n\r\n2,b_c,\r\n1,a,http://x\r\n3, d \r\n2,a,u")
        assert read_video_list(path) == [("1", "a"), ("2", "b_c"), ("3", "d"), ("2", "a")]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"1,a,u\n1\n", r"line 2: '1' is not 'task,video,url'"),
            (b",a,u\n", "is not 'task,video,url'"),
            (b"1,../a,u\n", "is not a video id"),
            (b"../1,a,u\n", "is not a video id"),
            (b"\n", "lists no videos"),
            (b"1,\xff,u\n", "UTF-8"),
            (None, "No such file"),
        ],
    )
    def test_damaged_video_list(self, tmp_path, content, message):
        path = tmp_path / "videos.csv"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_video_list(path)

    def test_segments(self, tmp_path):
        path = tmp_path / "1_a.csv"
        path.write_bytes(b"1,0.5,2\r\n3,7.99,9.01\r\n\r\n1,4.5,4.5")
        skips = SkipReport(tmp_path, what="segments")
        segments = read_segments(path, StepTask("1", "t", ("a", "b", "c")), skips)
        assert segments == (Segment(0, 0.5, 2.0), Segment(2, 7.99, 9.01), Segment(0, 4.5, 4.5)) and not len(skips)
        targets = step_targets(segments, 9, 3)
        assert targets.dtype == np.float32
        # the video ends at 9 s; an instant marks the second it lies in
        assert np.argwhere(targets).tolist() == [[0, 0], [1, 0], [4, 0], [7, 2], [8, 2]]

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            *((line, "of a step that the task does not have") for line in ("0,1,2", "4,1,2", "1.5,1,2", "nan,1,2")),
            *((line, "of a step that the task does not have") for line in ("inf,1,2", "x,1,2", ",1,2")),
            *((line, "that are not 'step,start,end'") for line in ("1,2", "1,2,3,4", "1")),
            *((line, "whose times are not") for line in ("1,a,2", "1,3,2", "1,-1,2", "1,nan,2", "1,1,inf", "1,4,4")),
            ("2,9.0,8.9", "whose times are not"),
        ],
    )
    def test_damaged_segments_are_counted(self, tmp_path, line, reason):
        path = tmp_path / "1_a.csv"
        path.write_text(f"1,0,1\n{line}\n2,1,2\n")
        skips = SkipReport(tmp_path, what="segments")
        found = read_segments(path, StepTask("23", "t", ("a", "b", "c")), skips)
        assert found == (Segment(0, 0.0, 1.0), Segment(1, 1.0, 2.0))
        assert f"1 of 3 segments are left out: 1 {reason}" in skips.log(3)
        assert f"1_a.csv, line 2: {line!r}" in skips.log(3)


class TestSplit:
    def test_every_video_has_one_place(self, files):
        train, test, valid = (videos(files, split) for split in ("train", "test", "valid"))
        assert valid == [("105222", SHOTS[0])]
        # five shots remain: three to train on, two to test on; lattes are too few to be tested on
        assert len(test) == 2 and {task for task, _ in test} == {"105222"}
        assert sorted(test + train + valid) == sorted(
            [("105222", name) for name in SHOTS] + [("16815", name) for name in LATTES] + [("113766", "tea")]
        )

    def test_validation_may_be_held_out_of_training(self, files):
        train = videos(files, "train")
        held_out, rest = videos(files, "valid", val_holdout=0.5), videos(files, "train", val_holdout=0.5)
        assert held_out and sorted(held_out + rest) == sorted(train)
        assert videos(files, "test", val_holdout=0.5) == videos(files, "test")

    def test_does_not_depend_on_what_is_on_disk(self, files):
        test, train = videos(files, "test"), videos(files, "train")
        (files / "feat" / f"{train[0][1]}.npy").unlink()
        (files / "annotations" / "{}_{}.csv".format(*train[1])).unlink()
        (files / "feat" / f"{test[0][1]}.npy").unlink()
        assert videos(files, "train", max_missing=0.4) == train[2:]
        assert videos(files, "test", max_missing=0.5) == test[1:]

    def test_missing_files_are_counted(self, files, caplog):
        test = videos(files, "test")
        (files / "feat" / f"{test[0][1]}.npy").unlink()
        with caplog.at_level(logging.WARNING):
            videos(files, "test", max_missing=0.5)
        assert f"1 of 2 videos are left out: 1 without features (for example {test[0][1]})" in caplog.text
        with pytest.raises(DataError, match=r"max_missing 0\.1 allows fewer"):
            videos(files, "test", max_missing=0.1)
        for file in (files / "annotations").iterdir():
            file.unlink()
        with pytest.raises(DataError, match="2 of 2 videos are left out: 2 without an annotation"):
            videos(files, "test")

    def test_related_tasks_without_annotations_are_no_fault(self, files, caplog):
        with caplog.at_level(logging.INFO):
            assert "steak" not in dict(map(reversed, videos(files, "train")))
        assert "1 videos of 1 related tasks are left aside: these tasks are not annotated" in caplog.text

    def test_a_task_matters_only_where_it_is_used(self, files):
        before = {split: videos(files, split) for split in ("train", "test", "valid")}
        (files / "related.txt").write_text(RELATED.replace("\n2\nseason", "\n3\nseason"))  # without annotations
        assert {split: videos(files, split) for split in before} == before
        (files / "related.txt").write_text(RELATED.replace("\n1\npour water", "\n1\npour water, hot"))
        assert videos(files, "test") == before["test"] and videos(files, "valid") == before["valid"]
        with pytest.raises(DataError, match=r"related\.txt: line 1: task '113766': should have 1 steps, but lists 2"):
            videos(files, "train")

    def test_damaged_segments_are_counted_over_the_split(self, files, caplog):
        task, name = videos(files, "test")[0]
        file = files / "annotations" / f"{task}_{name}.csv"
        file.write_text("1,0,1\n" * 8 + "2,9.0,8.9\n")
        before = videos(files, "train")
        with pytest.raises(DataError, match=rf"1 of 10 segments are left out: 1 whose times .*{file.name}, line 9"):
            videos(files, "test")
        with caplog.at_level(logging.WARNING):
            items = CrossTaskMetaProcessor(config(files, "test", max_missing=0.1)).data
        assert "1 of 10 segments are left out" in caplog.text
        assert [len(item.segments) for item, _ in items if item.video_id == name] == [8]
        assert videos(files, "train") == before, "the other splits do not read that file"

    def test_videos_on_which_nothing_is_annotated(self, files):
        for file in (files / "annotations").iterdir():
            file.write_text("\n")
        assert len(videos(files, "test")) == 2

    def test_related_tasks_are_optional(self, files):
        assert videos(files, "train", related_path=None) == [
            pair for pair in videos(files, "train") if pair[0] != "113766"
        ]

    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30).map(str)), unique=True, min_size=1),
        st.integers(0, 5),
        st.integers(0, 3),
        st.randoms(use_true_random=False),
    )
    def test_drawn_from_the_names_alone(self, pairs, n_train, seed, random):
        train, test = split_videos(pairs, {"a", "b"}, n_train, seed)
        for task in "ab":
            number = sum(pair[0] == task for pair in pairs)
            assert sum(pair[0] == task for pair in test) == (number - n_train if number > n_train else 0)
        assert all(task != "c" for task, _ in test)
        assert not {video for _, video in train} & {video for _, video in test}
        tested = {video for _, video in test}
        assert set(pairs) == {*train, *test, *(pair for pair in pairs if pair[1] in tested)}
        # neither the order of the list nor other tasks have an influence
        shuffled = random.sample(pairs, len(pairs))
        assert set(split_videos(shuffled, {"a", "b"}, n_train, seed)[1]) == set(test)
        alone = [pair for pair in pairs if pair[0] == "a"]
        assert split_videos(alone, {"a", "b"}, n_train, seed)[1] == [pair for pair in test if pair[0] == "a"]

    def test_the_seed_matters(self):
        pairs = [("a", str(number)) for number in range(40)]
        tests = [split_videos(pairs, {"a"}, 20, seed)[1] for seed in range(5)]
        assert len({tuple(test) for test in tests}) == 5
        # every video has a chance to be tested on
        assert all(0 < sum(pair in split_videos(pairs, {"a"}, 20, s)[1] for s in range(40)) < 40 for pair in pairs[:5])

    @pytest.mark.parametrize(
        ("more", "error", "message"),
        [
            ({"test_path": None}, ConfigError, r"dataset\.test_path: not set"),
            ({"primary_path": None}, ConfigError, r"dataset\.primary_path: not set"),
            ({"annotation_path": None}, ConfigError, r"dataset\.annotation_path: not set"),
            ({"train_csv_path": None}, ConfigError, r"dataset\.train_csv_path: not set"),
            ({"n_train": -1}, ConfigError, r"dataset\.n_train"),
            ({"n_train": 5}, DataError, "empty test split"),
        ],
    )
    def test_wrong_keys(self, files, more, error, message):
        with pytest.raises(error, match=message):
            videos(files, "test", **more)

    def test_wrong_files(self, files):
        with pytest.raises(ConfigError, match=r"dataset\.val_holdout, dataset\.val_csv_path"):
            videos(files, "valid", val_csv_path=None)
        with pytest.raises(DataError, match="is not a folder"):
            videos(files, "test", annotation_path=str(files / "videos.csv"))
        (files / "videos_val.csv").write_text("105223,x,u\n")
        with pytest.raises(DataError, match=r"task '105223' is neither in .* Did you mean '105222'"):
            videos(files, "train")


class TestItems:
    @pytest.fixture
    def video(self):
        segments = (Segment(0, 0.2, 3.0), Segment(2, 6.5, 7.5), Segment(1, 90.0, 99.0))
        return StepVideo("jello1", "105222", ("pour water", "stir mixture", "pour mixture into cup"), segments)

    def align(self, video, seconds, **more):
        sizes = {"max_video_len": 4, "max_len": 14, "sliding_window": 2, "sliding_window_size": 4, "split": "test"}
        feature = np.arange(seconds, dtype=np.float16)[:, None] + np.zeros(5, np.float16)
        text = CrossTaskTextProcessor(TINY)(video.steps)
        return CrossTaskAligner({**TINY, **sizes, **more})(video, feature, text)

    def test_one_list_of_ids_per_step(self):
        processor = CrossTaskTextProcessor(TINY)
        ids = processor(("w3 w4", "w3"))
        assert ids == [[8, 9], [8]]

    def test_windows_and_targets(self, video):
        item = self.align(video, 9)
        assert {key: tuple(value.shape) for key, value in item.items() if isinstance(value, torch.Tensor)} == {
            "caps": (3, 10),
            "cmasks": (3, 10),
            "vfeats": (4, 4, 5),
            "vmasks": (4, 4),
            "targets": (15, 3),
            "video_start": (4,),
        }
        assert item["vmasks"].sum(1).tolist() == [4, 4, 4, 3] and item["video_start"].tolist() == [0, 2, 4, 6]
        seconds = item["vfeats"][..., 0][item["vmasks"]].tolist()
        assert seconds == [0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7, 8]
        assert item["vfeats"].dtype == item["targets"].dtype == torch.float32
        assert not item["vfeats"][~item["vmasks"]].any()
        # step 0 lasts from 0 to 3, step 2 from 6 to 8, step 1 lies behind the end
        expected = [[float(second in (0, 1, 2)), 0.0, float(second in (6, 7))] for second in seconds]
        assert item["targets"].tolist() == expected
        assert (item["video_len"], item["video_id"], item["task"]) == (9, "jello1", "105222")
        assert item["steps"] == list(video.steps)

    def test_a_short_video_is_one_window(self, video):
        item = self.align(video, 2)
        assert item["vmasks"].tolist() == [[True, True, False, False]]
        assert item["targets"].tolist() == [[1, 0, 0], [1, 0, 0]]

    def test_steps_are_laid_out_like_sentences(self, video):
        item = self.align(video, 2)
        ids = CrossTaskAligner({**TINY, "max_video_len": 4, "max_len": 14}).special_ids
        for row, words in zip(item["caps"], CrossTaskTextProcessor(TINY)(video.steps), strict=True):
            layout = [ids.cls, ids.sep, *words[:7], ids.sep]
            assert row.tolist() == layout + [ids.pad] * (10 - len(layout))

    def test_refuses_what_does_not_fit(self, video):
        with pytest.raises(DataError, match="video jello1: .*no seconds"):
            self.align(video, 0)
        aligner = CrossTaskAligner({**TINY, "max_video_len": 4, "max_len": 14})
        with pytest.raises(DataError, match=r"video jello1: .*\(seconds, dim\)"):
            aligner(video, np.zeros(4), [[5], [5], [5]])
        with pytest.raises(DataError, match="video jello1: texts of 2 steps, but task 105222 has 3"):
            aligner(video, np.zeros((4, 5)), [[5], [5]])
        with pytest.raises(ConfigError, match=r"dataset\.sliding_window_size: 5"):
            CrossTaskAligner({**TINY, "max_video_len": 4, "max_len": 14, "sliding_window_size": 5})

    def test_a_dataset_of_them(self, files):
        section = config(files, "test", max_video_len=4, max_len=14, sliding_window=2, sliding_window_size=4)
        parts = [cls(section) for cls in (CrossTaskMetaProcessor, VideoProcessor, CrossTaskTextProcessor)]
        dataset = pickle.loads(pickle.dumps(MMDataset(*parts, CrossTaskAligner(section))))
        batch = dataset.collater([dataset[1]])
        assert batch["vfeats"].shape == (1, 4, 4, 4) and batch["targets"].shape == (1, 16, 3)
        assert batch["steps"] == [["pour water", "stir mixture", "pour mixture into cup"]]
        assert batch["task"] == ["105222"] and batch["video_len"].tolist() == [10]
