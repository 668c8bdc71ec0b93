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
_TOP = (1, 5, 10)
#: Vectors that differ by less, relative to their length, are of the same span in batches of other lengths.
_SAME = 1e-4


class ContrastPredictor(BatchPredictor):
    """Collect the pairs of vectors that a model's contrastive objectives compare.

    The model has ``contrasted(outputs)``: name of an objective -> queries (N, H), their own candidates (N, H) and,
    where there are any, others (M, H). Writes ``contrasts.npz`` to ``eval.save_path``.
    """

    kind = "contrasts"

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], dict[str, list[npt.NDArray[np.float32]]]]:
        """Return what makes the vectors of a batch; ConfigError if the model has no contrastive objective."""
        contrasted = getattr(model, "contrasted", None)
        if contrasted is None:
            raise ConfigError(
                f"predictor: {type(model).__name__} compares no vectors in pre-training; MERLOTPretraining and "
                "ReservePretraining do"
            )

        def predict(batch: Mapping[str, Any]) -> dict[str, list[npt.NDArray[np.float32]]]:
            found = contrasted(model(**on_device(batch, device)))
            return {name: [part.float().cpu().numpy() for part in parts] for name, parts in found.items()}

        return predict

    def finish(self, parts: Sequence[Any], dataloader: Iterable[Mapping[str, Any]], output_file: str) -> dict[str, Any]:
        """Save the vectors and return ``contrasts``: name -> ``queries`` (N, H), ``candidates`` (N + M, H)."""
        contrasts = {}
        for name in parts[0]:
            columns = [np.concatenate(column) for column in zip(*(part[name] for part in parts), strict=True)]
            contrasts[name] = {"queries": columns[0], "candidates": np.concatenate(columns[1:])}
        arrays = {f"{name}/{side}": pair[side] for name, pair in contrasts.items() for side in _SIDES}
        save_arrays(self.save_path / "contrasts.npz", names=np.array(list(contrasts)), **arrays)
        return {"contrasts": contrasts}

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved vectors."""
        path = self.save_path / "contrasts.npz"
        names = load_arrays(path, ["names"])["names"].tolist()
        arrays = load_arrays(path, [f"{name}/{side}" for name in names for side in _SIDES])
        return {"contrasts": {name: {side: arrays[f"{name}/{side}"] for side in _SIDES} for name in names}}


class ContrastMetric(Metric):
    """Recall at 1, 5 and 10 of each objective, over all candidates of the test set, and what chance gives.

    Candidates that are alike (the same words) are one: naming it is right for each of its queries. Other ties count
    against the query. ``<objective>_chance`` is the recall at 1 of guessing, ``<objective>_R1_ci`` the 95% Wilson
    interval. ``count`` is the number of queries of the first objective.
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
            first, place = _unlike(candidates)
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


def _unlike(vectors: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows of vectors (N, H) of which none is like an earlier one, and for each row which of these it is."""
    lengths = np.linalg.norm(vectors, axis=1).clip(1e-12)
    rounded = np.round(vectors / lengths[:, None] / _SAME).astype(np.int64)
    _, first, place = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    return first.astype(np.int64), place.reshape(-1).astype(np.int64)
