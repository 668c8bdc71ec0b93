"""Every job of every shipped project, in one process, on tiny data at the paths that the project names.

A training takes one optimizer step from the checkpoint it names and leaves one; a test evaluates the checkpoint it
names. So a project's classes, files and checkpoints fit together.
"""

import copy
import functools
import itertools
import math
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

pytest.importorskip("fairseq")

from mmpt.datasets.member_datasets import MemberDatasets
from mmpt.evaluators.caption_metrics import METRICS
from mmpt.evaluators.report import build_report, render
from mmpt.launch.commands import build_command
from mmpt.launch.graph import stages
from mmpt.launch.layout import Layout, Machine
from mmpt.launch.project import Job, expand_project, is_project
from mmpt.models.fairseq_model import FairseqMMModel
from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.images import encode_jpeg
from mmpt.store.visual_tokens import new_shard
from mmpt.tasks.task import Task, config_task
from mmpt.utils.config import read_yaml
from mmpt.utils.files import read_json
from mmpt.utils.registry import resolve_class
from mmpt.utils.weight_files import load_state_dict_file
from mmpt_cli.predict import predict
from scripts.comparison import narration_files
from scripts.demo_corpus import generate as demo_corpus
from scripts.demo_corpus import generate_stories, rendering
from scripts.demo_corpus.generate_short import write_texts
from scripts.demo_corpus.short_clips import ShortCounts, plan_short_clips
from scripts.demo_corpus.stories import StoryCounts
from scripts.frame_extractor import extract_frames
from scripts.segment_extractor import extract_segments
from scripts.text_token_extractor import dedup, pretokenization
from scripts.tiny_data.frame_files import TINY_GRID, TINY_SIDE
from scripts.tiny_data.generate import generate
from scripts.tiny_data.retrieval_files import save_feature
from scripts.tokenizers import train as train_tokenizer
from scripts.video_feature_extractor import shard_feature
from scripts.visual_tokens import extract_vq

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: Projects whose data the tiny data are.
ON_TINY_DATA = (
    "mfmmlm",
    "mtm/mmfusionmtm",
    "mtm/vlm",
    "mtm/vtt_full",
    "retri/videoretri",
    "retri/videoclip",
    "retri/didemo",
    "retri/vtt_full",
    "retri/clip_level",
    "retri/milnce",
    "own_corpus",
)
#: Projects that read raw frames: all tasks of VIOLET and LAVENDER. Here their frames, and Swin, are small.
ON_TINY_FRAMES = (
    "mvm/violet",
    "mlm/lavender",
    "mlm/lavender_webvid",
    "mlm/lavender_task_specific",
    "mlm/lavender_multitask",
    "mlm/lavender_multitask_ablate",
)
#: Projects that read segments of videos, or single images: MERLOT and MERLOT Reserve. Here all sizes are small.
ON_TINY_SEGMENTS = ("script/merlot", "script/merlot_reserve", "script/merlot_reserve_large")
#: Projects on the demo corpus. Here its files have features drawn at random: nothing is rendered or encoded.
DEMO = ("demo", "demo_vlm")
#: The same for short clips and raw frames.
DEMO_FRAMES = ("demo_violet", "demo_lavender")
#: The same for stories with sound, cut into segments: few and short videos, but otherwise as the demos make them.
DEMO_STORIES = ("demo_merlot", "demo_reserve")
#: The same for the comparison of all systems, with one seed.
COMPARED = ("compare",)
#: What it is held against: the same jobs with a setting or two changed; tests/launch/test_seeds.py and
#: tests/scripts/test_equal_time.py expand them.
ABLATIONS = (
    "compare_equal_time",
    "compare_rates",
    *(f"ablations/{path.stem}" for path in sorted((ROOT / "projects/ablations").glob("*.yaml"))),
)
OTHER = (
    "compare_data",
    "demo_data",
    "demo_frames_data",
    "demo_stories_data",
)  # their jobs are scripts, and the first jobs of the demos
#: Sizes of a training batch are cut to these; none changes the network.
_SMALL = {"dataset.subsampling": 4, "dataset.num_video_per_batch": 3, "dataset.clip_per_video": 4}
#: Projects whose page is drawn, too: those with all kinds of tasks, one on frames among them; drawing takes long.
RENDERED = ("mtm/vlm", "own_corpus", "mlm/lavender_multitask_ablate")
#: The project whose captions are scored by METEOR, too, which takes long to start.
WITH_METEOR = "own_corpus"
#: What makes a published size small; the weights of the published Swin are not at hand.
_SMALL_FRAMES = {
    "dataset.image_size": TINY_SIDE,
    "model.swin": "custom",
    "model.swin_embed_dim": 8,
    "model.swin_depths": [2, 1],
    "model.swin_heads": [1, 2],
    "model.swin_window": [8, 4, 4],
    "model.swin_weights": None,
}
#: The same of MERLOT and of Reserve.
_SMALL_SEGMENTS = (
    {
        "dataset": {"image_size": [32, 64], "val_holdout": 0.3},
        "model": {"vocab_size": 400, "max_text_positions": 1024, "resnet_layers": [], "gradient_checkpointing": False},
    },
    {
        "dataset": {"image_grid": [2, 4], "val_holdout": 0.3, "seq_len": 192},
        "model": {"preset": None, "vocab_size": 400, "gradient_checkpointing": False},
    },
)
_ITEMS = 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of tiny data; what jobs write lies there too, so that a project sees what another wrote."""
    folder = tmp_path_factory.mktemp("one_step") / "tiny"
    generate(folder)
    return folder


@pytest.fixture(autouse=True)
def _inside(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tiny)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def demo_data(tiny: Path) -> None:
    """Make the data of the demo as its project does, but for the videos and their encoder."""
    patch = pytest.MonkeyPatch()
    with patch.context() as inside:
        inside.chdir(tiny)
        inside.setattr(rendering, "render_all", lambda *arguments: {})
        assert demo_corpus.main(["--output", "data/demo", "--seed", "1"]) == 0
        rng = np.random.default_rng(0)
        for name, segments in read_json("data/demo/triples.json").items():
            feature = rng.standard_normal((math.ceil(segments[-1][1]) + 1, 512)).astype(np.float16)
            save_feature(Path("data/demo/feat_conv3d"), name, feature)
        for job in expand_project("projects/demo_data.yaml").jobs:
            if job.name not in ("demo_corpus.yaml", "extract.yaml"):
                argv = build_command(job, job.path, Layout(), Machine(gpus=0)).argv
                script = {"shard": shard_feature, "dedup": dedup, "tokenize": pretokenization}[Path(job.name).stem]
                assert script.main(argv[2:]) == 0


@pytest.fixture(scope="module")
def short_clips(tiny: Path) -> None:
    """Write the texts of a few short clips, frames that show nothing, and visual tokens drawn at random."""
    folder = tiny / "data" / "demo_frames"
    plans = plan_short_clips(1, ShortCounts(8, 8, 6, 8))
    write_texts(plans, folder, 1)
    rng = np.random.default_rng(0)
    black = encode_jpeg(np.zeros((TINY_SIDE, TINY_SIDE, 3), np.uint8))
    with FrameStoreWriter(folder / "frames") as frames, new_shard(folder / "vq", TINY_GRID, {}) as tokens:
        for plan in plans:
            frames.append(plan.name, [black] * 4)
            tokens.append(rng.integers(0, 64, (4, *TINY_GRID), dtype=np.uint16), plan.name)


@pytest.fixture(scope="module")
def stories(tiny: Path) -> None:
    """Render a few stories and cut them up, as the project of the demos' data does."""
    patch = pytest.MonkeyPatch()
    with patch.context() as inside:
        inside.chdir(tiny)
        assert generate_stories.generate(Path("data/demo_stories"), 1, StoryCounts(4, 2, 2, 4, 2, 2), 1) == 0
        scripts = {"tokenizer": train_tokenizer, "segments": extract_segments, "frames": extract_frames}
        for job in expand_project("projects/demo_stories_data.yaml").jobs:
            kind = job.run_dir.name.partition("_")[0]
            if kind != "demo":
                argv = build_command(job, job.path, Layout(), Machine(gpus=0)).argv
                assert scripts[kind].main(argv[2:]) == 0, job.run_dir


@pytest.fixture(scope="module")
def compared(tiny: Path) -> None:
    """Render a few stories and make of them what every system reads, as the project does; features are drawn."""
    patch = pytest.MonkeyPatch()
    with patch.context() as inside:
        inside.chdir(tiny)
        assert generate_stories.generate(Path("data/compare"), 1, StoryCounts(4, 2, 2, 0, 0, 0), 1) == 0
        rng = np.random.default_rng(0)
        for video in Path("data/compare/videos").iterdir():
            save_feature(
                Path("data/compare/feat_conv3d"), video.stem, rng.standard_normal((75, 512)).astype(np.float16)
            )
        scripts = {
            "narration": narration_files, "shards": shard_feature, "captions": dedup, "tokens": pretokenization,
            "frames": extract_frames, "visual": extract_vq, "tokenizer": train_tokenizer, "segments": extract_segments,
        }  # fmt: skip
        for job in expand_project("projects/compare_data.yaml").jobs:
            kind = job.run_dir.name.partition("_")[0]
            if kind not in ("demo", "features"):
                argv = build_command(job, job.path, Layout(), Machine(gpus=0)).argv
                assert scripts[kind].main(argv[2:]) == 0, job.run_dir


def shipped() -> set[str]:
    files = (path for pattern in ("*.yaml", "*/*.yaml") for path in (ROOT / "projects").glob(pattern))
    names = (str(path.relative_to(ROOT / "projects").with_suffix("")) for path in files if is_project(read_yaml(path)))
    return set(names)


def test_no_shipped_project_is_forgotten() -> None:
    listed = {
        *ON_TINY_DATA,
        *ON_TINY_FRAMES,
        *ON_TINY_SEGMENTS,
        *DEMO,
        *DEMO_FRAMES,
        *DEMO_STORIES,
        *COMPARED,
        *ABLATIONS,
        *OTHER,
    }
    assert shipped() == listed


@pytest.mark.parametrize("name", ON_TINY_DATA)
def test_every_job_of_a_project(name: str) -> None:
    run_jobs(name)


@pytest.mark.parametrize("name", ON_TINY_FRAMES)
def test_every_task_of_a_system_of_raw_frames(name: str) -> None:
    run_jobs(name)


@pytest.mark.parametrize("name", ON_TINY_SEGMENTS)
def test_every_task_of_a_system_of_segments(name: str) -> None:
    run_jobs(name)


def test_the_full_test_of_msrvtt_asks_every_caption_and_trains_on_none_of_its_videos() -> None:
    records = read_json("data/msrvtt/MSRVTT_data.json")["sentences"]
    for name in ("retri/vtt_full", "mtm/vtt_full"):
        trained, tested, asked = set(), set(), set()
        for job in expand_project(f"projects/{name}.yaml").jobs:
            task = config_task(job.config)
            task.build_dataset()
            if task.test_data is not None:
                asked = set(task.test_data.meta_processor.data)
                tested = {video for video, _ in asked}
            else:
                trained = {video for data in (task.train_data, task.val_data) for video, _ in data.meta_processor.data}
        assert asked == {(each["video_id"], each["caption"]) for each in records if each["video_id"] in tested}
        assert len(tested) == 20 and len(asked) > 2 * len(tested)
        assert len(trained) == 10 and not trained & tested


@pytest.mark.parametrize("name", DEMO)
def test_every_job_of_a_demo(name: str, demo_data: None) -> None:
    run_jobs(name)


@pytest.mark.parametrize("name", DEMO_FRAMES)
def test_every_job_of_a_demo_on_raw_frames(name: str, short_clips: None) -> None:
    run_jobs(name)


@pytest.mark.parametrize("name", DEMO_STORIES)
def test_every_job_of_a_demo_on_stories(name: str, stories: None) -> None:
    run_jobs(name)


@pytest.mark.parametrize("name", COMPARED)
def test_every_job_of_the_comparison(name: str, compared: None) -> None:
    run_jobs(name, ["seeds=[1]"])


def run_jobs(name: str, overrides: Sequence[str] = ()) -> None:
    """Run the trainings and tests of a project, in the order of their checkpoints."""
    project = expand_project(f"projects/{name}.yaml", overrides)
    done = []
    jobs = [job for stage in stages(project) for job in stage if job.kind != "script"]
    written = {job.writes for job in jobs}
    if name in (*ON_TINY_DATA, *ON_TINY_FRAMES):
        jobs = [job for job in jobs if job.kind == "train" or is_new(job, jobs)]
    for job in jobs:
        try:
            if job.reads is not None and job.reads.parent not in written and not job.reads.exists():
                pretrain(job.reads.parent)
            train_a_step(job) if job.kind == "train" else evaluate(job, meteor=name == WITH_METEOR)
        except Exception as error:
            error.add_note(f"in {job.path}, after {', '.join(done) or 'no other job'}")
            raise
        done.append(job.name)
    assert done
    tests = [job.run_dir for job in jobs if job.kind == "predict"]
    if not tests:  # all of them are like those of another project
        return
    report = build_report(name, tests, names={str(job.run_dir): job.name for job in jobs})
    assert not report.problems
    assert len(report.results) == len(tests)
    if name in RENDERED:
        assert "<h2>Example" in render(report)


_RUN: set[str] = set()


def is_new(test: Job, jobs: list[Job]) -> bool:
    """Whether no test has run that differs in its folders alone, and reads a checkpoint of the same model."""
    config = test.config.copy()
    for key in ("eval.save_path", "fairseq.common_eval.path"):
        OmegaConf.update(config, key, None)
    models = [job.config.model.model_cls for job in jobs if test.reads is not None and job.writes == test.reads.parent]
    key = f"{models}\n{OmegaConf.to_yaml(config)}"
    new = key not in _RUN
    _RUN.add(key)
    return new


@functools.cache
def trainings(name: str) -> dict[Path, Job]:
    """The trainings of a project by the folder that they write to."""
    return {job.writes: job for job in expand_project(f"projects/{name}.yaml").jobs if job.writes is not None}


def pretrain(folder: Path) -> None:
    """Take the first step of the training of another project that writes to a folder."""
    found = (trainings(name).get(folder) for name in (*ON_TINY_DATA, *ON_TINY_FRAMES))
    train_a_step(copy.deepcopy(next(job for job in found if job is not None)))


def train_a_step(job: Job) -> None:
    """Take one step and save the weights as fairseq does, under every name that jobs read."""
    for key, value in _SMALL.items():
        if OmegaConf.select(job.config, key) is not None:
            OmegaConf.update(job.config, key, value)
    make_frames_small(job)
    task = config_task(job.config, seed=1)
    task.build_dataset()
    task.build_loss()
    task.build_model()
    begins = bool(OmegaConf.select(job.config, "fairseq.checkpoint.reset_optimizer"))
    model = FairseqMMModel.build_model(Namespace(reset_optimizer=begins), Namespace(mmtask=task))
    if job.reads is not None:
        state = load_state_dict_file(job.reads)
        model.load_state_dict({f"mmmodel.{key}": value for key, value in state.items()})
    assert task.val_data is not None, "a checkpoint is chosen on validation data"
    if hasattr(task, "random_groups"):
        task.train_data.meta_processor.set_candidates(task.random_groups(0))
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss = loss_of(task, model.train(), "train_data", job)
    loss.backward()
    optimizer.step()
    changed = sum(not torch.equal(before[key], value) for key, value in model.named_parameters())
    assert changed > len(before) / 4, "hardly a parameter was trained"
    with torch.no_grad():
        loss_of(task, model.eval(), "val_data", job)
    job.run_dir.mkdir(parents=True, exist_ok=True)
    for file in ("checkpoint_best.pt", "checkpoint_last.pt", "checkpoint11.pt"):
        torch.save({"model": model.state_dict()}, job.run_dir / file)


def make_frames_small(job: Job) -> None:
    """Let a job on raw frames have small ones, and a small network."""
    name = str(job.config.model.model_cls)
    if job.run_dir.parts[1] in (*DEMO_STORIES, "compare", "ablations"):  # all is small there
        return
    if name.startswith(("MERLOT", "Reserve")):
        model, sizes = resolve_class("model", name).tiny_config().model, _SMALL_SEGMENTS[name.startswith("Reserve")]
        model.pop("num_labels", None)  # the data say it
        job.config = OmegaConf.merge(job.config, {"model": model}, sizes)
    elif OmegaConf.select(job.config, "dataset.video_processor") == "FrameVideoProcessor":
        for key, value in _SMALL_FRAMES.items():
            OmegaConf.update(job.config, key, value)


def loss_of(task: Task, model: torch.nn.Module, split: str, job: Job) -> torch.Tensor:
    """Compute the loss of a batch of a split, as fairseq's task would; of several members, of one of each."""
    data: Any = getattr(task, split)
    most = min(_ITEMS, OmegaConf.select(job.config, "fairseq.dataset.batch_size"))
    data.set_epoch(1)
    losses = []
    starts = data.starts.tolist() if isinstance(data, MemberDatasets) else [0, len(data)]
    for start, end in itertools.pairwise(starts):
        size = min(most, end - start)
        # spread over the split: the first items may be captions of one video, which are not compared with each other
        output = task(model, data.collater([data[start + index * (end - start) // size] for index in range(size)]))
        assert math.isfinite(output["loss_scalar"]), f"{split}: loss {output['loss_scalar']}"
        assert output["sample_size"] >= 1
        losses.append(output["loss"])
    return torch.stack(losses).sum()


def evaluate(job: Job, meteor: bool) -> None:
    """Run a test as mmpt_cli/predict.py does; the record must have the main metric, and it must be a number."""
    OmegaConf.update(job.config, "dataset.num_workers", 0)
    if job.config.metric == "NLGMetric" and not meteor:
        OmegaConf.update(job.config, "eval.caption_metrics", [one for one in METRICS if one != "METEOR"])
    make_frames_small(job)
    lines = predict(job.config, "cpu")
    assert lines
    record = read_json(job.run_dir / "metrics.json")
    assert record["metric"] == job.config.metric
    assert record["main"] == next(iter(record["metrics"]))
    least = -1 if record["main"] == "spearman" else 0
    assert least <= record["metrics"][record["main"]] <= 1
    assert record["count"] > 0
