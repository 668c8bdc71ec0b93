"""The learned temperature: its gradient and limit, its precision, and its way through fairseq's checkpoints."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmpt.losses import MMContraLoss, MultipleChoiceLoss
from mmpt.utils.errors import CheckpointError, ConfigError


def pairs(count: int = 6, width: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {key: torch.randn(count, width, generator=generator) for key in ("pooled_video", "pooled_text")}


def learned(temperature: float = 0.1, **options: float) -> MMContraLoss:
    return MMContraLoss(temperature=temperature, normalize=True, learn_temperature=True, **options)


def test_it_starts_at_the_temperature_and_has_the_gradient_of_the_loss() -> None:
    loss_fn, batch = learned(), pairs()
    loss = loss_fn(**batch)
    torch.testing.assert_close(loss, MMContraLoss(temperature=0.1, normalize=True)(**batch))
    loss.backward()
    small = 1e-3
    losses = [MMContraLoss(temperature=0.1 / math.exp(step), normalize=True)(**batch) for step in (small, -small)]
    assert loss_fn.log_scale.grad.item() == pytest.approx((losses[0] - losses[1]).item() / (2 * small), rel=1e-2)
    assert [name for name, _ in loss_fn.named_parameters()] == ["log_scale"]
    assert not list(MMContraLoss(temperature=0.1).parameters())


def test_a_question_with_options_can_learn_it_too() -> None:
    loss_fn = MultipleChoiceLoss(learn_temperature=True, temperature=0.5)
    loss_fn(torch.randn(2, 4), torch.randn(6, 4), answers=torch.tensor([0, 2])).backward()
    assert loss_fn.log_scale.grad.abs() > 0


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_beyond_the_limit_it_is_held_and_comes_back(optimizer: type[torch.optim.Optimizer]) -> None:
    loss_fn = learned(max_scale=20)
    alike = pairs()["pooled_video"]  # the better the scores, the greater the scale that the loss wants
    updates = optimizer(loss_fn.parameters(), lr=0.3)

    def update(video: Tensor, text: Tensor) -> None:
        updates.zero_grad()
        loss_fn(video, text).backward()
        updates.step()

    for _ in range(100):
        update(alike, alike)
        assert loss_fn.scale() <= 20 + 1e-4
    assert loss_fn.log_scale.item() == pytest.approx(math.log(20), abs=2.0), "it went on without bound"
    for _ in range(100):  # the wrong pairs: a small scale is best
        update(alike, alike.flip(0))
    assert loss_fn.scale() < 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_leaves_it_in_float32(dtype: torch.dtype) -> None:
    module = nn.ModuleDict({"loss": learned(0.07), "layer": nn.Linear(2, 2)}).to(dtype)
    assert module["layer"].weight.dtype == dtype
    assert module["loss"].log_scale.dtype == torch.float32
    assert module["loss"].scale().item() == pytest.approx(1 / 0.07, rel=1e-6)
    batch = {key: value.to(dtype).requires_grad_() for key, value in pairs().items()}
    module["loss"](**batch).backward()
    assert batch["pooled_video"].grad.dtype == dtype
    assert module["loss"].double().log_scale.dtype == torch.float64


@pytest.mark.parametrize("options", [{"temperature": 0.001}, {"max_scale": 0}, {"max_scale": math.inf}])
def test_a_start_beyond_the_limit_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"loss\.(temperature|max_scale)"):
        MMContraLoss(learn_temperature=True, **options)


class TestThroughFairseq:
    """fairseq's trainer takes, saves and loads it."""

    pytestmark = pytest.mark.slow

    @pytest.fixture(autouse=True)
    def _fairseq(self) -> None:
        pytest.importorskip("fairseq")

    def trained(self, loss_fn: MMContraLoss, *flags: str, updates: int = 2) -> tuple[object, object]:
        from tests.losses.fairseq_steps import make_trainer, small_model, whole_batch

        trainer = make_trainer(loss_fn, small_model("MMContraLoss").float(), 1, 0, "legacy_ddp", *flags)
        batch = whole_batch(6, "MMContraLoss")
        batch["vfeats"] = batch["vfeats"].float()
        for _ in range(updates):
            trainer.train_step([dict(batch)])
        return trainer, batch

    def test_a_resumed_training_goes_on_with_it(self, tmp_path: Path) -> None:
        from mmpt.tasks.fairseq_checkpoints import make_checkpoints_safe
        from tests.losses.fairseq_steps import checkpoint_state

        make_checkpoints_safe()
        adam = ("--optimizer", "adam", "--weight-decay", "0.01")
        first, batch = self.trained(learned(), *adam)
        assert first.get_criterion().loss_fn.log_scale.item() != pytest.approx(-math.log(0.1), abs=1e-3)
        path = checkpoint_state(tmp_path, first)
        assert set(torch.load(path, weights_only=False)["criterion"]) == {"loss_fn.log_scale"}
        second, _ = self.trained(learned(), *adam, updates=0)
        second.load_checkpoint(str(path))
        for trainer in (first, second):
            trainer.train_step([dict(batch)])
        one, other = (trainer.get_criterion().loss_fn.log_scale for trainer in (first, second))
        assert torch.equal(one, other)
        assert first.task.logged["logit_scale"] == pytest.approx(second.task.logged["logit_scale"])

    def test_weight_decay_leaves_it_alone_in_an_optimizer_with_groups(self) -> None:
        from mmpt.optim.parameters import scales_of

        assert scales_of(learned().log_scale) == (1, 0)

    def test_beginning_from_a_checkpoint_without_it_and_the_reverse(self, tmp_path: Path) -> None:
        from mmpt.tasks.fairseq_checkpoints import make_checkpoints_safe
        from tests.losses.fairseq_steps import checkpoint_state

        make_checkpoints_safe()
        plain, _ = self.trained(MMContraLoss(temperature=0.1, normalize=True))
        path = checkpoint_state(tmp_path, plain)
        begins, _ = self.trained(learned(0.2), updates=0)
        with pytest.raises(Exception, match="Cannot load model parameters") as caught:
            begins.load_checkpoint(str(path))
        assert isinstance(caught.value.__context__, CheckpointError)
        assert "loss.learn_temperature was off" in str(caught.value.__context__)
        begins.get_criterion().begins = True
        begins.load_checkpoint(str(path), reset_optimizer=True)
        assert begins.get_criterion().loss_fn.scale().item() == pytest.approx(5.0)
        path = checkpoint_state(tmp_path, self.trained(learned())[0])
        plain.load_checkpoint(str(path), reset_optimizer=True)

    @pytest.mark.parametrize("kind", ["safetensors", "average", "published"])
    def test_beginning_from_weights_alone(self, kind: str, tmp_path: Path) -> None:
        from mmpt.tasks.fairseq_checkpoints import make_checkpoints_safe
        from mmpt.utils.checkpoint_files import export_weights
        from mmpt_cli.average import main
        from tests.losses.fairseq_steps import checkpoint_state

        make_checkpoints_safe()
        first, _ = self.trained(learned())
        path = checkpoint_state(tmp_path, first)
        start = tmp_path / ("start.safetensors" if kind == "safetensors" else "start.pt")
        if kind == "safetensors":
            export_weights(path, start)
        elif kind == "average":
            assert main(["--inputs", str(path), "--output", str(start)]) == 0
            assert torch.load(start)["criterion"] == {}, "fairseq alone reads it too"
        else:
            content = torch.load(path, weights_only=False)
            torch.save({key: value for key, value in content.items() if key not in ("criterion", "cfg")}, start)
        begins, _ = self.trained(learned(0.2), updates=0)
        begins.load_checkpoint(str(start), reset_optimizer=kind == "published")
        assert begins.get_criterion().loss_fn.scale().item() == pytest.approx(5.0)
        for one, other in zip(first.model.parameters(), begins.model.parameters(), strict=True):
            assert torch.equal(one, other)
