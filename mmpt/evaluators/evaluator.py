"""One test: a predictor, a metric, and a record of what was measured on what."""

import datetime
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from omegaconf import OmegaConf

import mmpt
from mmpt.evaluators.base import Metric, Predictor
from mmpt.evaluators.setting import setting_of
from mmpt.utils.config import fingerprint
from mmpt.utils.distributed import all_gather_objects, is_main_process, world
from mmpt.utils.errors import ConfigError
from mmpt.utils.files import file_sha256, resolve_path, write_json
from mmpt.utils.options import read_options
from mmpt.utils.process_group import failing_together
from mmpt.utils.registry import build
from mmpt.utils.weight_files import checkpoint_file

__all__ = ["Evaluator", "EvaluatorOptions"]

logger = logging.getLogger(__name__)


@dataclass
class EvaluatorOptions:
    """Registered names of the metric and the predictor."""

    metric: str = ""
    predictor: str = ""


class Evaluator:
    """Predict over a test set, compute the metrics and write ``metrics.json`` to ``eval.save_path``.

    In a run of several processes (:func:`mmpt.utils.process_group.process_group`) they share the predictions; the first
    computes the metrics and writes all files.
    """

    config_options: ClassVar[dict[str, type]] = {"": EvaluatorOptions}

    def __init__(self, config: Any) -> None:
        options = read_options(config, EvaluatorOptions)
        for key in ("metric", "predictor"):
            if not getattr(options, key):
                raise ConfigError(f"{key}: a test needs the registered name of its {key}")
        self.config = OmegaConf.create(config) if not OmegaConf.is_config(config) else config
        self.metric: Metric = build("metric", options.metric, config)
        self.predictor: Predictor = build("predictor", options.predictor, config)
        if self.metric.kind and self.predictor.kind and self.metric.kind != self.predictor.kind:
            raise ConfigError(
                f"metric: {options.metric} measures {self.metric.kind}, "
                f"but predictor {options.predictor} predicts {self.predictor.kind}"
            )
        if world()[1] > 1:
            self.predictor.check_processes()

    def evaluate(
        self,
        model: torch.nn.Module,
        dataloader: Iterable[Mapping[str, Any]],
        output_file: str = "merged",
        device: torch.device | str | None = None,
    ) -> dict[str, Any]:
        """Predict, compute the metrics (the first one is the main one), and write the record.

        An earlier ``metrics.json`` is removed first, so that a test that fails leaves none. With several processes
        all call this with the same model and test set, and all get the metrics.

        Raises:
            ConfigError: if ``eval.save_path`` cannot be written to.
            NothingEvaluated: if the test set is empty.
            ProcessFailed: if another process failed.
        """
        record = self.predictor.save_path / "metrics.json"
        metrics: dict[str, Any] = {}
        with failing_together():
            if is_main_process():
                self.predictor.make_folder()
                record.unlink(missing_ok=True)
            outputs = self.predictor(model, dataloader, device=device, output_file=output_file)
            if is_main_process():
                metrics = self.metric.compute_metrics(**outputs)
                write_json(record, self._record(metrics))
                logger.info("wrote %s", record)
        return all_gather_objects(metrics)[0]

    def __call__(self, output_file: str = "merged") -> dict[str, Any]:
        """Compute the metrics of an earlier run from its saved files; writes nothing.

        Raises:
            DataError: if the files are missing or damaged; names them.
        """
        return self.metric.compute_metrics(**self.predictor.load(output_file))

    def _record(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        checkpoint = OmegaConf.select(self.config, "fairseq.common_eval.path")
        file = checkpoint_file(resolve_path(checkpoint)) if checkpoint else None
        digest = file_sha256(file) if file and file.is_file() else None
        return {
            "metrics": dict(metrics),
            "main": next(iter(metrics)),
            "count": metrics.get("count"),
            "setting": setting_of(self.config),
            "metric": self.config.metric,
            "predictor": self.config.predictor,
            "checkpoint": {"path": checkpoint, "sha256": digest},
            "config_sha256": fingerprint(self.config),
            "config": OmegaConf.to_container(self.config, resolve=True),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "version": mmpt.__version__,
        }
