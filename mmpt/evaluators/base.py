"""What predictors and metrics have in common, and the options of the ``eval`` section."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import atomic_open
from mmpt.utils.options import read_options, section_of

__all__ = ["EvalOptions", "Metric", "Predictor", "count_batches", "load_arrays", "save_arrays"]

logger = logging.getLogger(__name__)


@dataclass
class EvalOptions:
    """Keys of the ``eval`` section.

    ``save_path`` is the folder that results are written to. A score matrix with more than
    ``save_scores_max`` rows or columns is not written (embeddings always are). With
    ``unique_videos``, a video that occurs with several texts is one item of the index.
    """

    save_path: str = ""
    save_scores_max: int = 5000
    unique_videos: bool = True


class Predictor(ABC):
    """Run a model over a test set and save what it says."""

    config_options: ClassVar[dict[str, type]] = {"eval": EvalOptions}

    def __init__(self, config: Any) -> None:
        self.config = config
        self.options = read_options(section_of(config, "eval"), EvalOptions)
        if not self.options.save_path:
            raise ConfigError("eval.save_path: a test needs a folder for its results")
        self.save_path = Path(self.options.save_path)

    @abstractmethod
    def __call__(
        self,
        model: torch.nn.Module,
        dataloader: Iterable[Mapping[str, Any]],
        device: torch.device | str | None = None,
        output_file: str = "merged",
    ) -> dict[str, Any]:
        """Predict, write files to ``eval.save_path`` and return what the metric needs."""

    @abstractmethod
    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read what an earlier call wrote and return what that call returned.

        Raises:
            DataError: if the files are missing or damaged; names them.
        """


class Metric(ABC):
    """Turn predictions into numbers."""

    def __init__(self, config: Any = None) -> None:
        self.config = config

    @abstractmethod
    def compute_metrics(self, **outputs: Any) -> dict[str, Any]:
        """Return the numbers by name; the first one is the main metric. ``<name>_ci`` is its 95% interval."""

    @abstractmethod
    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return the public console line of the metrics."""


def count_batches(dataloader: Iterable[Any]) -> int | None:
    """Return the number of batches of a loader, or None where it does not know."""
    return len(dataloader) if isinstance(dataloader, Sized) else None


def save_arrays(path: str | os.PathLike[str], **arrays: np.ndarray) -> None:
    """Write arrays (no objects) as one .npz, or a single array as .npy, atomically."""
    with atomic_open(path, "wb") as file:
        if Path(path).suffix == ".npy":
            (array,) = arrays.values()
            np.save(file, array, allow_pickle=False)
        else:
            np.savez(file, allow_pickle=False, **arrays)


def load_arrays(path: str | os.PathLike[str], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read the named arrays of an .npz; nothing in it is ever unpickled.

    Raises:
        DataError: if the file or one of the arrays is missing or damaged; names it.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; run the test first (mmpt_cli/predict.py)")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except Exception as error:  # zipfile, numpy and OS errors alike mean a damaged file
        raise DataError(f"{path}: cannot be read ({error}); run the test again") from error
