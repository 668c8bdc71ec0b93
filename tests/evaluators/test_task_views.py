"""What the report shows of questions, captions, segments and steps, from files as the predictors write them."""

import numpy as np
import pytest

from mmpt.evaluators.base import save_arrays
from mmpt.evaluators.figure_style import DARK, to_bytes
from mmpt.evaluators.report import build_report, render, write_figures
from mmpt.evaluators.results import Result, collect_results, results_table
from mmpt.evaluators.task_views import CaptionView, LocalisationView, QAView, SegmentationView, view_of
from mmpt.evaluators.timelines import (
    LocalisedVideo,
    SegmentedVideo,
    Span,
    localisation_timelines,
    segmentation_timelines,
)
from mmpt.utils.errors import DataError
from mmpt.utils.files import write_json

METRICS = {
    "QAMetric": {"acc": 0.75, "acc_ci": [0.5, 0.9], "count": 8},
    "NLGMetric": {
        "Bleu_1": 0.4,
        "Bleu_3": 0.2,
        "Bleu_4": 0.1,
        "ROUGE_L": 0.3,
        "CIDEr": 1.25,
        "count": 9,
        "tokenizer": "<x>",
    },
    "COINActionSegmentationMetric": {"frame_acc": 0.6, "background_share": 0.5, "count": 5, "seconds": 50},
    "CrossTaskMetric": {"recall": 0.4, "recall_chance_ordered": 0.1, "count": 2, "tasks": {"1": 0.4}},
}


def write_qa(folder):
    records = [
        {
            "video_id": f"v{row}",
            "question": "what is <done>?" if row == 0 else "",
            "options": [f"option {row} {number}" for number in range(5)],
            "answer": row % 5,
            "prediction": row % 5 if row % 4 else (row + 1) % 5,
            "correct": bool(row % 4),
            "scores": [0.0, 0.1, 0.2, 0.3, 0.4],
        }
        for row in range(8)
    ]
    write_json(folder / "predictions.json", records)


def write_captions(folder):
    content = {
        "outputs": [f"said {row}" for row in range(9)],
        "targets": [[f"wrote {row}", f"also wrote {row}"] for row in range(9)],
        "ids": [f"clip{row}_{row}_{row + 5}" for row in range(9)],
    }
    write_json(folder / "merged.json", content)


def segment(start, end, label):
    return {"start": start, "end": end, "label": label, "name": f"step {label}"}


def write_segments(folder):
    videos = [
        {
            "video_id": f"video{row}",
            "seconds": 10,
            "segments": [segment(0, row, 1)] if row else [],
            "annotated": [segment(0, 4, 1), segment(6, 9, 2)],
        }
        for row in range(5)
    ]
    write_json(folder / "predictions.json", videos)


def write_steps(folder):
    annotated = np.zeros((6, 3), dtype=np.uint8)
    annotated[0:2, 0] = annotated[4, 0] = annotated[3, 2] = 1
    save_arrays(
        folder / "merged.npz",
        tasks=np.array(["1", "1"]),
        videos=np.array(["none", "both"]),
        sizes=np.array([[4, 2], [6, 3]]),
        steps=np.array(["cut", "pour", "cut", "pour", "mix"]),
        seconds=np.array([0, 3, 1, 2, 3]),
        scores=np.zeros(26, np.float32),
        targets=np.concatenate([np.eye(4, 2, k=-1, dtype=np.uint8).ravel(), annotated.ravel()]),
        skipped=np.array([], dtype=str),
    )


WRITERS = dict(zip(METRICS, (write_qa, write_captions, write_segments, write_steps), strict=True))


@pytest.fixture
def runs(tmp_path):
    pytest.importorskip("matplotlib")
    for metric, write in WRITERS.items():
        write_json(tmp_path / metric / "metrics.json", {"metrics": METRICS[metric], "metric": metric})
        write(tmp_path / metric)
    return tmp_path


def result_of(runs, metric):
    return collect_results([runs / metric])[0][0]


class TestTable:
    def test_every_kind_has_its_columns_and_what_it_counts(self, runs):
        blocks = results_table(collect_results([runs / metric for metric in METRICS])[0]).split("\n\n")
        headings = [[cell for cell in block.splitlines()[0].split("  ") if cell][2:] for block in blocks]
        assert [[cell.strip() for cell in row] for row in headings] == [
            ["accuracy", "questions"],
            ["BLEU-1", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr", "tokenizer", "clips"],
            ["frame accuracy", "all background", "videos"],
            ["recall", "in order at random", "videos"],
        ]
        assert "75.0 [50.0, 90.0]" in blocks[0]
        assert "1.2500" in blocks[1], "CIDEr is no share"

    def test_small_scores_keep_their_four_decimals(self, tmp_path):
        metrics = {**METRICS["NLGMetric"], "Bleu_2": 0.35, "CIDEr": 0.009923}
        write_json(tmp_path / "metrics.json", {"metrics": metrics, "metric": "NLGMetric"})
        table = results_table(collect_results([tmp_path])[0])
        assert "0.0099" in table and "0.009923" not in table
        assert "BLEU-2" in table and "35.0" in table

    def test_a_column_appears_where_any_test_has_it(self, tmp_path):
        for name, more in (("a", {}), ("b", {"METEOR": 0.25})):
            metrics = {**METRICS["NLGMetric"], **more}
            write_json(tmp_path / name / "metrics.json", {"metrics": metrics, "metric": "NLGMetric"})
        rows = results_table(collect_results([tmp_path])[0]).splitlines()
        assert "METEOR" in rows[0]
        assert "25.0" in rows[3] and " - " in rows[2]

    def test_skipped_items_are_a_column_where_there_are_any(self, tmp_path):
        metrics = METRICS["CrossTaskMetric"]
        for name, number in (("a", 0), ("b", 12345)):
            write_json(
                tmp_path / name / "metrics.json",
                {"metrics": {**metrics, "skipped": number}, "metric": "CrossTaskMetric"},
            )
        results = collect_results([tmp_path / "a", tmp_path / "b"], {str(tmp_path / n): n for n in "ab"})[0]
        rows = [line.split() for line in results_table(results).splitlines()]
        assert rows[0][-2:] == ["skipped", "videos"] and rows[3][-2:] == ["12345", "2"] and rows[2][-2:] == ["0", "2"]
        assert "skipped" not in results_table([one for one in results if not one.metrics["skipped"]])


class TestViews:
    def test_answers(self, runs):
        view = view_of(result_of(runs, "QAMetric"))
        assert isinstance(view, QAView)
        html = "".join(view.parts())
        assert html.count("<li") == 5 * 5, "three of those answered right, and both answered wrong"
        assert '<li class="right" data-mark="✓">option 0 0</li>' in html
        assert '<li class="wrong" data-mark="✗">option 0 1</li>' in html
        assert "what is &lt;done&gt;?" in html
        assert html.count('class="wrong"') == 2

    def test_of_many_options_the_best_and_the_right_one_are_shown(self, runs):
        record = {"video_id": "v", "question": "", "answer": 0, "prediction": 39}
        record |= {"correct": False, "scores": list(range(40))}
        options = [f"label {number}" for number in range(40)]
        for content in (
            [{**record, "options": options}],
            {"options": options, "questions": [record | {"scores": {str(n): n for n in (0, *range(35, 40))}}]},
        ):
            write_json(runs / "QAMetric" / "predictions.json", content)
            html = "".join(view_of(result_of(runs, "QAMetric")).parts())
            shown = [number for number in range(40) if f">label {number}<" in html]
            assert shown == [0, 35, 36, 37, 38, 39]

    def test_a_tie_is_an_answer_that_is_wrong(self, runs):
        record = {"video_id": "v", "question": "", "answer": 0, "prediction": 0, "correct": False}
        record |= {"options": ["a", "b", "c"], "scores": [0.5, 0.1, 0.5]}
        write_json(runs / "QAMetric" / "predictions.json", [record])
        html = "".join(view_of(result_of(runs, "QAMetric")).parts())
        assert "answered wrong" in html and "answered right" not in html
        assert '<li class="right" data-mark="✓">a</li>' in html and '<li class="wrong" data-mark="✗">c</li>' in html
        assert '<li class="" data-mark="">b</li>' in html

    def test_captions(self, runs):
        view = view_of(result_of(runs, "NLGMetric"))
        assert isinstance(view, CaptionView)
        html = "".join(view.parts())
        assert "“said 0”" in html and "“said 8”" in html
        assert html.count("class=reference") == 2 * 6

    def test_segments_run_from_the_best_to_the_worst(self, runs):
        view = view_of(result_of(runs, "COINActionSegmentationMetric"))
        assert isinstance(view, SegmentationView)
        assert [(video.video_id, video.right) for video in view.videos] == [
            ("video4", 0.7),
            ("video3", 0.6),
            ("video1", 0.4),
            ("video0", 0.3),
        ]
        assert view.videos[0].predicted == [Span(0, 4, "step 1")]
        assert "<svg" not in view.parts()[1] and "data:image/svg+xml" in view.parts()[1]

    def test_steps(self, runs):
        view = view_of(result_of(runs, "CrossTaskMetric"))
        assert isinstance(view, LocalisationView)
        best, worst = view.videos
        assert best == LocalisedVideo("both", 6, ["cut", "pour", "mix"], [[(0, 2), (4, 5)], [], [(3, 4)]], [1, 2, 3])
        assert worst == LocalisedVideo("none", 4, ["cut", "pour"], [[(1, 2)], [(2, 3)]], [0, 3])

    @pytest.mark.parametrize("metric", METRICS)
    def test_missing_and_damaged_files_are_named(self, runs, metric):
        folder = runs / metric
        (file,) = (path for path in folder.iterdir() if path.name != "metrics.json")
        file.write_text('[{"video": 1}]')
        with pytest.raises(DataError, match=metric):
            view_of(result_of(runs, metric))
        file.unlink()
        with pytest.raises(DataError, match=metric):
            view_of(result_of(runs, metric))

    def test_nothing_is_shown_of_other_kinds(self, tmp_path):
        assert view_of(Result("x", tmp_path, {"metrics": {"a": 1.0}, "metric": "mine:Metric"})) is None


class TestPage:
    def test_all_kinds(self, runs, tmp_path):
        report = build_report("tasks", [runs])
        assert not report.problems
        page = render(report)
        for heading in ("Example answers", "Example captions", "Segmented videos", "Located steps"):
            assert f"<h2>{heading}</h2>" in page
        assert "8 questions" in page
        assert "10.0<small> %</small></div><div class=label>BLEU-4, CIDEr 1.2500" in page
        assert "5 videos · all background 50.0 %" in page and "2 videos · in order at random 10.0 %" in page
        assert "&lt;x&gt;" in page and "<x>" not in page
        assert "Example retrievals" not in page
        figures = {path.name for path in write_figures(report, tmp_path / "figures")}
        assert {name.partition("_")[0] for name in figures} == {"timelines"}
        assert len(figures) == 2

    @pytest.mark.parametrize("metric", METRICS)
    def test_one_kind_alone(self, runs, metric):
        assert render(build_report("x", [runs / metric])).count("<section>") == 3  # results, examples, settings

    def test_a_missing_file_is_said_and_the_rest_is_shown(self, runs):
        (runs / "NLGMetric" / "merged.json").unlink()
        report = build_report("x", [runs])
        assert [problem for problem in report.problems if "no examples of" in problem and "merged.json" in problem]
        page = render(report)
        assert "Example captions" not in page and "Example answers" in page
        assert "merged.json: no such file" in page


class TestTimelines:
    def test_empty_videos_and_many_labels_can_be_drawn(self):
        pytest.importorskip("matplotlib")
        spans = [Span(start, start + 1, f"label {start}") for start in range(60)]
        videos = [SegmentedVideo("long", 60, spans, [], 0.0), SegmentedVideo("empty", 0, [], [], 0.0)]
        assert b"<svg" in to_bytes(segmentation_timelines(videos, DARK))
        steps = [LocalisedVideo("v", 5, ["a"], [[]], [None])]
        assert b"<svg" in to_bytes(localisation_timelines(steps, DARK))

    def test_what_was_found_is_counted(self):
        pytest.importorskip("matplotlib")
        video = LocalisedVideo("v", 9, list("abc"), [[(0, 2), (5, 6)], [(3, 4)], []], [5, 4, 8])
        (axes,) = localisation_timelines([video]).axes
        assert "1 of 2 steps found" in axes.get_title(loc="left")
