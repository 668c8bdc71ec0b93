"""What a contrastive pre-training has learned, as retrieval: each masked span or frame among all those of a test set.

The loss of a batch compares with the rows of that batch; here every row is compared with those of the whole set.

Shapes: N queries, M other candidates, H hidden.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmpt.evaluators.base import Metric, load_arrays, save_arrays
from mmpt.evaluators.batch_predictor import BatchPredictor, on_device
from mmpt.evaluators.metrics import wilson_interval
from mmpt.evaluators.ranking import ranks
from mmpt.utils.errors import ConfigError, DataError

__all__ = ["ContrastMetric", "ContrastPredictor"]

logger = logging.getLogger(__name__)

_SIDES = ("queries", "candidates")
_KEYS = "keys"
_TOP = (1, 5, 10)


class ContrastPredictor(BatchPredictor):
    """Collect the pairs of vectors that a model's contrastive objectives compare.

    The model has ``contrasted(outputs)``: name of an objective -> :class:`~mmpt.models.base.Contrast`. Writes
    ``contrasts.npz`` to ``eval.save_path``.
    """

    kind = "contrasts"

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], dict[str, dict[str, npt.NDArray[Any]]]]:
        """Return what makes the vectors of a batch; ConfigError if the model has no contrastive objective."""
        contrasted = getattr(model, "contrasted", None)
        if contrasted is None:
            raise ConfigError(
                f"predictor: {type(model).__name__} compares no vectors in pre-training; MERLOTPretraining and "
                "ReservePretraining do"
            )

        def predict(batch: Mapping[str, Any]) -> dict[str, dict[str, npt.NDArray[Any]]]:
            found = contrasted(model(**on_device(batch, device)))
            return {
                name: {side: _array(value) for side, value in parts._asdict().items() if value is not None}
                for name, parts in found.items()
            }

        return predict

    def finish(self, parts: Sequence[Any], dataloader: Iterable[Mapping[str, Any]], output_file: str) -> dict[str, Any]:
        """Save the vectors and return ``contrasts``: name -> ``queries`` (N, H), ``candidates`` (N + M, H).

        Where candidates have keys, also ``keys`` (N, W).
        """
        contrasts = {}
        for name in parts[0]:
            joined = {side: np.concatenate([part[name][side] for part in parts]) for side in parts[0][name]}
            candidates = [joined.pop(side) for side in ("own", "others") if side in joined]
            contrasts[name] = {**joined, "candidates": np.concatenate(candidates)}
        arrays = {f"{name}/{side}": array for name, pair in contrasts.items() for side, array in pair.items()}
        keyed = [name for name, pair in contrasts.items() if _KEYS in pair]
        save_arrays(
            self.save_path / "contrasts.npz", names=np.array(list(contrasts)), keyed=np.array(keyed, "U"), **arrays
        )
        return {"contrasts": contrasts}

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved vectors."""
        path = self.save_path / "contrasts.npz"
        known = load_arrays(path, ["names", "keyed"])
        sides = {name: (*_SIDES, _KEYS) if name in known["keyed"] else _SIDES for name in known["names"].tolist()}
        arrays = load_arrays(path, [f"{name}/{side}" for name, own in sides.items() for side in own])
        return {"contrasts": {name: {side: arrays[f"{name}/{side}"] for side in own} for name, own in sides.items()}}


class ContrastMetric(Metric):
    """Recall at 1, 5 and 10 of each objective, over all candidates of the test set, and what chance gives.

    Candidates of the same keys (text spans of the same words) are one: naming it is right for each of its queries.
    Ties count against the query. ``<objective>_chance`` is the recall at 1 of guessing, ``<objective>_R1_ci`` the 95%
    Wilson interval. ``count`` is the number of queries of the first objective.
    """

    kind = "contrasts"

    def compute_metrics(self, contrasts: Mapping[str, Mapping[str, Any]] | None = None, **_: Any) -> dict[str, Any]:
        """Compute the recalls of ``contrasts`` as :meth:`ContrastPredictor.finish` returns them; the first is the main.

        Raises:
            DataError: if there is nothing to compare, or vectors are not finite.
        """
        if not contrasts:
            raise DataError("there is no contrastive objective to measure")
        recalls: dict[str, Any] = {}
        more: dict[str, Any] = {}
        for name, pair in contrasts.items():
            queries, candidates = np.asarray(pair["queries"]), np.asarray(pair["candidates"])
            if not len(queries):
                raise DataError(f"{name}: the test set has nothing to find")
            first, place = _unlike(pair.get(_KEYS), len(candidates))
            found = ranks(queries, candidates[first], place[: len(queries)])
            for top in _TOP:
                hits = int((found <= top).sum())
                recalls[f"{name}_R{top}"] = hits / len(found)
                more[f"{name}_R{top}_ci"] = list(wilson_interval(hits, len(found)))
            more[f"{name}_MR"] = float(np.median(found))
            more |= {f"{name}_chance": 1 / len(first), f"{name}_candidates": len(first), f"{name}_count": len(found)}
        main = next(iter(contrasts))
        return {**recalls, **more, "count": more[f"{main}_count"]}

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return the recalls of each objective on one line, with chance."""
        names = [key.removesuffix("_chance") for key in metrics if key.endswith("_chance")]
        return " - ".join(
            f"{name}: R@1 {metrics[f'{name}_R1']:.4f} (chance {metrics[f'{name}_chance']:.4f}) "
            f"R@5 {metrics[f'{name}_R5']:.4f} R@10 {metrics[f'{name}_R10']:.4f}"
            for name in names
        )


def _array(values: torch.Tensor) -> npt.NDArray[Any]:
    """Return vectors as float32, keys as they are."""
    return (values.float() if values.is_floating_point() else values).cpu().numpy()


def _unlike(keys: npt.NDArray[np.int64] | None, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which of ``count`` candidates are unlike all earlier ones, and for each candidate which of these it is."""
    if keys is None:
        return np.arange(count), np.arange(count)
    _, first, place = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return first.astype(np.int64), place.reshape(-1).astype(np.int64)
