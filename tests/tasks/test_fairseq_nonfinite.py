"""What is watched of losses, gradients and inputs, with a trainer that only pretends."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("fairseq")

from mmpt.tasks.fairseq_nonfinite import NonFiniteError, StopsAtNonFinite, nonfinite_inputs

NAN, INF = float("nan"), float("inf")


class Task(StopsAtNonFinite):
    def __init__(self, folder: Path) -> None:
        self.args = SimpleNamespace(save_dir=str(folder), seed=7)


class Trainer:
    """Takes steps whose loss and norm of the gradient are given."""

    def __init__(self, task: Task, loss: float, norm: float | Exception, amp: bool = False) -> None:
        self.task, self.loss, self.norm = task, loss, norm
        self.cfg = SimpleNamespace(common=SimpleNamespace(amp=amp))
        self.model, self.criterion, self.averaged = (torch.nn.Linear(2, 1) for _ in range(3))
        self.ema = SimpleNamespace(get_model=lambda: self.averaged)
        task.attach(self)

    def get_num_updates(self) -> int:
        return 4

    def get_criterion(self) -> torch.nn.Module:
        return self.criterion

    def train_step(self, samples: list[Any], raise_oom: bool = False) -> str:
        self.task._losses += [torch.tensor(self.loss) for _ in samples]
        self.clip_grad_norm(0.0)
        return "stepped"

    def clip_grad_norm(self, clip_norm: float) -> torch.Tensor:
        if isinstance(self.norm, Exception):
            raise self.norm
        return torch.tensor(self.norm)


BATCH = {"video_id": ["a", "b"], "idx": torch.tensor([3, 5]), "vfeats": torch.ones(2, 4)}


def test_overflow_under_fp16_with_a_finite_loss_is_left_to_the_loss_scaler(tmp_path: Path) -> None:
    with pytest.raises(OverflowError):
        Trainer(Task(tmp_path), 1.0, OverflowError("setting loss scale to: 64")).train_step([BATCH])
    assert Trainer(Task(tmp_path), 1.0, INF, amp=True).train_step([BATCH]) == "stepped"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("loss", "norm", "amp"),
    [
        (NAN, OverflowError("setting loss scale to: 64"), False),
        (INF, OverflowError("setting loss scale to: 64"), False),
        (1.0, FloatingPointError("Minimum loss scale reached"), False),
        (NAN, NAN, True),
        (1.0, NAN, False),
        (NAN, NAN, False),
    ],
)
def test_everything_else_stops_with_a_report(tmp_path: Path, loss: float, norm: Any, amp: bool) -> None:
    with pytest.raises(NonFiniteError, match=r"update 5: the (loss|gradient) is not finite"):
        Trainer(Task(tmp_path), loss, norm, amp).train_step([BATCH, BATCH])
    found = json.loads((tmp_path / "nonfinite_update5_rank0.json").read_text())
    assert [batch["video_id"] for batch in found["batches"]] == [["a", "b"]] * 2
    assert found["batches"][0]["idx"] == [3, 5] and found["seed"] == 7


def test_the_batches_of_an_earlier_update_are_forgotten(tmp_path: Path) -> None:
    trainer = Trainer(task := Task(tmp_path), 1.0, 0.5)
    for _ in range(2):
        assert trainer.train_step([BATCH]) == "stepped"
    assert len(task._losses) == 1


def test_a_loss_that_is_not_finite_beside_a_finite_gradient_stops(tmp_path: Path) -> None:
    trainer = Trainer(task := Task(tmp_path), NAN, 0.5)
    trainer.train_step([BATCH])
    with pytest.raises(NonFiniteError, match="the loss is not finite"):
        task.reduce_metrics([{"loss": torch.tensor(NAN)}], None)
    trainer.model.eval()
    with pytest.raises(NonFiniteError, match="the validation loss is not finite"):
        task.reduce_metrics([{"loss": torch.tensor(INF)}], None)


@pytest.mark.parametrize(
    ("part", "name"), [("model", "bias"), ("criterion", "criterion.bias"), ("averaged", "ema.bias")]
)
def test_weights_are_looked_at(tmp_path: Path, part: str, name: str) -> None:
    trainer = Trainer(task := Task(tmp_path), 1.0, 0.5)
    task.args.store_ema = True
    task.check_weights(trainer)
    getattr(trainer, part).bias.data.fill_(INF)
    with pytest.raises(NonFiniteError, match=f"the weight is not finite .{name}:"):
        task.check_weights(trainer)
    (report,) = tmp_path.iterdir()
    assert json.loads(report.read_text())["nonfinite_parameters"] == [name]


def test_without_room_for_the_report_it_stops_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NonFiniteError, match=r"the gradient is not finite.*There is no report of the batch: .*full"):
        Trainer(Task(tmp_path), 1.0, NAN).train_step([BATCH])


def test_inputs_are_named_by_video_also_in_groups() -> None:
    values = torch.ones(1, 2, 3, 4)
    values[0, 1, 2, :2] = NAN
    grouped = {"video_id": [["a", "b"]], "vfeats": values, "caps": torch.ones(1, 2, 3, dtype=torch.long)}
    assert nonfinite_inputs(grouped) == [{"key": "vfeats", "video_id": "b", "count": 2}]
    assert nonfinite_inputs(BATCH) == []
    assert nonfinite_inputs({"scale": torch.tensor(INF)}) == [{"key": "scale", "video_id": "None", "count": 1}]
