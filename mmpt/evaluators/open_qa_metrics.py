"""The metric of open-ended questions: whether the right answer of a whole vocabulary scores highest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mmpt.evaluators.base import Metric
from mmpt.evaluators.metrics import wilson_interval
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_section

__all__ = ["OpenQAMetric", "OpenQAMetricOptions"]


@dataclass
class OpenQAMetricOptions:
    """Keys of the ``eval`` section.

    ``size_test`` is the published number of questions of the test set, for the adjusted accuracy: where videos are no
    longer to be had, LAVENDER counts their questions as wrong (MSRVTT-QA 72821, MSVD-QA 13157, TGIF-Frame 13691,
    LSMDC-FiB 30349). ``top`` says among how many of the best answers the right one is looked for; 1 is among them.
    """

    size_test: int | None = None
    top: list[int] = field(default_factory=lambda: [1, 5])


class OpenQAMetric(Metric):
    """Share of open-ended questions whose right answer scores highest (``acc``), or among the best five (``acc5``).

    ``eval.top`` names other numbers than five, of which ``acc10`` and so on are the shares.

    Ties count against the model. A question whose right answer the model cannot give counts as wrong; ``unreachable``
    says how many these are. ``adjusted_acc`` is ``acc`` times the number of questions over ``eval.size_test``, where
    that is set. ``majority`` is what one gets by always giving the commonest answer of the test set.
    """

    kind = "answers"
    config_options: ClassVar[dict[str, type]] = {"eval": OpenQAMetricOptions}

    def __init__(self, config: Any = None) -> None:
        """Read the options.

        Raises:
            ConfigError: if ``eval.size_test`` is no number of questions.
        """
        super().__init__(config)
        options = read_section(config, "eval", OpenQAMetricOptions)
        self.size_test, self.top = options.size_test, sorted({1, *options.top})
        if self.top[0] < 1:
            raise ConfigError(f"eval.top: {options.top} are not numbers of answers (1 or more)")
        if self.size_test is not None and self.size_test < 1:
            raise ConfigError(f"eval.size_test: {self.size_test} is not a number of questions (1 or more)")

    def compute_metrics(
        self, ranks: npt.ArrayLike = (), targets: npt.ArrayLike = (), types: Sequence[str] = (), **_: Any
    ) -> dict[str, Any]:
        """Compute the accuracies, their 95% Wilson intervals, and ``by_type``, ``acc`` and ``count`` of each type.

        Args:
            ranks: rank of the right answer of each question (N,), from 1; 0 where it cannot be given.
            targets: the right answers as the model counts them (N,), for ``majority``; negative: none.
            types: kind of each question (N,); without them there is no ``by_type``.

        Raises:
            DataError: if there is no question, or numbers disagree.
            ConfigError: if there are more questions than ``eval.size_test``.
        """
        place = np.asarray(ranks, dtype=np.int64).reshape(-1)
        true = np.asarray(targets, dtype=np.int64).reshape(-1)
        count = len(place)
        if not count or (len(true) and len(true) != count) or (len(types) and len(types) != count):
            raise DataError(f"ranks of {count}, answers of {len(true)} and types of {len(types)} questions")
        if place.min() < 0:
            raise DataError(f"a rank is {place.min()}; they count from 1, and 0 is no rank")
        hits = {_name(top): int(((place >= 1) & (place <= top)).sum()) for top in self.top}
        metrics: dict[str, Any] = {name: number / count for name, number in hits.items()}
        if self.size_test is not None:
            if count > self.size_test:
                raise ConfigError(f"eval.size_test: {self.size_test}, but the test set has {count} questions")
            metrics["adjusted_acc"] = hits["acc"] / self.size_test
        if len(true):
            given = true[true >= 0]
            metrics["majority"] = float(np.unique(given, return_counts=True)[1].max() / count) if len(given) else 0.0
        metrics |= {f"{name}_ci": list(wilson_interval(number, count)) for name, number in hits.items()}
        metrics |= {"count": count, "unreachable": int((place == 0).sum())}
        return metrics | ({"by_type": _by_type(place == 1, types)} if len(set(types)) > 1 else {})

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return ``acc: ... - top-5: ...`` and, where there is one, the adjusted accuracy."""
        adjusted = f" - adjusted acc: {metrics['adjusted_acc']:.4f}" if "adjusted_acc" in metrics else ""
        further = "".join(f" - top-{top}: {metrics[_name(top)]:.4f}" for top in self.top[1:])
        return f"acc: {metrics['acc']:.4f}{further}{adjusted}"


def _name(top: int) -> str:
    return "acc" if top == 1 else f"acc{top}"


def _by_type(right: npt.NDArray[np.bool_], types: Sequence[str]) -> dict[str, dict[str, Any]]:
    kinds = np.asarray(types, dtype=str)
    names, counts = np.unique(kinds, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {str(names[n]): {"acc": float(right[kinds == names[n]].mean()), "count": int(counts[n])} for n in order}
