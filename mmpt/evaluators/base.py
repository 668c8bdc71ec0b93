"""What predictors and metrics have in common, and the options of the ``eval`` section."""

import logging
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.processors.base import TextOptions
from mmpt.utils.devices import pick_device
from mmpt.utils.distributed import world
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import atomic_open
from mmpt.utils.options import read_section
from mmpt.utils.process_group import failing_together

__all__ = [
    "EvalOptions",
    "Metric",
    "NothingEvaluated",
    "Predictor",
    "decode_texts",
    "load_arrays",
    "save_arrays",
]

logger = logging.getLogger(__name__)


class NothingEvaluated(DataError):
    """Report that there is nothing to evaluate, or nothing was evaluated yet."""


@dataclass
class EvalOptions:
    """Keys of the ``eval`` section.

    ``save_path`` is the folder that results are written to. A score matrix with more than
    ``save_scores_max`` rows or columns is not written (embeddings always are). With
    ``unique_videos``, a video that occurs with several texts is one item of the index. ``setting``
    says how the model came about, as result tables show it ("zero-shot", "fine-tuned"); where it is
    empty, :func:`mmpt.evaluators.setting.setting_of` derives it from the run of the checkpoint.
    ``weights`` is ``model``, or ``ema`` for the moving average that a training with ``fairseq.ema.store_ema`` keeps.
    """

    save_path: str = ""
    save_scores_max: int = 5000
    unique_videos: bool = True
    setting: str = ""
    weights: str = "model"


class Predictor(ABC):
    """Run a model over a test set and save what it says.

    ``kind`` is what it predicts; a metric of another kind is refused (empty: not checked). A subclass of this class
    itself predicts in one process; several share the work of a
    :class:`~mmpt.evaluators.batch_predictor.BatchPredictor`.
    """

    kind: ClassVar[str] = ""
    config_options: ClassVar[dict[str, type]] = {"eval": EvalOptions}

    def __init__(self, config: Any) -> None:
        self.config = config
        self.options = read_section(config, "eval", EvalOptions)
        if not self.options.save_path:
            raise ConfigError("eval.save_path: a test needs a folder for its results")
        self.save_path = Path(self.options.save_path)

    def __call__(
        self,
        model: torch.nn.Module,
        dataloader: Iterable[Mapping[str, Any]],
        device: torch.device | str | None = None,
        output_file: str = "merged",
    ) -> dict[str, Any]:
        """Predict on ``device``, write files to ``eval.save_path`` and return what the metric needs.

        In a run of several processes all call this, and the result is empty on all but the first.

        Raises:
            ConfigError: if this predictor cannot be shared by several processes.
            NothingEvaluated: if the test set is empty.
            DataError: if data of the test are wrong.
        """
        self.check_processes()
        chosen = pick_device(device)
        with failing_together():
            return self.predict(model.to(chosen), dataloader, chosen, output_file)

    @abstractmethod
    def predict(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device, output_file: str
    ) -> dict[str, Any]:
        """Do what calling the predictor does; the model is on ``device``."""

    def can_be_shared(self) -> bool:
        """Tell whether several processes can each predict a part: not those of which each would predict everything."""
        return False

    def check_processes(self) -> None:
        """Raise ConfigError in a run of several processes, if they cannot share the work."""
        size = world()[1]
        if size > 1 and not self.can_be_shared():
            raise ConfigError(
                f"predictor: {type(self).__name__} has a predict() of its own, for one process, and this run has "
                f"{size}: start one, or derive it from mmpt.evaluators.BatchPredictor (batch_function and finish)"
            )

    def make_folder(self) -> None:
        """Create the folder of the results.

        Raises:
            ConfigError: if it cannot be created or written to.
        """
        try:
            self.save_path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.save_path).close()
        except OSError as error:
            raise ConfigError(
                f"eval.save_path: cannot write to {self.save_path} ({error.strerror or error})"
            ) from error

    @abstractmethod
    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read what an earlier call wrote and return what that call returned.

        Raises:
            DataError: if the files are missing or damaged; names them.
        """


class Metric(ABC):
    """Turn predictions of the same ``kind`` (empty: of any) into numbers."""

    kind: ClassVar[str] = ""

    def __init__(self, config: Any = None) -> None:
        self.config = config

    @abstractmethod
    def compute_metrics(self, **outputs: Any) -> dict[str, Any]:
        """Return the numbers by name; the first one is the main metric. ``<name>_ci`` is its 95% interval."""

    @abstractmethod
    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return the public console line of the metrics."""


def decode_texts(config: Any, batch: Mapping[str, Any]) -> list[str]:
    """Return what the model reads of each text of a batch: the batch's ``text``, else its decoded ``caps``."""
    if "text" in batch:
        return [str(text) for text in batch["text"]]
    from mmpt.utils.tokenizers import load_tokenizer

    options = read_section(config, "dataset", TextOptions)
    tokenizer = load_tokenizer(options.bert_name, options.use_fast)
    caps = batch["caps"]
    return list(tokenizer.batch_decode(caps.reshape(-1, caps.shape[-1]), skip_special_tokens=True))


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
