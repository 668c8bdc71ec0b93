"""Gaps filled in by a model that compares them with the vectors of possible answers: zero-shot MERLOT Reserve.

Shapes: N items, B of a batch, C answers.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmpt.evaluators.base import EvalOptions, Metric, load_arrays, save_arrays
from mmpt.evaluators.batch_predictor import BatchPredictor, on_device
from mmpt.evaluators.metrics import wilson_interval
from mmpt.evaluators.open_qa_predictor import OpenQAOptions, OpenQAPredictor
from mmpt.modules.reserve_tokens import PAD, SPAN_LENGTH
from mmpt.processors.subword_texts import SubwordOptions, subwords_of
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import write_json
from mmpt.utils.options import section_of

__all__ = ["ActionAnticipationMetric", "ActionAnticipationPredictor", "ClozePredictor", "give_answers"]

logger = logging.getLogger(__name__)

_BEST, _TOP = 5, (1, 5)
_PARTS = ("action", "verb", "noun")
_FILE = "anticipation.npz"


def give_answers(model: Any, dataloader: Any, config: Any, predictor: str) -> list[str]:
    """Set the answers of a data set, encoded, in a model; return them.

    Raises:
        ConfigError: if the model takes none, or the data set has none; names the predictor.
    """
    labels = getattr(getattr(getattr(dataloader, "dataset", None), "meta_processor", None), "labels", None)
    if not hasattr(model, "set_answers"):
        raise ConfigError(
            f"predictor: {predictor} needs a model that compares a gap with answers; {type(model).__name__} does not"
        )
    if not labels:
        raise ConfigError(f"predictor: {predictor} needs a data set with answers to choose from (its labels)")
    subwords = subwords_of(section_of(config, "dataset"))
    spans = torch.full((len(labels), SPAN_LENGTH), PAD)
    for row, label in zip(spans, labels, strict=True):
        ids = subwords.encode(str(label))[:SPAN_LENGTH]
        row[: len(ids)] = torch.tensor(ids)
    model.set_answers(spans)
    return [str(label) for label in labels]


class ClozePredictor(OpenQAPredictor):
    """Fill each gap with the answer whose vector is nearest; files and outputs are those of open-ended questions.

    The answers are the ``labels`` of the data set. An item whose right answer is none of them, or whose sentence has
    not exactly one gap, counts as wrong.
    """

    config_options: ClassVar[dict[str, type]] = {"eval": OpenQAOptions, "dataset": SubwordOptions}

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], Any]:
        """Set the data set's answers in the model, and return what answers the questions of a batch.

        Raises:
            ConfigError: as :func:`give_answers`, or if ``eval.answers`` is not ``vocabulary``.
        """
        if self.options.answers != "vocabulary":
            raise ConfigError("eval.answers: the answers of a gap are always those of the data set")
        give_answers(model, dataloader, self.config, type(self).__name__)
        return super().batch_function(model, dataloader, device)


class _Anticipated(NamedTuple):
    """The actions of a batch: ids, the right ones (B,), ranks (B, 3), and the best five with their scores (B, 5)."""

    ids: list[str]
    targets: npt.NDArray[np.int64]
    ranks: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class ActionAnticipationPredictor(BatchPredictor):
    """Rank all actions for what comes next, and by the best action of each also the verbs and the nouns.

    Writes to ``eval.save_path``: ``anticipation.npz`` with ``ids`` (N,), ``targets`` int64 (N,), the number of the
    right action, -100 where it is none, ``ranks`` int64 (N, 3) of the right action, verb and noun, from 1, 0 where
    there is none, and ``outputs`` int64 (N,), the actions chosen; ``merged.npy``, these; and ``predictions.json``, the
    ``best`` five actions of each.
    """

    kind = "actions"
    config_options: ClassVar[dict[str, type]] = {"eval": EvalOptions, "dataset": SubwordOptions}

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], _Anticipated]:
        """Return what ranks the actions of a batch; DataError if a score is not finite.

        Raises:
            ConfigError: as :func:`give_answers`, or if the data set does not tell verbs and nouns of its actions.
        """
        labels = give_answers(model, dataloader, self.config, type(self).__name__)
        actions = getattr(dataloader.dataset.meta_processor, "actions", None)  # type: ignore[attr-defined]
        if actions is None or len(actions) != len(labels):
            raise ConfigError("dataset.meta_processor: does not tell verb and noun of each action")
        groups = [_numbered(values).to(device) for values in (labels, *zip(*actions, strict=True))]

        def predicted(batch: Mapping[str, Any]) -> _Anticipated:
            scores = model.answer_scores(**on_device(batch, device)).float()  # type: ignore[operator]
            names = [str(name) for name in batch["video_id"]]
            bad = ~torch.isfinite(scores).all(dim=1)
            if bad.any():
                raise DataError(f"action {names[int(bad.nonzero()[0])]}: a score is not finite")
            targets = batch["answers"].reshape(-1).to(device)
            if len(targets) != len(names) or int(targets.max()) >= len(labels):
                raise DataError(f"{len(targets)} right actions, up to {int(targets.max())}, of {len(labels)}")
            ranks = torch.stack([_ranks(scores, group, targets) for group in groups], dim=1)
            best = scores.argsort(dim=1, descending=True, stable=True)[:, :_BEST]
            found = (targets, ranks, best, scores.gather(1, best))
            return _Anticipated(names, *(values.cpu().numpy() for values in found))

        return predicted

    def finish(
        self, parts: Sequence[_Anticipated], dataloader: Iterable[Mapping[str, Any]], output_file: str
    ) -> dict[str, Any]:
        """Save the ranks and return what the metric needs: the arrays of ``anticipation.npz``."""
        labels = dataloader.dataset.meta_processor.labels  # type: ignore[attr-defined]
        best = np.concatenate([part.best for part in parts])
        arrays: dict[str, Any] = {
            "ids": np.array([name for part in parts for name in part.ids], dtype=str),
            "targets": np.concatenate([part.targets for part in parts]),
            "ranks": np.concatenate([part.ranks for part in parts]),
            "outputs": best[:, 0],
        }
        save_arrays(self.save_path / _FILE, **arrays)
        save_arrays(self.save_path / f"{output_file}.npy", prediction=arrays["outputs"])
        scores = np.concatenate([part.scores for part in parts])
        records = [
            {
                "id": str(name),
                "action": labels[target] if target >= 0 else "",
                "ranks": dict(zip(_PARTS, ranks, strict=True)),
                "best": [{"action": labels[one], "score": score} for one, score in zip(row, own, strict=True)],
            }
            for name, target, ranks, row, own in zip(
                *(arrays[key].tolist() for key in ("ids", "targets", "ranks")),
                best.tolist(),
                scores.tolist(),
                strict=True,
            )
        ]
        write_json(self.save_path / "predictions.json", records)
        logger.info("%d actions", len(records))
        return arrays

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved ranks."""
        return load_arrays(self.save_path / _FILE, ("ids", "targets", "ranks", "outputs"))


def _numbered(values: Sequence[str]) -> Tensor:
    """Return the number of each value among the different ones, int64."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return torch.tensor([numbers[value] for value in values])


def _ranks(scores: Tensor, group: Tensor, targets: Tensor) -> Tensor:
    """Return the rank of the right action's group among groups, by the best score of each; 0 where there is none.

    Args:
        scores: (B, C).
        group: int64 (C,), the group of each action.
        targets: int64 (B,), negative where there is none.
    """
    count = int(group.max()) + 1
    best = scores.new_full((len(scores), count), -torch.inf)
    best = best.scatter_reduce(1, group.expand(len(scores), -1), scores, "amax")
    own = best.gather(1, group[targets.clamp(min=0)][:, None])
    return torch.where(targets >= 0, (best >= own).sum(1), 0)


class ActionAnticipationMetric(Metric):
    """Shares of actions, verbs and nouns that are ranked first (``acc``) or among the first five (``acc5``).

    Ties count against the model, and an action that is none of the list as wrong (``unreachable`` says how many).
    """

    kind = "actions"

    def compute_metrics(self, ranks: npt.ArrayLike = (), **_: Any) -> dict[str, Any]:
        """Compute the shares and their 95% Wilson intervals from ranks (N, 3) of action, verb and noun, from 1.

        Raises:
            DataError: if there is none, or a rank is negative.
        """
        places = np.asarray(ranks, np.int64)
        if places.ndim != 2 or not len(places) or places.shape[1] != len(_PARTS) or places.min() < 0:
            raise DataError(f"ranks of shape {places.shape}: expected (actions, 3), from 1, and 0 where there is none")
        count = len(places)
        metrics: dict[str, Any] = {}
        for part, column in zip(_PARTS, places.T, strict=True):
            for top in _TOP:
                hits = int(((column >= 1) & (column <= top)).sum())
                name = f"{part}_acc{top if top > 1 else ''}"
                metrics |= {name: hits / count, f"{name}_ci": list(wilson_interval(hits, count))}
        return metrics | {"count": count, "unreachable": int((places[:, 0] == 0).sum())}

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return ``action: ../.. - verb: ../.. - noun: ../..``, each top-1 and top-5."""
        return " - ".join(f"{part}: {metrics[f'{part}_acc']:.4f}/{metrics[f'{part}_acc5']:.4f}" for part in _PARTS)
