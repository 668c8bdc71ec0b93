"""shard_feature.py: shards, resume, manifest, counted skips and failures, exit codes."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mmpt.store.features import FeatureStore, ShardedFeatureStore, read_shard_map
from mmpt.utils.errors import DataError
from mmpt.utils.files import sole_writer
from mmpt.utils.shardedtensor import ShardedTensor

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "video_feature_extractor" / "shard_feature.py"
DIM = 4


def _load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shard_feature_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


main = _load_script().main


class Workplace:
    """Ten videos v0 to v9 of one to ten seconds; v<i> holds the number i."""

    def __init__(self, folder: Path) -> None:
        self.fdir, self.sdir, self.list = folder / "feat", folder / "shards", folder / "how2_train.lst"
        self.fdir.mkdir()
        for i in range(10):
            np.save(self.fdir / f"v{i}.npy", np.full((i + 1, DIM), i, np.float32))
        self.write_list([f"v{i}" for i in range(10)])

    def write_list(self, ids: list[str]) -> None:
        self.list.write_text("\n".join(ids) + "\n")

    def run(self, *more: str) -> int:
        return main(["--fdir", str(self.fdir), "--sdir", str(self.sdir), "--split", f"train={self.list}",
                     "--shard-size", "4", *more])  # fmt: skip

    def manifest(self) -> dict[str, object]:
        return json.loads((self.sdir / "train_manifest.json").read_text())

    def generations(self) -> list[str]:
        shards = (ShardedTensor.load(self.sdir / f"train_{k}").index for k in read_shard_map(self.sdir, "train"))
        return [index["generation"] for index in shards if index]

    def assert_holds(self, ids: list[str]) -> None:
        store = ShardedFeatureStore(self.sdir, "train")
        assert store.ids() == ids
        for video_id in ids:
            number = int(video_id[1:])
            assert store[video_id].dtype == np.float16
            np.testing.assert_array_equal(store[video_id], np.full((number + 1, DIM), number))


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


ALL = [f"v{i}" for i in range(10)]


def test_shards_follow_the_list(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    order = ALL[::-1]
    place.write_list(order)
    assert place.run() == 0
    place.assert_holds(order)
    assert read_shard_map(place.sdir, "train") == {0: order[:4], 1: order[4:8], 2: order[8:]}
    assert "train: 10 done in 3 shards (3 written, 0 kept), 0 skipped, 0 failed" in capsys.readouterr().out
    assert not (place.sdir / "train_meta.pkl").exists()


def test_published_layout_can_be_read_by_its_readers(place: Workplace) -> None:
    assert place.run("--also-pickle-meta") == 0
    meta = pickle.loads((place.sdir / "train_meta.pkl").read_bytes())
    data, starts = np.load(place.sdir / "train_1_data.npy"), np.load(place.sdir / "train_1_starts.npy")
    assert meta[1][1] == "v5"
    np.testing.assert_array_equal(data[starts[1] : starts[2]], np.full((6, DIM), 5))


def test_a_second_run_keeps_everything(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run() == 0
    before = place.generations()
    assert place.run() == 0
    assert place.generations() == before
    assert "(0 written, 3 kept)" in capsys.readouterr().out


def test_a_killed_run_resumes(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpt.store import feature_shards

    real = feature_shards._write_shard

    def killed(*args: object) -> list[str]:
        if str(args[1]).endswith("train_2"):
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(feature_shards, "_write_shard", killed)
    assert place.run() == 130
    with pytest.raises(DataError, match="no such file"):
        ShardedFeatureStore(place.sdir, "train")
    done = ShardedTensor.load(place.sdir / "train_1").index
    monkeypatch.undo()
    assert place.run() == 0
    place.assert_holds(ALL)
    assert done is not None and place.generations()[1] == done["generation"]


def test_only_shards_of_changed_features_are_redone(place: Workplace) -> None:
    assert place.run() == 0
    before = place.generations()
    os.utime(place.fdir / "v5.npy", ns=(1, 1))
    assert place.run() == 0
    after = place.generations()
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True]


def test_damaged_shards_are_redone(place: Workplace) -> None:
    assert place.run() == 0
    before = place.generations()
    data = place.sdir / "train_1_data.npy"
    data.write_bytes(data.read_bytes()[:-1] + b"\x7f")
    assert place.run() == 0
    after = place.generations()
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True]
    place.assert_holds(ALL)


def test_a_shorter_list_removes_shards_that_are_not_named_any_more(place: Workplace) -> None:
    assert place.run("--also-pickle-meta") == 0
    (place.sdir / "train_9_index.json").write_text("{}")  # not of this tool
    place.write_list(ALL[:4])
    assert place.run() == 0
    place.assert_holds(ALL[:4])
    assert sorted(os.listdir(place.sdir)) == [
        "train_0_data.npy", "train_0_ids.json", "train_0_index.json", "train_0_starts.npy", "train_9_index.json",
        "train_manifest.json", "train_meta.json",
    ]  # fmt: skip


def test_missing_and_bad_features_are_counted(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(place.fdir / "v1.npy", np.zeros((3, DIM + 1)))
    np.save(place.fdir / "v2.npy", np.full((3, DIM), np.nan))
    np.save(place.fdir / "v3.npy", np.full((3, DIM), 1e6, np.float32))  # beyond fp16
    np.save(place.fdir / "v4.npy", np.zeros((0, DIM)))
    np.save(place.fdir / "v5.npy", np.zeros(1))
    (place.fdir / "v6.npy").write_bytes(b"cut")
    (place.fdir / "v7.npy").unlink()
    place.write_list([*ALL, "v0", "../v0", ""])
    for _ in range(2):  # the second run keeps the shards and still reports
        assert place.run("--max-failed", "0.8") == 0
        place.assert_holds(["v0", "v8", "v9"])
        manifest = place.manifest()
        assert list(manifest["failed"]) == ["v1", "v2", "v3", "v4", "v5", "v6"]
        assert list(manifest["skipped"]) == ["v7", "../v0"] and manifest["repeated"] == 1
        for video_id, reason in {"v1": "5 wide, expected 4", "v2": "NaN", "v3": "infinite", "v4": "empty",
                                 "v5": "of shape", "v6": "not an .npy"}.items():  # fmt: skip
            assert reason in manifest["failed"][video_id]
        printed = capsys.readouterr().out
        assert "3 done in 3 shards" in printed and "2 skipped, 6 failed, 1 repeated" in printed
        assert "failed v1: " in printed and "skipped v7: no features in" in printed


def test_features_that_are_removed_while_they_are_gathered(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpt.store import feature_shards

    real = feature_shards._fingerprint

    def removing(store: FeatureStore, video_ids: list[str]) -> int:
        (place.fdir / "v5.npy").unlink(missing_ok=True)
        return real(store, video_ids)

    monkeypatch.setattr(feature_shards, "_fingerprint", removing)
    assert place.run() == 0
    assert list(place.manifest()["failed"]) == ["v5"]
    place.assert_holds([video_id for video_id in ALL if video_id != "v5"])


def test_too_many_losses_fail_the_split_and_leave_no_map(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run() == 0
    for i in (0, 5):
        (place.fdir / f"v{i}.npy").unlink()
    assert place.run() == 1
    assert "20.0% of the videos are in no shard, more than --max-failed 10.0%" in capsys.readouterr().err
    assert not (place.sdir / "train_meta.json").exists()
    assert list(place.manifest()["skipped"]) == ["v0", "v5"]
    assert place.run("--max-failed", "0.2") == 0
    place.assert_holds([video_id for video_id in ALL if video_id not in ("v0", "v5")])


PROVENANCE = {"encoder": "s3d", "fps": 30, "decoder": "PyAV 18", "size": 224}


def test_the_index_says_what_made_the_features(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = place.fdir / "manifest.json"
    manifest.write_text(json.dumps({"version": 1, "provenance": PROVENANCE, "videos": {}}))
    assert place.run() == 0
    index = ShardedTensor.load(place.sdir / "train_1").index
    assert index is not None
    producer = index["producer"]
    assert (producer["encoder"], producer["fps"], producer["decoder"]) == ("s3d", 30, "PyAV 18")
    assert producer["provenance"] == PROVENANCE
    before = place.generations()
    assert place.run() == 0 and place.generations() == before
    manifest.write_text(json.dumps({"version": 1, "provenance": {**PROVENANCE, "size": 112}, "videos": {}}))
    assert place.run() == 0
    assert not set(place.generations()) & set(before)


def test_features_of_unknown_origin_are_said(place: Workplace, caplog: pytest.LogCaptureFixture) -> None:
    assert place.run() == 0
    assert "no manifest.json says which encoder" in caplog.text
    (place.fdir / "manifest.journal").write_text(json.dumps({"provenance": PROVENANCE}) + "\n")  # of a killed run
    caplog.clear()
    assert place.run() == 0 and not caplog.text
    index = ShardedTensor.load(place.sdir / "train_0").index
    assert index is not None and index["producer"]["encoder"] == "s3d"


def test_force_writes_all_shards_again(place: Workplace) -> None:
    assert place.run() == 0
    before = place.generations()
    assert place.run("--force") == 0
    assert not set(place.generations()) & set(before)


def test_two_runs_do_not_write_one_split(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    with sole_writer(place.sdir / ".train.lock"):
        assert place.run() == 2
    assert "another run is writing there" in capsys.readouterr().err
    assert place.run() == 0


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left"), 2)])
def test_interruption_is_one_line(
    place: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setitem(main.__globals__, "shard_split", broken)
    assert place.run() == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_splits_share_one_width(place: Workplace, tmp_path: Path) -> None:
    np.save(place.fdir / "wide.npy", np.zeros((2, DIM + 1)))
    (tmp_path / "val.lst").write_text("wide\n")
    assert place.run("--list", str(tmp_path / "val.lst")) == 1
    assert (place.sdir / "train_meta.json").exists() and not (place.sdir / "val_meta.json").exists()
    assert place.run("--dim", str(DIM + 1)) == 1
    assert "expected 5" in place.manifest()["failed"]["v0"]


def test_the_list_option_names_its_split(place: Workplace) -> None:
    assert main(["--fdir", str(place.fdir), "--sdir", str(place.sdir), "--list", str(place.list)]) == 0
    place.assert_holds(ALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give each split once"),
        (["--split", "train"], "expected NAME=LIST"),
        (["--split", "../train=x.lst"], "expected NAME=LIST"),
        (["--split", "train=none.lst"], "--split train: cannot read none.lst"),
        (["--split", "train=empty.lst"], "--split train: empty.lst lists no videos"),
        (["--split", "train=a.lst", "--split", "train=a.lst"], "give each split once"),
        (["--split", "train=a.lst", "--shard-size", "0"], "--shard-size"),
        (["--split", "train=a.lst", "--fdir", "nowhere"], "nowhere: no such folder"),
        (["--split", "train=a.lst"], "100.0% of the videos"),
    ],
)
def test_bad_input_is_one_clear_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.lst").write_text("\n \n")
    Path("a.lst").write_text("v0\n")
    Path("feat").mkdir()
    code = main(["--fdir", "feat", "--sdir", "out", *arguments])
    assert code == (1 if "of the videos" in message else 2)
    assert message in capsys.readouterr().err
    assert not Path("out").exists() or os.listdir("out") == ["train_manifest.json"]


def test_help_has_an_example() -> None:
    shown = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True).stdout
    assert "--split train=data/how2/how2_s3d_train.lst" in shown and "--max-failed" in shown
