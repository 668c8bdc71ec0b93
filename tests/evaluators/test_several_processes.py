"""Tests of a set shared by 1, 2 and 3 real processes: the same numbers and files, and one failure is everyone's."""

import functools
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmpt.evaluators import BatchPredictor, Evaluator, RetrievalPredictor
from mmpt.evaluators.base import Metric, Predictor
from mmpt.launch.project import expand_project
from mmpt.tasks.task import config_task
from mmpt.utils import process_group as group
from mmpt.utils.config import load_config, save_config
from mmpt.utils.distributed import gather_items, synchronize, world
from mmpt.utils.errors import DataError
from mmpt.utils.process_group import failing_together, process_group
from mmpt_cli.predict import predict
from scripts.tiny_data.generate import Counts, generate
from tests.processes import SERVER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

PROCESSES = (1, 2, 3)
PATIENCE = timedelta(seconds=90)
#: Name of a case -> project, job, overrides. Together they have every predictor.
CASES: dict[str, tuple[str, str, list[str]]] = {
    "retrieval": ("retri/videoclip", "test_vtt_zs.yaml", ["fairseq.dataset.batch_size=3"]),
    "one batch": ("retri/videoclip", "test_vtt_zs.yaml", ["fairseq.dataset.batch_size=100"]),
    "questions": ("retri/videoclip", "test_vttqa_zs.yaml", ["fairseq.dataset.batch_size=2", "dataset.num_workers=1"]),
    "moments": ("retri/videoclip", "test_didemo_zs.yaml", ["fairseq.dataset.batch_size=3"]),
    "steps": ("retri/videoclip", "test_crosstask_zs_videoclip.yaml", ["dataset.n_train=3", "dataset.max_missing=1"]),
    "segments, zero-shot": ("retri/videoclip", "test_coin_zs.yaml", []),
    "segments": ("mtm/vlm", "test_coin.yaml", []),
    "captions": (  # METEOR takes long to start
        "mtm/vlm",
        "test_youcookcap.yaml",
        ["fairseq.dataset.batch_size=2", "eval.caption_tokenizer=simple", "eval.caption_metrics=[Bleu_1,CIDEr]"],
    ),
}
COUNTS = Counts(
    how2_train=6, how2_val=2, msrvtt_train=4, msrvtt_test=8, youcook_train=3, youcook_val=3, didemo_test=5,
    coin_train=3, coin_test=5, crosstask_tested=8, crosstask_primary=2, crosstask_related=1, own_train=1, own_valid=1,
    own_test=1,
)  # fmt: skip


@contextmanager
def run_of(rank: int, size: int, port: int):
    """Join a run as torchrun's environment says; no environment for one process."""
    values = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if size > 1:
        os.environ.update({name: str(value) for name, value in values.items()})
    try:
        with process_group("cpu", PATIENCE) as device:
            yield device
    finally:
        for name in values:
            os.environ.pop(name, None)


def caught(call: Callable[[], Any]) -> tuple[str, str]:
    """Return the class and message of the error that a call ends with."""
    try:
        return "", str(call())
    except (Exception, KeyboardInterrupt) as error:
        return type(error).__name__, str(error)


class Pairs(list):
    """Ten pairs of a video and a text."""

    def __init__(self) -> None:
        eye = np.eye(10, dtype=np.float32)
        rows = range(10)
        super().__init__(
            {"caps": eye[n], "cmasks": eye[n], "vfeats": eye[n] / 3, "video_id": f"v{n}", "text": f"t{n}", "idx": n}
            for n in rows
        )


class Model(nn.Module):
    """Raises or waits at some batch of a process; counts batches."""

    def __init__(self, failing: int | None = None, error: BaseException | None = None) -> None:
        super().__init__()
        self.failing, self.error, self.batches = failing, error, 0

    def forward(self, caps, vfeats, **_):
        self.batches += 1
        if self.failing == world()[0]:
            assert self.error is not None
            raise self.error
        while self.failing is not None and not group._store().check([group._failure_key()]):
            time.sleep(0.01)
        return {"pooled_video": vfeats, "pooled_text": caps}


class FailingMetric(Metric):
    def compute_metrics(self, **_):
        raise DataError("nothing to count")

    def print_computed_metrics(self, metrics):
        return ""


class OwnWay(RetrievalPredictor):
    def predict(self, model, dataloader, device, output_file):
        return super().predict(model, dataloader, device, output_file)


class Counting(BatchPredictor):
    """A predictor of a user: two methods."""

    def batch_function(self, model, dataloader, device):
        return lambda batch: {"sums": batch["caps"].sum(1).numpy(), "names": list(batch["video_id"])}

    def finish(self, parts, dataloader, output_file):
        return {"sums": np.concatenate([part["sums"] for part in parts]), "parts": len(parts)}

    def load(self, output_file="merged"):
        return {}


class Unsendable(Counting):
    def batch_function(self, model, dataloader, device):
        return lambda batch: (row for row in batch["caps"])


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    names = {"metric": "RetrievalMetric", "predictor": "RetrievalPredictor"}
    return {**names, "eval": {"save_path": str(folder)}, **more}


def loader_of(**options: Any) -> DataLoader:
    return DataLoader(Pairs(), batch_size=1, **options)


def faults(rank: int, folder: Path) -> dict[str, Any]:
    """Return what each fault looks like in this process; all in one run, so that one does not spoil the next."""
    found: dict[str, Any] = {}
    failing = Model(1, DataError("video v1: is damaged"))
    evaluator = Evaluator(settings(folder / "failing"))
    found["one fails"] = caught(lambda: evaluator.evaluate(failing, loader_of(), device="cpu"))
    found["batches"] = failing.batches
    found["a bug"] = caught(lambda: evaluator.evaluate(Model(2, KeyError("x")), loader_of(), device="cpu"))
    counted = Evaluator(settings(folder / "counted", metric=f"{__name__}:FailingMetric"))
    found["metric"] = caught(lambda: counted.evaluate(Model(), loader_of(), device="cpu"))
    own = settings(folder / "own", predictor=f"{__name__}:OwnWay")
    found["own way"] = caught(lambda: Evaluator(own))
    found["empty"] = caught(lambda: evaluator.evaluate(Model(), [], device="cpu"))
    torch.manual_seed(rank)
    found["shuffled"] = caught(lambda: evaluator.evaluate(Model(), loader_of(shuffle=True), device="cpu"))

    def outer() -> None:
        with failing_together():
            if rank == 2:
                raise DataError("at the outer block")
            with failing_together():
                pass

    found["outer"] = caught(outer)
    found["afterwards"] = caught(lambda: evaluator.evaluate(Model(), loader_of(), device="cpu")["R1"])
    iterable = [{**batch} for batch in loader_of()]
    found["iterable"] = caught(lambda: evaluator.evaluate(Model(), iterable, device="cpu")["R1"])
    found["user's"] = Counting(settings(folder / "user"))(Model(), loader_of(), device="cpu")
    found["gathered"] = gather_items([{"rank": rank, "rows": np.full((n, 2), rank)} for n in range(rank)])
    found["generator"] = caught(lambda: Unsendable(settings(folder / "no"))(Model(), loader_of(), device="cpu"))
    return found


def interrupted(rank: int) -> None:
    with failing_together():
        if rank == 1:
            raise KeyboardInterrupt


def killed(rank: int) -> None:
    with failing_together():
        if rank == 2:
            while not group._store().check([group._arrival_key(other) for other in (0, 1)]):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)


def worker(rank: int, folder: Path, ports: list[int]) -> None:
    torch.set_num_threads(1)
    os.chdir(folder)
    for size, port in zip(PROCESSES, ports, strict=False):
        if rank >= size:
            continue
        with run_of(rank, size, port) as device:
            for name in CASES:
                predict(load_config(f"{name}.yaml"), device)
            synchronize()
        if rank == 0:
            Path("results").rename(f"results of {size}")
    with run_of(rank, 3, ports[3]):
        found = faults(rank, folder)
    for name, call, port in (("interrupted", interrupted, ports[4]), ("killed", killed, ports[5])):

        def joined(call: Callable[[int], None] = call, port: int = port) -> None:
            with run_of(rank, 3, port):
                synchronize()  # torch cannot join another group after one that ended while this process was joining it
                call(rank)

        found[name] = caught(joined)
        torch.save(found, f"{rank}.pt")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


jobs_of = functools.cache(lambda project: {job.name: job for job in expand_project(f"projects/{project}.yaml").jobs})


def write_case(name: str) -> None:
    """Write the config of a case, with a model that has learnt nothing."""
    project, job_name, overrides = CASES[name]
    checkpoint = f"models/{name}.pt"
    kept = [f"eval.save_path=results/{name}", f"fairseq.common_eval.path={checkpoint}", "dataset.num_workers=0"]
    save_config(jobs_of(project)[job_name].config, f"{name}.yaml", "")
    config = load_config(f"{name}.yaml", [*kept, *overrides])
    save_config(config, f"{name}.yaml", "")
    task = config_task(config)
    task.build_dataset()
    model = task.build_model()
    state = {f"mmmodel.{key}": value for key, value in model.state_dict().items()}
    torch.save({"model": state, "args": None}, checkpoint)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all processes; return the folder with ``results of N`` and, of each process, the faults it met."""
    folder = tmp_path_factory.mktemp("processes") / "tiny"
    generate(folder, counts=COUNTS)
    with pytest.MonkeyPatch.context() as inside, torch.random.fork_rng(devices=[]):
        inside.chdir(folder)
        torch.manual_seed(0)
        Path("models").mkdir()
        for name in CASES:
            write_case(name)
        cut = sorted(Path("data/feat/feat_crosstask_s3d").glob("ct0t*.npy"))[-1]  # too short for the steps of its task
        np.save(cut, np.load(cut)[:2])
    ports = free_ports(6)
    workers = [SERVER.Process(target=worker, args=(rank, folder, ports)) for rank in range(3)]
    for one in workers:
        one.start()
    deadline = time.monotonic() + 800
    for one in workers:
        one.join(max(0, deadline - time.monotonic()))
        one.kill()
        one.join()
    assert [one.exitcode for one in workers] == [0, 0, -signal.SIGKILL]
    return folder


def content(path: Path) -> Any:
    if path.suffix == ".json":
        value = json.loads(path.read_text())
        return {key: part for key, part in value.items() if key != "date"} if path.name == "metrics.json" else value
    return path.read_bytes() if path.suffix == ".npy" else dict(np.load(path, allow_pickle=False))


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    else:
        assert one == other


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", PROCESSES[1:])
def test_files_and_metrics_are_those_of_one_process(folder: Path, name: str, size: int) -> None:
    alone, shared = (folder / f"results of {number}" / name for number in (1, size))
    files = sorted(path.name for path in alone.iterdir())
    assert "metrics.json" in files and files == sorted(path.name for path in shared.iterdir())
    for file in files:
        assert_same(content(alone / file), content(shared / file))


def test_the_sets_are_uneven_and_leave_processes_without_a_batch(folder: Path) -> None:
    counts = {name: content(folder / "results of 1" / name / "metrics.json")["count"] for name in CASES}
    sizes = {name: int(option.rpartition("=")[2]) for name, (_, _, more) in CASES.items() for option in more[:1]
             if "batch_size" in option}  # fmt: skip
    batches = {name: -(-count // sizes.get(name, 1)) for name, count in counts.items()}
    assert batches["one batch"] == 1
    assert sum(number % 2 > 0 for number in batches.values()) > 2
    assert sum(number % 3 > 0 for number in batches.values()) > 2


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """Return what the processes 0 and 1 met, and the third until it was killed."""
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(3)]


def test_one_that_fails_fails_all_with_its_rank_and_reason(found: list[dict[str, Any]]) -> None:
    heard = ("ProcessFailed", "process 1 of 3: video v1: is damaged")
    assert [one["one fails"] for one in found] == [heard, ("DataError", "video v1: is damaged"), heard]
    assert max(one["batches"] for one in found) == 1  # not the four or three of a whole share
    heard = ("ProcessFailed", "process 2 of 3: KeyError: 'x'")
    assert [one["a bug"] for one in found][:2] == [heard, heard]
    heard = ("ProcessFailed", "process 0 of 3: nothing to count")
    assert [one["metric"] for one in found] == [("DataError", "nothing to count"), heard, heard]
    heard = ("ProcessFailed", "process 2 of 3: at the outer block")
    assert [one["outer"] for one in found] == [heard, heard, ("DataError", "at the outer block")]


def test_a_failed_test_leaves_no_record(folder: Path, found: list[dict[str, Any]]) -> None:
    assert not (folder / "counted" / "metrics.json").exists()


def test_what_cannot_be_shared_is_refused_by_all(found: list[dict[str, Any]]) -> None:
    for one in found:
        assert one["own way"][0] == "ConfigError" and "OwnWay has a predict() of its own" in one["own way"][1]
        assert one["empty"] == ("NothingEvaluated", "the test set is empty: nothing to evaluate")
        assert one["shuffled"][0] == "ConfigError" and "must not shuffle" in one["shuffled"][1]


def test_the_processes_can_go_on_after_a_failure(found: list[dict[str, Any]]) -> None:
    assert {one[name] for one in found for name in ("afterwards", "iterable")} == {("", "1.0")}
    assert all("cannot pickle 'generator' object" in one["generator"][1] for one in found)
    assert found[0]["user's"]["sums"].tolist() == [1.0] * 10 and found[0]["user's"]["parts"] == 10
    assert found[1]["user's"] == found[2]["user's"] == {}


def test_values_are_gathered_in_the_order_of_ranks(found: list[dict[str, Any]]) -> None:
    values = found[0]["gathered"]
    assert [[item["rank"] for item in own] for own in values] == [[], [1], [2, 2]]
    assert values[2][1]["rows"].tolist() == [[2, 2]]
    assert found[1]["gathered"] is None and found[2]["gathered"] is None


def test_one_that_is_interrupted_or_killed_is_named(found: list[dict[str, Any]]) -> None:
    assert found[1]["interrupted"][0] == "KeyboardInterrupt"
    assert found[0]["interrupted"] == ("ProcessFailed", "process 1 of 3: KeyboardInterrupt: ")
    assert found[0]["killed"][1].startswith("process 2 of 3 is gone or hangs: it was killed")
    # Here the first process keeps the store, and may have left before a slow one can ask it who was missing.
    kind, message = found[2]["interrupted"]
    assert kind == "ProcessFailed" and message.startswith(
        ("process 1 of 3: KeyboardInterrupt", "process 0 of 3 is gone")
    )
    kind, message = found[1]["killed"]
    assert kind == "ProcessFailed" and message.startswith(("process 2 of 3 is gone", "process 0 of 3 is gone"))
    assert "killed" not in found[2]


def test_a_predictor_of_one_process_still_works_in_one(tmp_path: Path) -> None:
    evaluator = Evaluator(settings(tmp_path, predictor=f"{__name__}:OwnWay"))
    assert evaluator.evaluate(Model(), loader_of(), device="cpu")["R1"] == 1.0
    assert not Predictor.can_be_shared(evaluator.predictor) and not evaluator.predictor.can_be_shared()
    evaluator.predictor.check_processes()
