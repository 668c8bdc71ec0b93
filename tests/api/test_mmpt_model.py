"""The published snippet, for both systems, on a checkpoint of random weights and a random S3D."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmpt.launch.project import expand_project, write_jobs
from mmpt.models import MMPTModel
from mmpt.modules.s3d import load_s3d, random_s3d
from mmpt.tasks.task import config_task
from mmpt.utils.config import apply_overrides
from mmpt.utils.errors import CheckpointError, ConfigError, DataError
from mmpt.utils.files import REPOSITORY
from scripts.tiny_data.bert import write_bert
from scripts.tiny_data.generate import BERT_NAME

VIDEOCLIP, VLM = "projects/retri/videoclip/how2.yaml", "projects/mtm/vlm/how2.yaml"
S3D = "pretrained_models/s3d_howto100m.pth"
WORDS = ["cut", "the", "onion", "into", "rings", "some", "text"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with BERT, S3D and a checkpoint per system, where the published snippet looks for them."""
    folder = tmp_path_factory.mktemp("mmpt_model")
    write_bert(folder / BERT_NAME, WORDS, seed=0)
    (folder / S3D).parent.mkdir()
    torch.save(random_s3d(1).state_dict(), folder / S3D)
    patch = pytest.MonkeyPatch()
    with patch.context() as inside, torch.random.fork_rng(devices=[]):
        inside.chdir(folder)
        for seed, job in enumerate((VIDEOCLIP, VLM)):
            torch.manual_seed(seed)
            save_checkpoint(config_of(job), folder / config_of(job).fairseq.checkpoint.save_dir)
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def systems(folder: Path) -> dict[str, Any]:
    """What ``from_pretrained`` returns for each system; tests leave the models as they are."""
    patch = pytest.MonkeyPatch()
    with patch.context() as inside:
        inside.chdir(folder)
        return {job: MMPTModel.from_pretrained(job) for job in (VIDEOCLIP, VLM)}


@cache
def config_of(job: str) -> Any:
    jobs = expand_project(f"{Path(job).parent}.yaml").jobs
    return next(found.config for found in jobs if found.name == Path(job).name)


def save_checkpoint(config: Any, folder: Path) -> None:
    """Save random weights in fairseq's layout."""
    model = config_task(apply_overrides(config, ["model.init=random"])).build_model()
    folder.mkdir(parents=True)
    state = {f"mmmodel.{key}": value for key, value in model.state_dict().items()}
    torch.save({"args": None, "model": state, "extra_state": {"best": 1.0}}, folder / "checkpoint_best.pt")


def frames_of(batch: int, seconds: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, seconds, 30, 32, 32, 3, generator=torch.Generator().manual_seed(seed))


def texts_of(tokenizer: Any, aligner: Any, *texts: str) -> tuple[Tensor, Tensor]:
    pairs = [aligner._build_text_seq(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    return torch.stack([caps for caps, _ in pairs]), torch.stack([cmasks for _, cmasks in pairs])


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("job", [VIDEOCLIP, VLM])
def test_published_snippet(job: str, systems: dict[str, Any]) -> None:
    model, tokenizer, aligner = systems[job]
    model.eval()
    # B, T, FPS, H, W, C
    video_frames = frames_of(1, 2)
    caps, cmasks = aligner._build_text_seq(tokenizer("some text", add_special_tokens=False)["input_ids"])
    caps, cmasks = caps[None, :], cmasks[None, :]
    with torch.no_grad():
        output = model(video_frames, caps, cmasks, return_score=True)
        pooled = model(video_frames, caps, cmasks)
    assert output.keys() == {"score"}
    same(output["score"], (pooled["pooled_video"] @ pooled["pooled_text"].T)[0])
    assert not model.training
    assert {key.partition(".")[0] for key in model.state_dict()} == {"model", "video_encoder"}


@pytest.mark.parametrize("job", [VIDEOCLIP, VLM])
@pytest.mark.parametrize("normalized", [True, False])
def test_outputs_are_those_of_the_model_on_features_of_s3d(job: str, normalized: bool, systems: dict[str, Any]) -> None:
    loaded, tokenizer, aligner = systems[job]
    model = MMPTModel(config_of(job), loaded.model, loaded.video_encoder, l2_normalize=normalized)
    frames, (caps, cmasks) = frames_of(1, 3), texts_of(tokenizer, aligner, "cut the onion")
    feature = load_s3d(S3D)(frames[0].permute(0, 4, 1, 2, 3))["video_embedding"]
    feature = F.normalize(feature) if normalized else feature
    alone = config_task(apply_overrides(config_of(job), ["model.init=random"])).build_model(
        f"{config_of(job).fairseq.checkpoint.save_dir}/checkpoint_best.pt"
    )
    vfeats, vmasks = aligner._build_video_seq(feature.numpy())
    with torch.no_grad():
        expected = alone.eval()(caps=caps, cmasks=cmasks, vfeats=vfeats[None], vmasks=vmasks[None])
        found = model(frames, caps, cmasks)
    assert found.keys() == expected.keys() == {"pooled_video", "pooled_text"}
    for key, value in expected.items():
        same(found[key], value)


@pytest.mark.parametrize("job", [VIDEOCLIP, VLM])
def test_a_batch_of_videos_of_different_lengths_is_its_videos_one_by_one(job: str, systems: dict[str, Any]) -> None:
    model, tokenizer, aligner = systems[job]
    frames, (caps, cmasks) = frames_of(2, 2), texts_of(tokenizer, aligner, "cut the onion into rings", "some text")
    vmasks = torch.tensor([[True, True], [True, False]])
    frames[1, 1] = torch.nan  # nothing under padding is looked at
    with torch.no_grad():
        both = model(frames, caps, cmasks, vmasks=vmasks)
        score = model(frames, caps, cmasks, return_score=True, vmasks=vmasks)["score"]
        first = model(frames[:1], caps[:1], cmasks[:1])
        second = model(frames[1:, :1], caps[1:], cmasks[1:])
    for key, value in both.items():
        same(value, torch.cat([first[key], second[key]]))
    same(score, (both["pooled_video"] * both["pooled_text"]).sum(1))


def test_bytes_and_floats_are_the_same_frames(systems: dict[str, Any]) -> None:
    model = systems[VIDEOCLIP][0]
    frames = (frames_of(1, 1) * 255).round()
    vfeats, vmasks = model.encode_frames(frames.byte())
    same(vfeats, model.encode_frames(frames / 255)[0])
    assert vfeats.shape == (1, 32, 512)
    assert vmasks.tolist() == [[True] + [False] * 31]
    same(vfeats.norm(dim=2), vmasks.float())
    with pytest.raises(DataError, match=r"from 0 to 255, expected \[0, 1\]"):
        model.encode_frames(frames)
    with pytest.raises(DataError, match="int64"):
        model.encode_frames(frames.long())


@pytest.mark.parametrize("job", [VIDEOCLIP, VLM])
def test_pooled_outputs_in_training_mode_leave_s3d_alone(job: str, systems: dict[str, Any]) -> None:
    model, tokenizer, aligner = systems[job]
    before = {key: value.clone() for key, value in model.video_encoder.state_dict().items()}
    output = model.train()(frames_of(1, 1), *texts_of(tokenizer, aligner, "some text"))
    assert output.keys() == {"pooled_video", "pooled_text"}
    assert model.model.training and not model.video_encoder.training
    output["pooled_video"].sum().backward()
    assert all(torch.equal(before[key], value) for key, value in model.video_encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in model.video_encoder.parameters())
    model.eval().zero_grad()


def test_features_alone_need_no_s3d() -> None:
    model, tokenizer, aligner = MMPTModel.from_pretrained(VIDEOCLIP, s3d_weights=None)
    assert model.video_encoder is None
    caps, cmasks = texts_of(tokenizer, aligner, "cut the onion", "some text", "the rings")
    vfeats, vmasks = torch.randn(2, 5, 512), torch.ones(2, 5, dtype=torch.bool)
    with torch.no_grad():
        video, text = model.encode_video(vfeats.half(), vmasks), model.encode_text(caps, cmasks)
        expected = model.model(caps=caps, cmasks=cmasks, vfeats=vfeats.half().float(), vmasks=vmasks)
    same(video, expected["pooled_video"])
    same(text, expected["pooled_text"])
    with pytest.raises(ConfigError, match="without S3D"):
        model(frames_of(1, 1), caps[:1], cmasks[:1])


def test_videos_and_texts_apart_where_the_model_sees_them_together() -> None:
    model, *_ = MMPTModel.from_pretrained(VLM, s3d_weights=None)
    vfeats, vmasks = torch.randn(1, 5, 512), torch.ones(1, 5, dtype=torch.bool)
    with pytest.raises(ConfigError, match="num_iso_layer"):
        model.encode_video(vfeats, vmasks)
    isolated, *_ = MMPTModel.from_pretrained(VLM, s3d_weights=None, overrides=["dataset.num_iso_layer=12"])
    assert isolated.encode_video(vfeats, vmasks).shape == (1, 24)


def test_wrong_inputs_are_named(systems: dict[str, Any]) -> None:
    model, tokenizer, aligner = systems[VIDEOCLIP]
    caps, cmasks = texts_of(tokenizer, aligner, "cut", "the", "onion")
    with pytest.raises(DataError, match="30 frames a second"):
        model(torch.rand(1, 2, 16, 32, 32, 3), caps[:1], cmasks[:1])
    with pytest.raises(DataError, match="33 seconds, but the model takes dataset.max_video_len: 32"):
        model(torch.zeros(1, 33, 30, 2, 2, 3), caps[:1], cmasks[:1])
    with pytest.raises(DataError, match="vmasks"):
        model(frames_of(1, 1), caps[:1], cmasks[:1], vmasks=torch.ones(1, 2))
    with pytest.raises(DataError, match="no second"):
        model(frames_of(1, 0), caps[:1], cmasks[:1])
    with pytest.raises(DataError, match="2 videos and 3 texts"):
        model(frames_of(2, 1), caps, cmasks, return_score=True)


def test_missing_files_are_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="s3d_weights=None"):
        MMPTModel.from_pretrained(VIDEOCLIP, s3d_weights="nowhere.pth")
    with pytest.raises(CheckpointError, match="runs/retri/videoclip/checkpoint7.pt"):
        MMPTModel.from_pretrained(VIDEOCLIP, "checkpoint7.pt")
    with pytest.raises(CheckpointError) as caught:  # its two folders are one
        MMPTModel.from_pretrained("projects/retri/videoclip/test_vtt_zs.yaml", "checkpoint7.pt", s3d_weights=None)
    assert len(set(paths := re.findall(r"\S+checkpoint7\.pt", str(caught.value)))) == len(paths) > 0
    with pytest.raises(ConfigError, match="expands to no such job, but to how2.yaml"):
        MMPTModel.from_pretrained("projects/retri/videoclip/how3.yaml")
    with pytest.raises(ConfigError, match="locallaunch.py"):
        MMPTModel.from_pretrained("projects/nowhere/how2.yaml")
    assert not (folder / "projects").exists()  # expanding wrote nothing


def test_loading_is_strict_and_reported(tmp_path: Path) -> None:
    content = torch.load("runs/mtm/vlm/checkpoint_best.pt")
    explicit = str(tmp_path / "mine.pt")
    torch.save(content, explicit)
    model, *_ = MMPTModel.from_pretrained(VLM, explicit, s3d_weights=None)
    assert len(model.load_report.loaded) == len(model.model.state_dict())
    assert not model.load_report.missing
    lost = content["model"].popitem()[0].removeprefix("mmmodel.")
    torch.save(content, explicit)
    with pytest.raises(CheckpointError, match=f"1 missing keys: {lost}"):
        MMPTModel.from_pretrained(VLM, explicit, s3d_weights=None)


def test_the_written_job_and_a_test_of_it_give_the_same_model(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, systems: dict[str, Any]
) -> None:
    expected, tokenizer, aligner = systems[VIDEOCLIP]
    zero_shot, *_ = MMPTModel.from_pretrained("projects/retri/videoclip/test_vtt_zs.yaml", s3d_weights=None)
    for name in (BERT_NAME, "runs"):
        (tmp_path / name).symlink_to(folder / name)
    monkeypatch.chdir(tmp_path)
    write_jobs(expand_project("projects/retri/videoclip.yaml"))
    written, *_ = MMPTModel.from_pretrained(VIDEOCLIP, s3d_weights=None)
    texts = texts_of(tokenizer, aligner, "cut the onion")
    for model in (zero_shot, written):
        assert torch.equal(model.encode_text(*texts), expected.encode_text(*texts))


def test_a_model_without_scores_says_so(systems: dict[str, Any]) -> None:
    model, tokenizer, aligner = systems[VIDEOCLIP]

    class Classes(torch.nn.Module):
        def forward(self, **batch: Tensor) -> dict[str, Tensor]:
            return {"logits": batch["vfeats"]}

    classes = MMPTModel(config_of(VIDEOCLIP), Classes(), model.video_encoder).eval()
    texts = texts_of(tokenizer, aligner, "cut")
    assert classes(frames_of(1, 1), *texts)["logits"].shape == (1, 32, 512)
    with pytest.raises(ConfigError, match="Classes gives logits, and no score"):
        classes(frames_of(1, 1), *texts, return_score=True)


@pytest.mark.gpu
def test_inputs_on_the_cpu_reach_a_model_on_the_gpu() -> None:
    model, tokenizer, aligner = MMPTModel.from_pretrained(VIDEOCLIP)
    texts, vmasks = texts_of(tokenizer, aligner, "cut", "the"), torch.tensor([[True, True], [True, False]])
    with torch.no_grad():
        expected = model(frames_of(2, 2), *texts, vmasks=vmasks)["pooled_video"]
        found = model.cuda()(frames_of(2, 2), *texts, vmasks=vmasks)["pooled_video"]
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-2, atol=1e-2)


def test_sizes_that_training_took_from_its_data_come_from_the_checkpoint(folder: Path) -> None:
    job = "projects/retri/videoclip/coin_videoclip.yaml"
    trained = apply_overrides(config_of(job), ["model.input_dim=24", "model.num_labels=7"])
    where = folder / "of_other_sizes"
    save_checkpoint(trained, where)
    model, _, _ = MMPTModel.from_pretrained(job, where / "checkpoint_best.pt", s3d_weights=None)
    encoder = model.model.video_encoder
    assert (encoder.videomlp.linear1.in_features, encoder.classifier.out_features) == (24, 7)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["python", "tasks"])
def test_the_snippets_of_the_pages_run(page: str, systems: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    text = (REPOSITORY / f"docs/{page}.md").read_text(encoding="utf-8")
    [snippet] = [block for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if "MMPTModel" in block]
    names: dict[str, Any] = {}
    exec(snippet.replace("224, 224", "32, 32"), names)
    assert not names["model"].load_report.missing
    assert page != "python" or "torch.Size([1, 24])" in capsys.readouterr().out
