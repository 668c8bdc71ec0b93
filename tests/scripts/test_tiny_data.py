"""The tiny data: everything that the published projects read is there, it can be learned, and no test is trained on."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmpt.launch.project import expand_project
from mmpt.processors.base import holdout
from scripts.tiny_data import generate
from scripts.tiny_data.concepts import FEATURE_DIM, THINGS, VERBS, World, pick_ids

PUBLISHED = ("mfmmlm", "mtm/mmfusionmtm", "mtm/vlm", "retri/videoretri", "retri/videoclip", "retri/didemo")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    assert generate.main(["--output", str(folder)]) == 0
    return folder


def words_of(text: str) -> np.ndarray:
    return np.array([word in text.split() for word in (*VERBS, *THINGS)], dtype=float)


def mean_feature(tiny: Path, corpus: str, name: str, start: int = 0, end: int | None = None) -> np.ndarray:
    feature = np.load(tiny / "data" / "feat" / f"feat_{corpus}_s3d" / f"{name}.npy")
    return feature[start:end].astype(float).mean(axis=0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_file_that_a_published_project_reads_is_there(
    tiny: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny)
    checked = set()
    for job in expand_project(f"projects/{name}.yaml").jobs:
        for key, value in job.config.dataset.items():
            if isinstance(value, str) and value.startswith("data/"):
                checked.add(value)
                found = list(Path(value).parent.glob(f"{Path(value).name}*")) if key == "tfeat_dir" else Path(value)
                assert found if isinstance(found, list) else found.exists(), f"{job.name}: dataset.{key}: {value}"
    assert checked
    assert (tiny / job.config.dataset.bert_name / "model.safetensors").is_file()


def test_texts_find_unseen_videos_once_their_words_are_learned(tiny: Path) -> None:
    """Least squares from words to features, fitted on narrated videos, ranks the right test video first."""
    inputs, outputs = [], []
    for name, said in json.loads((tiny / "data/how2/raw_caption.json").read_text()).items():
        for start, end, text in zip(said["start"], said["end"], said["text"], strict=True):
            inputs.append(words_of(text))
            outputs.append(mean_feature(tiny, "how2", name, int(start), int(end)))
    learned = np.linalg.lstsq(np.stack(inputs), np.stack(outputs), rcond=None)[0]
    captions = json.loads((tiny / "data/msrvtt/MSRVTT_data.json").read_text())["sentences"]
    by_video = {item["video_id"]: item["caption"] for item in captions}
    test = pd.read_csv(tiny / "data/msrvtt/MSRVTT_JSFUSION_test.csv")["video_id"].tolist()
    texts = np.stack([words_of(by_video[name]) @ learned for name in test])
    videos = np.stack([mean_feature(tiny, "vtt", name) for name in test])
    found = (texts @ videos.T).argmax(axis=1)
    equal = [by_video[test[row]].split()[-3:] == by_video[test[best]].split()[-3:] for row, best in enumerate(found)]
    assert np.mean(equal) > 0.9, "chance is 0.06"


def test_answers_labels_and_steps_are_those_of_the_features(tiny: Path) -> None:
    world = World(0)  # the directions of the words come before everything else that is drawn
    directions = {word: vector / np.linalg.norm(vector) for word, vector in world.directions.items()}

    def likeness(text: str, feature: np.ndarray) -> float:
        return float(sum(directions[word] @ feature for word in text.split() if word in directions))

    questions = pd.read_csv(tiny / "data/msrvtt-qa/MSR_MC_test.csv", sep="\t")
    for row in questions.itertuples():
        feature = mean_feature(tiny, "vtt", row.vid_key.replace("msr", "video"))
        options = [likeness(text, feature) for text in (row.a1, row.a2, row.a3, row.a4, row.a5)]
        assert options[row.answer] == max(options)
    for name, video in json.loads((tiny / "data/coin/COIN.json").read_text())["database"].items():
        for step in video["annotation"]:
            inside = mean_feature(tiny, "coin", name, *(int(second) for second in step["segment"]))
            labels = {other["label"]: likeness(other["label"], inside) for other in video["annotation"]}
            assert max(labels, key=labels.__getitem__) == step["label"]
    file = next(iter(sorted((tiny / "data/crosstask/crosstask_release/annotations").glob("16815_*.csv"))))
    steps = (tiny / "data/crosstask/crosstask_release/tasks_primary.txt").read_text().splitlines()[4].split(",")
    for line in file.read_text().splitlines():
        step, start, end = (float(value) for value in line.split(","))
        inside = mean_feature(tiny, "crosstask", file.stem.split("_", 1)[1], int(start), int(end))
        assert max(steps, key=lambda name: likeness(name, inside)) == steps[int(step) - 1]


def test_no_test_video_is_trained_on_and_validation_has_some(tiny: Path) -> None:
    clips = {
        split: {clip["id"].rpartition("_")[0] for clip in pickle.loads(path.read_bytes())}
        for split in ("train", "val")
        for path in [tiny / f"data/youcook/youcook_{split}.pkl"]
    }
    assert clips["train"] and not clips["train"] & clips["val"]
    for ids in (clips["train"], pd.read_csv(tiny / "data/msrvtt/MSRVTT_train.csv")["video_id"]):
        held_out = holdout(list(ids), 0.05)
        assert 1 <= held_out.sum() <= 3
    lists = [set((tiny / f"data/how2/how2_s3d_{split}.lst").read_text().split()) for split in ("train", "val")]
    assert not lists[0] & lists[1]
    jsfusion, full = (
        set(pd.read_csv(tiny / f"data/msrvtt/MSRVTT_{n}_test.csv")["video_id"]) for n in ("JSFUSION", "FULL")
    )
    assert jsfusion < full


def test_features_are_those_of_s3d(tiny: Path) -> None:
    for file in (tiny / "data/feat").rglob("*_s3d/*0.npy"):
        feature = np.load(file)
        assert (feature.dtype, feature.shape[1]) == (np.float16, FEATURE_DIM)
        assert np.linalg.norm(feature.astype(float), axis=1) == pytest.approx(1, abs=2e-3)


def test_the_same_seed_gives_the_same_data(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate.generate(tmp_path / "again")
    for file in (path for path in tiny.rglob("*") if path.suffix in (".npy", ".csv", ".txt", ".safetensors", ".pkl")):
        assert (tmp_path / "again" / file.relative_to(tiny)).read_bytes() == file.read_bytes(), file
    assert generate.main(["--output", str(tiny)]) == 0, "what is there already stays"
    assert generate.main(["--output", str(tiny), "--seed", "1"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_data_of_someone_else_are_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    assert generate.main(["--output", str(tmp_path)]) == 2
    assert "choose another --output" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == [tmp_path / "data"]
    (tmp_path / "file").write_text("")
    assert generate.main(["--output", str(tmp_path / "file" / "below")]) == 2


def test_ids_are_held_out_as_asked() -> None:
    ids = pick_ids("x", 20, held_out=3)
    assert len(set(ids)) == 20
    assert holdout(ids, 0.05).sum() == 3
