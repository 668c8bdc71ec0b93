"""Stories whose images are to be put in the order of their sentences, without training (MERLOT, section 4.3).

Shapes: S stories, N images and sentences of each, R draws of the images' indices.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mmpt.evaluators.base import Metric, load_arrays, save_arrays
from mmpt.evaluators.batch_predictor import BatchPredictor
from mmpt.evaluators.classification_metrics import bootstrap_interval
from mmpt.modules.story_order import best_order, order_probabilities
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import write_json

__all__ = ["StoryOrderingMetric", "StoryOrderingPredictor"]

logger = logging.getLogger(__name__)

_FILE = "orders.npz"
_ARRAYS = ("orders", "probabilities", "ids")


class _Ordered(NamedTuple):
    """The stories of a batch: ids, probabilities (B, N, N, 3) and the places of the images (B, N)."""

    ids: list[str]
    probabilities: npt.NDArray[np.float32]
    orders: npt.NDArray[np.int64]
    sentences: list[list[str]]


class StoryOrderingPredictor(BatchPredictor):
    """Find for each story the likeliest place of each image.

    Writes to ``eval.save_path``: ``orders.npz``, with ``probabilities`` float32 (S, N, N, 3), how likely sentence i is
    of the moment of image j, earlier, or later, the mean over the draws of each story, ``orders`` int64 (S, N), the
    place of each image, whose true place is its own number, and ``ids``; and ``predictions.json``, the same of each
    story without the probabilities, with its sentences where they are known.
    """

    kind = "orders"

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], _Ordered]:
        """Return what orders the stories of a batch; DataError from one that holds none, or a score is not finite.

        Raises:
            ConfigError: if the model compares no images with sentences.
        """
        if not hasattr(model, "order_logits"):
            raise ConfigError(
                "predictor: StoryOrderingPredictor needs order_logits, as MERLOTPretraining has; "
                f"{type(model).__name__} has none"
            )

        def predicted(batch: Mapping[str, Any]) -> _Ordered:
            if "image_index" not in batch:
                raise DataError("a batch holds no stories; dataset.aligner must be StoryAligner")
            vfeats, tokens, index = (batch[name].to(device) for name in ("vfeats", "tokens", "image_index"))
            logits = [model.order_logits(vfeats, tokens, one) for one in index.unbind(1)]  # type: ignore[operator]
            probabilities = order_probabilities(logits).float()
            names = [str(name) for name in batch["video_id"]]
            bad = ~torch.isfinite(probabilities).flatten(1).all(dim=1)
            if bad.any():
                raise DataError(f"story {names[int(bad.nonzero()[0])]}: a probability is not finite")
            orders = best_order(probabilities)
            sentences = [list(one) for one in batch.get("sentences") or [[]] * len(names)]
            return _Ordered(names, probabilities.cpu().numpy(), orders.cpu().numpy(), sentences)

        return predicted

    def finish(
        self, parts: Sequence[_Ordered], dataloader: Iterable[Mapping[str, Any]], output_file: str
    ) -> dict[str, Any]:
        """Save the orders and return what the metric needs: the arrays of ``orders.npz``."""
        arrays: dict[str, Any] = {
            "orders": np.concatenate([part.orders for part in parts]).astype(np.int64),
            "probabilities": np.concatenate([part.probabilities for part in parts]).astype(np.float32),
            "ids": np.array([name for part in parts for name in part.ids], dtype=str),
        }
        save_arrays(self.save_path / _FILE, **arrays)
        save_arrays(self.save_path / f"{output_file}.npy", prediction=arrays["orders"])
        sentences = [one for part in parts for one in part.sentences]
        records = [
            {"story_id": str(name), "places": order, "correct": order == sorted(order), "sentences": told}
            for name, order, told in zip(arrays["ids"], arrays["orders"].tolist(), sentences, strict=True)
        ]
        write_json(self.save_path / "predictions.json", records)
        logger.info("%d stories", len(records))
        return dict(arrays)

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved orders."""
        return load_arrays(self.save_path / _FILE, _ARRAYS)


class StoryOrderingMetric(Metric):
    """How near the predicted places of a story's images are to the true ones, averaged over stories.

    ``spearman`` is the rank correlation; ``pairwise`` the share of pairs of images in the right order; ``distance``
    the mean number of places that an image is off; ``exact`` the share of stories that are right as a whole. Without
    knowledge one gets 0, 0.5 and, of five images, 1.6. ``<name>_ci`` is the 95% interval over stories, by a seeded
    bootstrap.
    """

    kind = "orders"

    def compute_metrics(self, orders: npt.ArrayLike = (), **_: Any) -> dict[str, Any]:
        """Compute the metrics of predicted places (S, N), the true place of image j being j.

        Raises:
            DataError: if there is no story, or a row is no permutation.
        """
        places = np.asarray(orders, dtype=np.int64)
        if places.ndim != 2 or not len(places) or places.shape[1] < 2:
            raise DataError(f"orders have shape {places.shape}, not (stories, 2 or more images)")
        count, images = places.shape
        if (np.sort(places, axis=1) != np.arange(images)).any():
            raise DataError("a predicted order is no permutation of its images")
        off = places - np.arange(images)
        first, second = np.triu_indices(images, 1)
        by_story = {
            "spearman": 1 - 6 * (off**2).sum(axis=1) / (images * (images**2 - 1)),
            "pairwise": (places[:, first] < places[:, second]).mean(axis=1),
            "distance": np.abs(off).mean(axis=1),
        }
        metrics: dict[str, Any] = {name: float(values.mean()) for name, values in by_story.items()}
        metrics |= {"exact": float((off == 0).all(axis=1).mean()), "count": count}
        if count > 1:
            for name, values in by_story.items():
                low, high = bootstrap_interval(values, np.ones(count))
                metrics[f"{name}_ci"] = [float(low), float(high)]
        return metrics

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return ``spearman: ... - pairwise: ... - distance: ...``."""
        return " - ".join(f"{name}: {metrics[name]:.4f}" for name in ("spearman", "pairwise", "distance"))
