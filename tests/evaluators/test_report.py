"""Results, figures and the page, on made-up run folders."""

import html.parser
import subprocess
import sys

import numpy as np
import pytest

from mmpt.evaluators.base import save_arrays
from mmpt.evaluators.figure_style import LIGHT, to_bytes
from mmpt.evaluators.figures import Example, Shown, retrieval_gallery
from mmpt.evaluators.gallery import Thumbnails, choose_queries, examples_of
from mmpt.evaluators.heat_maps import similarity_heatmap
from mmpt.evaluators.metrics import RetrievalMetric
from mmpt.evaluators.report import build_report, render, write_figures, write_report
from mmpt.evaluators.results import collect_results, results_json, results_table
from mmpt.utils.errors import DataError
from mmpt.utils.files import write_json

LOG = "".join(
    f'x | INFO | train_inner | {{"epoch": 1, "loss": "{5 - step / 10}", "bsz": "64", "num_updates": "{step}"}}\n'
    f'x | INFO | valid | {{"epoch": 1, "valid_loss": "{5.5 - step / 10}", "valid_bsz": "48", '
    f'"valid_num_updates": "{step}"}}\n'
    for step in range(1, 41)
)


def write_test(folder, seed=0, noise=1.0, texts=None):
    rng = np.random.default_rng(seed)
    video = rng.standard_normal((30, 12)).astype(np.float32)
    text = (video + noise * rng.standard_normal((30, 12))).astype(np.float32)
    names = np.array([f"video{i}" for i in range(30)])
    captions = np.array(texts or [f"caption {i}" for i in range(30)])
    save_arrays(folder / "embeddings.npz", text=text, video=video, target=np.arange(30), ids=names, texts=captions)
    record = {
        "metrics": RetrievalMetric().compute_metrics(text=text, video=video, target=np.arange(30)),
        "metric": "RetrievalMetric",
        "predictor": "RetrievalPredictor",
        "checkpoint": {"path": "runs/x/checkpoint_best.pt", "sha256": "ab" * 32},
        "setting": "fine-tuned" if seed else "zero-shot",
        "config": {"dataset": {"test_path": "data/x.csv"}},
        "date": f"2025-01-0{seed + 1}",
        "version": "0",
    }
    write_json(folder / "metrics.json", record)
    return record


@pytest.fixture
def runs(tmp_path):
    pytest.importorskip("matplotlib")
    write_test(tmp_path / "runs" / "zs" / "eval", 0)
    write_test(tmp_path / "runs" / "ft" / "eval", 1, 0.3)
    (tmp_path / "runs" / "train").mkdir()
    (tmp_path / "runs" / "train" / "log.txt").write_text(LOG)
    return tmp_path / "runs"


class Links(html.parser.HTMLParser):
    """Collects every address that a page would load or lead to."""

    def __init__(self):
        super().__init__()
        self.addresses, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data):
        self.texts.append(data)


class TestResults:
    def test_collect(self, runs):
        results, missing = collect_results([runs, runs / "train"])
        assert [result.name for result in results] == ["runs/zs", "runs/ft"]  # oldest first
        assert [result.setting for result in results] == ["zero-shot", "fine-tuned"]
        assert missing == [runs / "train"]

    def test_records_without_a_setting_are_derived_and_names_are_no_evidence(self, tmp_path):
        training = tmp_path / "train"
        training.mkdir()
        (training / "config.yaml").write_text("fairseq: {checkpoint: {restore_file: runs/x/checkpoint_best.pt}}")
        record = {"metrics": {"R1": 0.5}, "metric": "RetrievalMetric"}
        config = {"fairseq": {"common_eval": {"path": str(training / "checkpoint_best.pt")}}}
        write_json(tmp_path / "vtt_zs" / "metrics.json", {**record, "config": config})
        write_json(tmp_path / "other_zs" / "metrics.json", record)
        results, _ = collect_results([tmp_path / "vtt_zs", tmp_path / "other_zs"])
        assert [result.setting for result in results] == ["fine-tuned", "-"]

    def test_table(self, runs):
        results, _ = collect_results([runs / "ft" / "eval", runs / "zs"], {str(runs / "ft" / "eval"): "test_vtt"})
        lines = results_table(results, [runs / "other"]).splitlines()
        assert lines[0].split()[:3] == ["test", "setting", "R@1"]
        assert lines[3].startswith("test_vtt")  # fine-tuned, after zero-shot
        metrics = results[1].metrics
        assert f"{100 * metrics['R1']:.1f} [{100 * metrics['R1_ci'][0]:.1f}, " in lines[3]
        assert lines[-1] == f"no result yet: {runs / 'other'}"
        assert results_json(results)[1]["metrics"] == dict(results[1].metrics)

    def test_one_order_however_the_folders_come(self, tmp_path):
        """The launcher has stages, a project has its file, ``--runs`` has dates: their tables have the same rows."""
        tests = {
            "vtt_zs": ("RetrievalMetric", "vtt.csv", "zero-shot"),
            "vtt": ("RetrievalMetric", "vtt.csv", "fine-tuned"),
            "youcook_zs": ("RetrievalMetric", "youcook.pkl", "zero-shot"),
            "youcook": ("RetrievalMetric", "youcook.pkl", "fine-tuned"),
            "qa_zs": ("QAMetric", "qa.csv", "zero-shot"),
            "qa": ("QAMetric", "qa.csv", "fine-tuned"),
            "own": ("mine:Metric", "vtt.csv", "-"),
        }
        for name, (metric, path, setting) in tests.items():
            config = {"dataset": {"test_path": path}}
            record = {"metrics": {"R1": 0.5}, "metric": metric, "setting": setting, "config": config}
            write_json(tmp_path / name / "metrics.json", record)
        stages = ["qa_zs", "vtt_zs", "youcook_zs", "own", "qa", "vtt", "youcook"]
        for order in (list(tests), stages, ["vtt", "youcook", "vtt_zs", "own", "qa", "qa_zs", "youcook_zs"]):
            results, _ = collect_results([tmp_path / name for name in order])
            assert [result.run_dir.name for result in results] == list(tests)

    def test_kinds_of_metric_have_tables_of_their_own(self, tmp_path):
        write_test(tmp_path / "a")
        didemo = {"rank1": 0.2, "rank5": 0.5, "mIoU": 0.3, "count": 9, "rank1_ci": [0.1, 0.4], "rank5_ci": [0.2, 0.8]}
        write_json(tmp_path / "b" / "metrics.json", {"metrics": didemo, "metric": "DiDeMoMetric"})
        write_json(tmp_path / "c" / "metrics.json", {"metrics": {"acc": 0.25, "count": 4}, "metric": "mine:Metric"})
        blocks = results_table(collect_results([tmp_path / name for name in "abc"])[0]).split("\n\n")
        assert [block.split()[2] for block in blocks] == ["R@1", "rank@1", "acc"]
        assert "20.0 [10.0, 40.0]" in blocks[1]
        assert "0.25" in blocks[2]

    def test_nothing_and_damage(self, tmp_path):
        assert results_table(*collect_results([])) == "no results"
        write_json(tmp_path / "metrics.json", {"metrics": {}})
        with pytest.raises(DataError, match=r"metrics\.json: holds no metrics"):
            collect_results([tmp_path])


class TestPage:
    def test_is_self_contained_and_complete(self, runs):
        report = build_report("my project", [runs], [runs / "train"])
        page = render(report)
        links = Links()
        links.feed(page)
        assert links.addresses
        assert all(address.startswith("data:image/") for address in links.addresses)
        assert "@import" not in page
        assert "url(" not in page
        text = " ".join(links.texts)
        for expected in ("my project", "runs/zs", "zero-shot", "fine-tuned", "caption ", "found first", "ab" * 32):
            assert expected in text
        metrics = report.results[0].metrics
        assert f"{100 * metrics['R1']:.1f}" in text
        assert f"{100 * metrics['R1_ci'][1]:.1f}" in text
        again = render(report)
        assert again[: again.index("<footer>")] == page[: page.index("<footer>")]  # the footer has the date

    def test_text_of_users_is_escaped(self, tmp_path):
        pytest.importorskip("matplotlib")
        write_test(tmp_path, texts=["<script>alert('x')</script> & co"] * 30)
        page = render(build_report("a < b", [tmp_path]))
        assert "<script>" not in page
        assert "&lt;script&gt;alert(" in page
        assert "<h1>a &lt; b</h1>" in page

    def test_setting_of_users_is_escaped(self, tmp_path):
        write_json(tmp_path / "metrics.json", {"metrics": {"acc": 0.5}, "metric": "m:M", "setting": "<b>mine</b>"})
        assert "<b>" not in render(build_report("x", [tmp_path]))

    def test_losses_of_different_batch_sizes_are_told_apart(self, runs):
        from mmpt.evaluators.figures import loss_curves

        report = build_report("x", [runs], [runs / "train"])
        (axes,) = loss_curves(report.logs).axes
        assert [text.get_text() for text in axes.texts] == ["batch: training 64, validation 48; best 1.5"]
        assert "losses of different batch sizes are not comparable" in render(report)

    def test_loss_curves_have_rows_of_three_one_legend_and_a_scale_that_shows_each(self, runs):
        from mmpt.evaluators.figures import loss_curves
        from mmpt.evaluators.training_log import Curve, TrainingLog

        steps = np.arange(1, 6)
        falling, flat = Curve(steps, 6.0 - steps), Curve(steps, 0.6 - steps / 10)
        far = TrainingLog(falling, falling, flat, train_batch=64, valid_batch=4)
        near = TrainingLog(falling, falling, flat, train_batch=8, valid_batch=8)
        figure = loss_curves({"a": far, "b": near, "c": near, "d": near})
        panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
        places = [axes.get_subplotspec().get_position(figure) for axes in panels]
        assert [round(place.x0, 3) for place in places][0::3] == [round(places[0].x0, 3)] * 2
        assert places[0].y0 == places[2].y0 > places[3].y0
        assert len(figure.axes) == len(panels) + 1, "losses of different batches have two scales, others one"
        assert len(figure.legends) == 1 and not any(axes.get_legend() for axes in figure.axes)
        assert len(figure.legends[0].get_texts()) == 2

    def test_without_videos_there_are_no_empty_tiles(self, runs, tmp_path):
        page = render(build_report("x", [runs]))
        assert page.count("--videos") == 1
        assert 'class="strip' not in page and "right video is framed" not in page
        (tmp_path / "videos").mkdir()
        with_videos = build_report("x", [runs], videos=tmp_path / "videos")
        assert "--videos" not in render(with_videos) and with_videos.problems

    def test_write(self, runs, tmp_path):
        report = build_report("x", [runs], [runs / "train", runs / "zs"])
        write_report(report, tmp_path / "deep" / "report.html")
        assert (tmp_path / "deep" / "report.html").read_text().startswith("<!doctype html>")
        assert [problem for problem in report.problems if "no log.txt" in problem]
        paths = write_figures(report, tmp_path / "figures")
        assert {path.name for path in paths} >= {"loss_curves.png", "ranks_30.png", "similarity_runs_zs.png"}
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)

    def test_nothing_was_run(self, tmp_path):
        with pytest.raises(DataError, match="run the project first"):
            build_report("x", [tmp_path])

    def test_only_moments(self, tmp_path):
        """A project without retrieval tests or training logs has a page too."""
        didemo = {"rank1": 0.2, "rank5": 0.5, "mIoU": 0.3, "count": 9, "rank1_ci": [0.1, 0.4], "rank5_ci": [0.2, 0.8]}
        write_json(tmp_path / "metrics.json", {"metrics": didemo, "metric": "DiDeMoMetric"})
        assert "rank@5" in render(build_report("x", [tmp_path]))


class TestGallery:
    def test_choice_is_spread(self):
        ranks = np.array([1, 7, 1, 1, 2, 90, 1, 1, 3])
        assert choose_queries(ranks) == ([0, 3, 7], [4, 1, 5])
        assert choose_queries(np.ones(2, int)) == ([0, 1], [])

    def test_right_video_is_appended_where_it_is_not_among_the_best(self):
        arrays = {
            "text": np.array([[1.0], [1.0]]),
            "video": np.array([[3.0], [2.0], [1.0], [0.0]]),
            "target": np.array([3, 1]),
            "ids": np.array(list("abcd")),
            "texts": np.array(["one", "two"]),
        }
        one, two = examples_of(arrays, np.array([4, 2]), [0, 1], count=2)
        assert [(item.place, item.video_id, item.right) for item in one.shown] == [
            (1, "a", False),
            (2, "b", False),
            (4, "d", True),
        ]
        assert [(item.video_id, item.right) for item in two.shown] == [("a", False), ("b", True)]
        assert (two.query, two.rank, two.shown[0].score) == ("two", 2, 3.0)

    def test_thumbnails(self, tmp_path):
        av = pytest.importorskip("av")
        with av.open(str(tmp_path / "clip.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for level in range(40):  # four seconds that grow brighter
                picture = np.full((48, 64, 3), 40 + 5 * level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        (tmp_path / "broken.mp4").write_bytes(b"not a video")
        thumbnails = Thumbnails(tmp_path, frames=4, size=32)
        frames = thumbnails("clip")
        assert frames.shape == (4, 32, 32, 3)
        assert frames.mean((1, 2, 3)) == pytest.approx([65, 115, 165, 215], abs=15)
        late = thumbnails("clip_2_4")  # a clip of it, in seconds
        assert late.mean((1, 2, 3)).min() > 130
        assert thumbnails("broken") is None
        assert thumbnails("absent") is None
        assert set(thumbnails.failed) == {"broken", "absent"}
        with pytest.raises(DataError, match="no folder of videos"):
            Thumbnails(tmp_path / "nowhere")

    def test_a_long_video_is_decoded_at_four_places_only(self, long_video, monkeypatch):
        from mmpt.store import decode

        windows, stream_frames = [], decode.stream_frames

        def watched(*arguments, **options):
            windows.append((options["start"], options["end"]))
            return stream_frames(*arguments, **options)

        monkeypatch.setattr(decode, "stream_frames", watched)
        frames = Thumbnails(long_video.parent, frames=4, size=32)("long")
        assert frames.shape == (4, 32, 32, 3)
        assert frames.mean((1, 2, 3)) == pytest.approx([65, 115, 165, 215], abs=15)
        assert [start for start, _ in windows] == pytest.approx([375, 1125, 1875, 2625], abs=1)
        assert sum(end - start for start, end in windows) <= 1.01

    def test_ids_with_an_ending(self, long_video):
        """DiDeMo's ids name the file that the authors had, whatever its container is here."""
        thumbnails = Thumbnails(long_video.parent, size=32)
        for name in ("long", "long.mkv", "long.avi", "long.MOV"):
            assert thumbnails(name) is not None, name
        assert thumbnails("long.v2") is None

    def test_suffixes_are_those_of_the_extractor(self, long_video):
        long_video.rename(long_video.with_suffix(".ogm"))
        assert Thumbnails(long_video.parent, size=32)("long") is not None


@pytest.fixture
def long_video(tmp_path):
    """Fifty minutes in 50 key frames that grow brighter."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "long.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=1, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for minute in range(50):
            picture = np.full((48, 64, 3), 40 + 200 * minute // 50, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = 60 * minute
            container.mux(stream.encode(frame))
        frame.pts = 2999
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return tmp_path / "long.mkv"


class TestFigures:
    def test_gallery_with_and_without_frames(self):
        pytest.importorskip("matplotlib")
        frames = np.zeros((4, 16, 16, 3), np.uint8)
        shown = [Shown("a", 1.0, True, 1, frames), Shown("b", 0.5, False, 2)]
        assert to_bytes(retrieval_gallery([Example("a query", 1, shown)]), "png").startswith(b"\x89PNG")

    def test_constant_scores_can_be_drawn(self):
        pytest.importorskip("matplotlib")
        assert b"<svg" in to_bytes(similarity_heatmap(np.zeros((3, 3)), LIGHT))

    def test_nothing_global_is_touched(self, runs):
        code = (
            "import sys; from mmpt.evaluators import figure_style, figures, training_log;"
            f"log = training_log.read_training_log({str(runs / 'train' / 'log.txt')!r});"
            "figure_style.to_bytes(figures.loss_curves({'x': log}));"
            "sys.exit('matplotlib.pyplot' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
