"""A training that is asked to leave: what fairseq's loop still does at that update, with a trainer that pretends."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fairseq")

import fairseq_cli.train
from fairseq.dataclass.configs import DatasetConfig, OptimizationConfig
from fairseq_fakes import FakeTrainer, Position, checkpoints, safe

from mmpt.tasks.fairseq_leaving import leave_when_asked
from mmpt.utils.signals import LEFT_EARLY, LeaveRequest


class Training:
    """fairseq's loop at one update; ``events`` are what it does there."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.events: list[str] = []
        self.request = LeaveRequest()
        self.trainer = FakeTrainer(leave_request=self.request)
        self.trainer.saved = self  # type: ignore[assignment]
        self.during_validation = lambda: None
        validating = {key: options.pop(key) for key in ("validate_interval_updates",) if key in options}
        stopping = {key: options.pop(key) for key in ("max_update", "max_epoch") if key in options}
        self.cfg = SimpleNamespace(
            checkpoint=checkpoints(folder, **options),
            dataset=DatasetConfig(**validating),
            optimization=OptimizationConfig(stop_time_hours=0, **stopping),
        )

    def append(self, saved: tuple[str, int]) -> None:
        self.events.append(saved[0])

    def validate(self, *args: Any) -> list[float]:
        self.events.append("validate")
        self.during_validation()
        return [1.0]

    def ask(self) -> None:
        self.request.received, self.request.agreed = signal.SIGTERM, True

    def update(self, number: int, position: Position | None = None) -> Any:
        self.trainer.updates = number
        position = position or Position()
        return fairseq_cli.train.validate_and_save(
            self.cfg, self.trainer, self.trainer.task, position, ["valid"], position.end_of_epoch()
        )


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    safe(monkeypatch)
    usual = fairseq_cli.train.validate_and_save

    def make(**options: Any) -> Training:
        made = Training(tmp_path, **options)
        monkeypatch.setattr(fairseq_cli.train, "validate", made.validate)
        monkeypatch.setattr(fairseq_cli.train, "validate_and_save", getattr(usual, "__wrapped__", usual))
        leave_when_asked()
        return made

    return make


def left(training: Training, number: int, position: Position | None = None) -> list[str]:
    with pytest.raises(SystemExit) as caught:
        training.update(number, position)
    assert caught.value.code == LEFT_EARLY
    return training.events


LAST = "checkpoint_last.pt"


@pytest.mark.parametrize(
    ("number", "options", "events"),
    [
        (3, {"save_interval_updates": 2}, [LAST]),  # nothing is due: no validation
        (4, {"save_interval_updates": 2}, [LAST, "validate", "checkpoint_1_4.pt"]),
        (4, {"validate_interval_updates": 2}, [LAST, "validate"]),  # which changes nothing that is saved
        (4, {"save_interval_updates": 2, "no_last_checkpoints": True}, [LAST, "validate", "checkpoint_1_4.pt"]),
        (3, {"no_last_checkpoints": True}, [LAST]),
    ],
)
def test_it_saves_before_a_validation_that_is_due_and_once_if_none_is(
    training: Any, number: int, options: dict[str, Any], events: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    asked = training(**options)
    asked.ask()
    assert left(asked, number) == events
    assert f"asked to leave (SIGTERM, saved at update {number})" in caplog.text


def test_a_save_without_a_validation_is_not_done_twice(training: Any) -> None:
    asked = training(save_interval_updates=2)
    asked.cfg.dataset.disable_validation = True
    asked.ask()
    assert left(asked, 4) == ["checkpoint_1_4.pt"]


def test_the_end_of_an_epoch_is_validated_and_kept(training: Any, tmp_path: Path) -> None:
    asked = training(max_epoch=2)
    asked.ask()
    assert left(asked, 6, Position(ended=True, next_epoch_idx=2)) == [LAST, "validate", "checkpoint1.pt"]
    assert {path.name for path in tmp_path.glob("*.pt")} == {LAST, "checkpoint1.pt", "checkpoint_best.pt"}


def test_a_request_during_a_validation_leaves_after_it(training: Any) -> None:
    asked = training(validate_interval_updates=2)
    asked.during_validation = asked.ask
    assert left(asked, 4) == ["validate", LAST]


@pytest.mark.parametrize(
    ("options", "position"),
    [({"max_update": 4}, Position()), ({"max_epoch": 1}, Position(ended=True, next_epoch_idx=2))],
)
def test_a_finished_training_is_finished(training: Any, options: dict[str, Any], position: Position) -> None:
    asked = training(**options)
    asked.ask()
    losses, _ = asked.update(4, position)
    assert losses == [1.0] and asked.events[-2] == "validate"


def test_where_nothing_is_saved_nothing_else_is_said(training: Any, caplog: pytest.LogCaptureFixture) -> None:
    asked = training(no_save=True)
    asked.ask()
    assert left(asked, 3) == []
    assert "nothing is saved" in caplog.text and "saved at" not in caplog.text


def test_nobody_asked(training: Any) -> None:
    going_on = training(save_interval_updates=2)
    assert [going_on.update(number)[1] for number in (1, 2, 3)] == [False] * 3
    assert going_on.events == ["validate", "checkpoint_1_2.pt"]
