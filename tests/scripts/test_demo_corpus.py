"""The demo corpus: nothing of the tests is ever shown in training, and its files are what they say."""

import hashlib
import itertools
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mmpt.utils.errors import ConfigError
from scripts.demo_corpus import generate, rendering
from scripts.demo_corpus.annotations import question_groups
from scripts.demo_corpus.narration import describe, describe_step, narrate, read_step, recognise, synonyms
from scripts.demo_corpus.plan import CAPTIONS_PER_CLIP, CLIP_SECONDS, Counts, VideoPlan, plan_corpus
from scripts.demo_corpus.scenes import Pose, Segment, draw_shape, pose_at, render, sample_motion
from scripts.demo_corpus.splits import ACTIONS, COLOURS, SHAPES, Splits, Triple, all_triples, split_triples
from scripts.demo_corpus.steps import Step, choose_steps, choose_tasks, colour_step

TINY = [
    *("--narrated-train=2", "--narrated-val=1", "--clips-train=2", "--clips-val=1", "--clips-test=2"),
    *("--steps-train=2", "--steps-val=1", "--steps-test=2", "--workers=1"),
]
TINY_COUNTS = Counts(2, 1, 2, 1, 2, 2, 1, 2)


@pytest.fixture(scope="module")
def plans() -> list[VideoPlan]:
    return plan_corpus(0)


def of(plans, split: str) -> list[VideoPlan]:
    return [plan for plan in plans if plan.split.startswith(split)]


def fingerprint(plans) -> str:
    return hashlib.sha256(
        repr([(plan.name, plan.segments, plan.seed, plan.captions, plan.lines) for plan in plans]).encode()
    ).hexdigest()


def triples(plans) -> set[Triple]:
    return {segment.triple for plan in plans for segment in plan.segments}


class TestSplits:
    def test_groups_are_disjoint_and_complete(self):
        groups = split_triples(np.random.default_rng(3), 12, 104)
        assert (len(groups.val), len(groups.test)) == (12, 104)
        assert sorted([*groups.train, *groups.val, *groups.test]) == sorted(all_triples())
        assert len(set(all_triples())) == len(COLOURS) * (len(SHAPES) * len(ACTIONS) - 2)

    def test_at_most_half_is_withheld(self):
        rng, half = np.random.default_rng(0), len(all_triples()) // 2
        assert len(split_triples(rng, 0, half).test) == half
        for val, test in ((1, half), (-1, 2), (2, -1)):
            with pytest.raises(ConfigError, match="withheld from training"):
                split_triples(rng, val, test)


@pytest.mark.parametrize("seed", [0, 1, 2])
class TestPlan:
    def test_test_and_validation_triples_are_shown_nowhere_else(self, seed):
        plans = plan_corpus(seed)
        test, val = triples(of(plans, "clips_test")), triples(of(plans, "clips_val"))
        training = triples(of(plans, "narrated")) | triples(of(plans, "clips_train"))
        assert not test & val
        assert not (test | val) & training
        assert (
            len(test) == len(of(plans, "clips_test")) == Counts().clips_test
        )  # one clip, one triple: one right answer

    def test_parts_of_every_test_triple_occur_in_training(self, seed):
        plans = plan_corpus(seed)
        for split in ("narrated_train", "clips_train"):
            shown = triples(of(plans, split))
            for triple in triples(of(plans, "clips_test")):
                assert triple.colour in {other.colour for other in shown}, split
                assert triple.shape in {other.shape for other in shown}, split
                assert triple.action in {other.action for other in shown}, split

    def test_equal_seeds_and_only_they_give_equal_plans(self, seed):
        plans = plan_corpus(seed)
        assert [(plan, plan.lines) for plan in plans] == [(plan, plan.lines) for plan in plan_corpus(seed)]
        other = plan_corpus(seed + 10)
        assert [plan.name for plan in plans] == [plan.name for plan in other]
        assert triples(of(plans, "clips_test")) != triples(of(other, "clips_test"))
        assert plans[0].lines != other[0].lines
        assert not {plan.seed for plan in plans} & {plan.seed for plan in other}

    def test_both_codecs_and_all_shapes_of_video(self, seed):
        plans = plan_corpus(seed)
        codecs = Counter(plan.codec for plan in plans)
        assert set(codecs) == {"libx264", "mpeg4"}
        assert codecs["mpeg4"] > len(plans) / 10
        assert {plan.ending for plan in plans} == {".mp4", ".mkv", ".avi"}
        for split in ("narrated", "steps"):
            assert len({(plan.width, plan.height) for plan in of(plans, split)}) == 4
        assert len({plan.fps for plan in plans}) == 4
        assert len({plan.file_name for plan in plans}) == len({plan.seed for plan in plans}) == len(plans)


class TestNarration:
    def test_lines_are_well_formed_and_inside_the_video(self, plans):
        for plan in of(plans, "narrated"):
            assert plan.lines
            for line in plan.lines:
                assert 0 <= line.start < line.end <= plan.seconds + 0.02, plan.name  # a repeat ends 0.01 s later
                assert line.text.strip()
                assert line.text == " ".join(line.text.split())
            starts = [line.end for line in plan.lines]
            assert all(later >= earlier - 0.02 for earlier, later in itertools.pairwise(starts)), plan.name

    def test_words_come_early_and_late(self, plans):
        """Speech and picture are out of step in both directions, which is why clips must overlap, not match."""
        rng = np.random.default_rng(0)
        delays = []
        for plan in of(plans, "narrated_train"):
            spoken = narrate(plan.segments, rng)
            delays += [
                words[0][0] - segment.start for words, segment in zip(spoken, plan.segments, strict=True) if words
            ]
        delays = np.array(delays)
        assert (delays < -0.3).mean() > 0.02
        assert (delays > 0.7).mean() > 0.1
        assert (np.abs(delays) < 0.5).mean() > 0.3

    def test_nobody_speaks_twice_at_once_or_after_the_end(self, plans):
        rng = np.random.default_rng(1)
        for plan in of(plans, "narrated")[:20]:
            words = [word for sentence in narrate(plan.segments, rng) for word in sentence]
            assert all(later[0] >= earlier[1] - 1e-9 for earlier, later in itertools.pairwise(words))
            assert words[0][0] >= 0
            assert words[-1][1] <= plan.seconds

    def test_consecutive_lines_repeat_words(self, plans):
        repeats = followers = 0
        for plan in of(plans, "narrated"):
            for before, after in zip(plan.lines, plan.lines[1:], strict=False):
                followers += 1
                tail, head = before.text.split(), after.text.split()
                repeats += any(tail[-n:] == head[:n] for n in range(2, len(tail) + 1))
        assert 0.2 < repeats / followers < 0.9

    def test_recognition_loses_no_word(self, plans):
        """The words of all lines, without what a line repeats, are the words that were said."""
        rng = np.random.default_rng(2)
        spoken = narrate(plans[0].segments, rng)
        said = {word for sentence in spoken for _, _, word in sentence}
        assert {word for line in recognise(spoken, rng) for word in line.text.split()} == said

    def test_captions_name_what_is_seen(self, plans):
        rng = np.random.default_rng(0)
        plain = {describe(Triple("red", "star", "spin"), rng, rare=0.0) for _ in range(50)}
        assert len(plain) > 3
        assert all("red" in text.split() and "star" in text.split() and "spin" in text for text in plain)
        rare = synonyms()
        used = {word for plan in of(plans, "clips") for text in plan.captions for word in text.split()}
        assert used & rare
        assert all(len(plan.captions) == CAPTIONS_PER_CLIP for plan in of(plans, "clips_train"))
        assert all(len(plan.captions) == 1 for plan in of(plans, "clips_test"))


@pytest.mark.parametrize("seed", [0, 1, 2])
class TestSteps:
    def test_test_videos_show_what_no_other_split_shows(self, seed):
        plans = plan_corpus(seed)
        tested = triples(of(plans, "steps_test"))
        assert not tested & triples(of(plans, "narrated")) | tested & triples(of(plans, "clips_train"))
        assert not tested & (triples(of(plans, "steps_train")) | triples(of(plans, "steps_val")))

    def test_orders_of_steps_differ_between_videos_of_different_tasks(self, seed):
        videos = of(plan_corpus(seed), "steps")
        tasks = {plan.task for plan in videos}
        assert len({task.steps for task in tasks}) == len({task.number for task in tasks}) == len(tasks)
        for task in tasks:
            assert len({plan.split for plan in videos if plan.task == task}) == 1

    def test_every_step_is_trained_on_and_tested(self, seed):
        plans = plan_corpus(seed)
        shown = {
            split: {(triple.shape, triple.action) for triple in triples(of(plans, split))}
            for split in ("steps_train", "steps_test")
        }
        assert shown["steps_train"] == shown["steps_test"]
        shapes, actions = (set(names) for names in zip(*shown["steps_test"], strict=True))
        assert shown["steps_test"] == set(itertools.product(shapes, actions))
        assert (len(shapes), len(actions)) == (4, 4)

    def test_videos_follow_their_task_between_pauses(self, seed):
        for plan in of(plan_corpus(seed), "steps"):
            order = [(step.shape, step.action) for step in plan.task.steps]
            rows = [order.index((segment.triple.shape, segment.triple.action)) for segment in plan.segments]
            assert rows == sorted(set(rows))
            assert len(rows) >= len(order) - 1
            times = [0.0, *(time for segment in plan.segments for time in (segment.start, segment.end)), plan.seconds]
            assert all(time == int(time) for time in times)
            assert all(1 <= later - earlier <= 5 for earlier, later in itertools.pairwise(times))
            assert len(plan.captions) == len(plan.segments)
            for segment, sentence in zip(plan.segments, plan.captions, strict=True):
                assert {segment.triple.colour, segment.triple.shape} < set(sentence.split())

    def test_other_videos_do_not_depend_on_them(self, seed):
        without = plan_corpus(seed, Counts(steps_train=0, steps_val=0, steps_test=0))
        plans = plan_corpus(seed)
        assert fingerprint(without) == fingerprint(plans[: len(without)])
        assert not of(without, "steps")


def test_the_measured_corpus_is_the_one_that_is_rendered():
    """The numbers of docs/results.md belong to these videos, captions and narrations."""
    plans = [plan for plan in plan_corpus(1) if not plan.split.startswith("steps")]
    assert len(plans) == 248
    assert fingerprint(plans)[:16] == "03ad9d3152fbd6ce"


class TestStepChoice:
    def test_a_step_is_coloured_as_asked_or_else_anyhow(self):
        rng = np.random.default_rng(0)
        step, red = Step("star", "grow"), Triple("red", "star", "grow")
        assert colour_step(step, [red, Triple("blue", "star", "spin")], rng) == red
        drawn = {colour_step(step, [Triple("blue", "ring", "grow")], rng).colour for _ in range(200)}
        assert drawn == set(COLOURS)

    def test_tasks_of_few_steps_run_out(self):
        steps = choose_steps(Splits(tuple(all_triples()), (), ()), np.random.default_rng(0))
        assert len(set(steps)) == 16
        with pytest.raises(ConfigError, match="130 different tasks"):
            choose_tasks(steps[:5], {"steps_train": 130}, np.random.default_rng(0))

    def test_questions_are_grouped_by_likeness(self):
        alike = [Triple(colour, "star", "grow") for colour in COLOURS[:5]]
        other = [Triple(colour, "cross", "blink") for colour in COLOURS[:6]]
        mixed = [triple for pair in itertools.zip_longest(alike, other) for triple in pair if triple is not None]
        groups = question_groups(mixed)
        assert sorted(row for group in groups for row in group) == list(range(11))
        assert [{mixed[row].shape for row in group} for group in groups] == [{"star"}, {"cross"}, {"cross"}]
        assert [len(group) for group in groups] == [5, 5, 1]

    def test_sentences_about_steps_are_understood(self):
        rng = np.random.default_rng(0)
        for triple in all_triples():
            assert {read_step(describe_step(triple, rng)) for _ in range(8)} == {triple}
        assert read_step("the red star sits still") is None
        assert read_step("something is spinning") is None


class TestScenes:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_shapes_are_drawn_where_they_are(self, shape):
        image = np.zeros((96, 128, 3), np.uint8)
        draw_shape(image, shape, np.array([200, 100, 50]), Pose(0.2, -0.1, 0.4, 0.3))
        rows, columns = np.nonzero(image[..., 0])
        assert columns.mean() == pytest.approx(128 / 2 + 0.2 * 48, abs=3)
        assert rows.mean() == pytest.approx(96 / 2 - 0.1 * 48, abs=3)
        assert (image.reshape(-1, 3).max(0) == (200, 100, 50)).all()

    def test_shapes_outside_or_unseen_change_nothing(self):
        image = np.zeros((20, 20, 3), np.uint8)
        for pose in (Pose(0, 0, 0, 0), Pose(5, 0, 0.3, 0), Pose(0, -5, 0.3, 0)):
            draw_shape(image, "star", np.array([255, 255, 255]), pose)
        assert not image.any()

    def test_actions_are_told_apart_by_their_motion(self):
        motion = replace(sample_motion("spin", np.random.default_rng(0)), phase=0.1, period=2.0)
        poses = {action: [pose_at(action, motion, t) for t in (0.0, 0.5, 1.0)] for action in ACTIONS}
        assert poses["slide_left"][0].x > poses["slide_left"][1].x
        assert poses["slide_right"][0].x < poses["slide_right"][1].x
        assert poses["grow"][0].radius < poses["grow"][1].radius
        assert poses["shrink"][0].radius > poses["shrink"][1].radius
        assert poses["spin"][0].angle != poses["spin"][1].angle
        assert (poses["blink"][0].radius > 0) != (poses["blink"][2].radius > 0)
        assert len({tuple(found) for found in poses.values()}) == len(ACTIONS)

    def test_nothing_is_seen_in_a_pause(self):
        motion = sample_motion("grow", np.random.default_rng(0))
        segment = Segment(2.0, 4.0, Triple("white", "star", "grow"), motion)
        frames = np.stack(list(render([segment], 32, 24, 4, np.random.default_rng(1), 6.0)))
        brightest = frames.reshape(24, -1).max(1)
        assert (brightest[:8] <= 140).all()
        assert (brightest[8:16] > 200).all()
        assert (brightest[16:] <= 140).all()

    def test_frames_are_as_many_as_planned_and_depend_on_the_seed(self, plans):
        segments = list(plans[0].segments[:1])
        frames = [np.stack(list(render(segments, 32, 24, 4, np.random.default_rng(seed)))) for seed in (7, 7, 8)]
        assert frames[0].shape == (round(segments[0].end * 4), 24, 32, 3)
        assert (frames[0] == frames[1]).all()
        assert (frames[0] != frames[2]).any()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of thirteen videos, rendered by the command."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("demo")
    assert generate.main(["--output", str(folder), *TINY]) == 0
    return folder


class TestFiles:
    def test_videos_decode_as_planned(self, corpus):
        from mmpt.store.decode import probe

        plans = plan_corpus(0, TINY_COUNTS)
        assert sorted(file.name for file in (corpus / "videos").iterdir()) == sorted(plan.file_name for plan in plans)
        for plan in plans:
            info = probe(corpus / "videos" / plan.file_name)
            assert (info.width, info.height) == (plan.width, plan.height)
            assert info.fps == pytest.approx(plan.fps, rel=1e-3)
            assert info.duration == pytest.approx(plan.seconds, abs=1.5 / plan.fps)
            assert info.codec == {"libx264": "h264", "mpeg4": "mpeg4"}[plan.codec]

    def test_texts_agree_with_the_plan(self, corpus):
        plans = plan_corpus(0, TINY_COUNTS)
        captions = json.loads((corpus / "raw_caption.json").read_text())
        assert set(captions) == {plan.name for plan in of(plans, "narrated")}
        for plan in of(plans, "narrated"):
            entry = captions[plan.name]
            assert list(zip(entry["start"], entry["end"], entry["text"], strict=True)) == [
                (line.start, line.end, line.text) for line in plan.lines
            ]
        assert (corpus / "how2_train.lst").read_text().split() == ["narrated_train_0000", "narrated_train_0001"]
        assert (corpus / "how2_val.lst").read_text().split() == ["narrated_val_0000"]
        shown = json.loads((corpus / "triples.json").read_text())["clips_test_0001"]
        assert shown == [[0.0, CLIP_SECONDS, *vars(of(plans, "clips_test")[-1].segments[0].triple).values()]]
        assert set(json.loads((corpus / "manifest.json").read_text())["videos"].values()) == {"done"}

    def test_retrieval_files_are_those_of_msrvtt(self, corpus):
        from mmpt.processors.msrvtt import MSRVTTMetaProcessor, read_captions

        paths = {f"{split}_path": str(corpus / f"vtt_{split}.csv") for split in ("train", "val", "test")}
        config = {**paths, "json_path": str(corpus / "vtt_data.json")}
        sizes = {"train": 2, "valid": 1, "test": 2}
        for split, size in sizes.items():
            assert len(MSRVTTMetaProcessor({**config, "split": split})) == size, split
        video, text = MSRVTTMetaProcessor({**config, "split": "test"})[1]
        row = pd.read_csv(corpus / "vtt_test.csv").iloc[1]
        assert (video, row.video_id) == ("clips_test_0001", "clips_test_0001")
        assert text is not None
        assert {len(texts) for texts in read_captions(config["json_path"]).values()} == {CAPTIONS_PER_CLIP}

    def test_questions_offer_captions_of_test_clips(self, tmp_path):
        clips = of(plan_corpus(0), "clips_test")
        generate.write_questions(tmp_path / "qa.csv", clips, 0)
        table = pd.read_csv(tmp_path / "qa.csv", sep="\t")
        assert list(table.vid_key) == [clip.name for clip in clips]
        caption = {clip.name: clip.captions[0] for clip in clips}
        offered = table[["a1", "a2", "a3", "a4", "a5"]].to_numpy()
        for name, texts, answer in zip(table.vid_key, offered, table.answer, strict=True):
            assert texts[answer] == caption[name]
            assert len(set(texts)) == 5
            assert set(texts) <= set(caption.values())
        # Questions about the same five clips offer the same answers: these alone do not say which is right.
        sizes = Counter(frozenset(texts) for texts in offered)
        assert sum(size == 5 for size in sizes.values()) == len(clips) // 5
        assert len(set(table.answer)) == 5

    def test_question_files_are_those_of_msrvtt_qa(self, corpus):
        from mmpt.processors.msrvtt_qa import MSRVTTQAMetaProcessor

        meta = MSRVTTQAMetaProcessor({"split": "test", "test_path": str(corpus / "vtt_qa_test.csv")})
        assert [meta[i][0] for i in range(len(meta))] == ["clips_test_0000", "clips_test_0001"]
        answer, options = meta[1][1][:2]
        assert (options[answer], len(options)) == (pd.read_csv(corpus / "vtt_test.csv").sentence[1], 5)

    def test_step_files_are_those_of_coin(self, corpus):
        from mmpt.processors.coin import COINActionSegmentationMetaProcessor

        plans = {plan.name: plan for plan in of(plan_corpus(0, TINY_COUNTS), "steps")}
        path = str(corpus / "coin" / "COIN.json")
        metas = [
            COINActionSegmentationMetaProcessor({"split": split, "train_path": path, "test_path": path})
            for split in ("train", "test")
        ]
        assert [len(meta) for meta in metas] == [3, 2]
        for meta in metas:
            assert meta.labels[0] == "O"
            for name, segments in (meta[i] for i in range(len(meta))):
                shown = plans[name].segments
                assert segments["start"] == [segment.start for segment in shown]
                assert segments["end"] == [segment.end for segment in shown]
                words = [meta.labels[label] for label in segments["label"]]
                assert [word.split()[0] for word in words] == [segment.triple.shape for segment in shown]
        assert set(metas[0].labels) == set(metas[1].labels)

    def test_step_files_are_those_of_crosstask(self, corpus):
        from mmpt.processors.crosstask import CrossTaskMetaProcessor

        folder = corpus / "crosstask"
        paths = {"train_csv_path": folder / "videos.csv", "val_csv_path": folder / "videos_val.csv"}
        paths |= {"primary_path": folder / "tasks_primary.txt", "related_path": folder / "tasks_related.txt"}
        paths |= {"annotation_path": folder / "annotations"}
        paths |= {f"{split}_path": folder / "videos.csv" for split in ("train", "val", "test")}
        config = {"n_train": 0, **{name: str(path) for name, path in paths.items()}}
        plans = {plan.name: plan for plan in of(plan_corpus(0, TINY_COUNTS), "steps")}
        for split, own in (("train", "steps_train"), ("valid", "steps_val"), ("test", "steps_test")):
            meta = CrossTaskMetaProcessor({**config, "split": split})
            assert sorted(meta[i][0].video_id for i in range(len(meta))) == [n for n in sorted(plans) if own in n]
            for i in range(len(meta)):
                video, steps = meta[i]
                shown, task = plans[video.video_id].segments, plans[video.video_id].task
                assert tuple(steps) == tuple(step.label for step in task.steps)
                found = [(steps[s.step].split()[0], s.start, s.end) for s in video.segments]
                assert found == [(segment.triple.shape, segment.start, segment.end) for segment in shown]

    def test_step_files_are_those_of_youcook2(self, corpus):
        from mmpt.processors.youcook_captioning import YoucookNLGMetaProcessor

        folder = corpus / "youcook"
        plans = {plan.name: plan for plan in of(plan_corpus(0, TINY_COUNTS), "steps")}
        config = {"trainval_annotation": str(folder / "youcookii_annotations_trainval.json")}
        lists = {"train": "train_list.txt", "val": "dev_list.txt", "test": "val_list.txt"}
        config |= {f"{split}_path": str(folder / name) for split, name in lists.items()}
        for split, own in (("train", "steps_train"), ("valid", "steps_val"), ("test", "steps_test")):
            meta = YoucookNLGMetaProcessor({**config, "split": split})
            expected = [
                ((name, segment.start, segment.end), sentence)
                for name, plan in plans.items()
                if own in name
                for segment, sentence in zip(plan.segments, plan.captions, strict=True)
            ]
            assert [(tuple(meta[i][0]), meta[i][1]) for i in range(len(meta))] == expected

    def test_vocabulary_covers_training_words(self, corpus):
        pieces = (corpus / "bert" / "vocab.txt").read_text().split()
        assert pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        assert (
            len(set(pieces)) == len(pieces) == json.loads((corpus / "bert" / "config.json").read_text())["vocab_size"]
        )
        sentences = json.loads((corpus / "vtt_data.json").read_text())["sentences"]
        assert {word for entry in sentences for word in entry["caption"].split()} <= set(pieces)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_vocabulary_covers_the_words_of_steps(self, seed, tmp_path):
        plans = plan_corpus(seed)
        generate.write_bert(plans, tmp_path)
        pieces = set((tmp_path / "vocab.txt").read_text().split())
        for plan in of(plans, "steps"):
            texts = [*plan.captions, *(step.label for step in plan.task.steps)]
            assert {word for text in texts for word in text.split()} <= pieces

    def test_second_run_renders_what_is_missing(self, corpus, capsys):
        videos = sorted((corpus / "videos").iterdir())
        before = {file: file.stat().st_mtime_ns for file in videos}
        assert generate.main(["--output", str(corpus), *TINY]) == 0
        assert "done 0, skipped 13" in capsys.readouterr().out
        videos[3].unlink()
        assert generate.main(["--output", str(corpus), *TINY]) == 0
        assert "done 1, skipped 12" in capsys.readouterr().out
        changed = [file for file in videos if file.stat().st_mtime_ns != before[file]]
        assert changed == [videos[3]]
        assert videos[3].stat().st_size > 1000

    def test_folder_of_another_corpus_is_left_alone(self, corpus, capsys):
        before = (corpus / "manifest.json").read_bytes()
        for other in ([*TINY, "--seed=1"], [*TINY, "--clips-test=3"]):
            assert generate.main(["--output", str(corpus), *other]) == 2
            assert "holds another corpus" in capsys.readouterr().err
        assert (corpus / "manifest.json").read_bytes() == before
        assert len(list((corpus / "videos").iterdir())) == 13

    def test_too_many_test_clips(self, tmp_path, capsys):
        assert generate.main(["--output", str(tmp_path / "new"), "--clips-test=400"]) == 2
        assert "can be withheld from training" in capsys.readouterr().err
        assert not (tmp_path / "new").exists()


def test_a_plan_has_the_same_pixels_every_time_it_is_rendered(plans, tmp_path):
    """The encoder's own choices differed from call to call for about one H.264 file in three."""
    av = pytest.importorskip("av")
    chosen = [plan for plan in plans if plan.codec == "libx264" and plan.ending == ".mp4"][:4]
    for plan in chosen:
        pixels = []
        for number in range(2):
            path = tmp_path / f"{number}{plan.ending}"
            rendering.render_video(plan, path)
            with av.open(str(path)) as container:
                pixels.append([frame.to_ndarray() for frame in container.decode(video=0)])
        assert len(pixels[0]) == len(pixels[1])
        assert all(np.array_equal(one, other) for one, other in zip(*pixels, strict=True))
