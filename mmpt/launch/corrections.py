"""What is changed in the settings of public project files, and why; each change is reported.

1. A class name that never existed: ``MMFusionForMFMMLM`` is ``MMBertForMFMMLM``.
2. Checkpoints chosen on test data: where a training job validates on a file that a test job of
   the same project tests on, it validates on a held-out part of its training videos instead, and a
   test of that training takes the checkpoint so chosen, where it named the last one (the published
   tester then tried every checkpoint on the test data). A file that marks its items as of one split or
   another is left alone.
3. Two towers that begin from one shared encoder: the jobs of ``retri/videoretri.yaml`` that follow its
   pre-training name the models of VideoCLIP, which have no weight in common with it (the published loader
   left them at random values without a word). They take the shared encoder's own models.

Overrides of the command line come after the corrections, so the published choice can be had back.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmpt.utils.registry import resolve_class

__all__ = ["SHARED_MODEL", "VAL_HOLDOUT", "Correction", "correct", "correct_checkpoint", "correct_model"]

VAL_HOLDOUT = 0.05
_RENAMED_CLASSES = {"MMFusionForMFMMLM": "MMBertForMFMMLM"}
SHARED_MODEL = "MMFusionShare"
#: Model of two towers -> the model of one shared encoder that does the same, and its encoder.
_OF_ONE_ENCODER = {
    "MMFusionSeparate": (SHARED_MODEL, "MMBertForEncoder"),
    "MMFusionSeparateActionLocalization": ("MMFusionShareActionLocalization", "MMBertForEncoder"),
    "MMFusionSeparateActionSegmentation": ("MMFusionActionSegmentation", "MMBertForTokenClassification"),
}
_OF_TOWERS = ("video_encoder_cls", "text_encoder_cls", "num_hidden_video_layers")


@dataclass(frozen=True)
class Correction:
    """One changed setting of one job."""

    job: str
    key: str
    old: object
    new: object
    reason: str

    def __str__(self) -> str:
        return f"{self.job}: {self.key}: {self.old} -> {self.new} ({self.reason})"


def correct(job: str, config: DictConfig, test_paths: Iterable[str]) -> list[Correction]:
    """Correct one job's config in place and return what was changed.

    ``test_paths`` are the ``dataset.test_path`` values of the project's test jobs.
    """
    found = []

    def change(key: str, new: object, reason: str) -> None:
        found.append(Correction(job, key, OmegaConf.select(config, key), new, reason))
        OmegaConf.update(config, key, new, force_add=True)

    for key in ("model.mm_encoder_cls", "model.video_encoder_cls", "model.text_encoder_cls"):
        name = OmegaConf.select(config, key)
        if name in _RENAMED_CLASSES:
            change(key, _RENAMED_CLASSES[name], "the class never existed by that name")
    dataset = config.get("dataset") or {}
    trains = bool(dataset.get("train_path")) and dataset.get("split") != "test"
    same_file = dataset.get("val_path") in set(test_paths) and not _names_splits(dataset)
    if trains and same_file and not dataset.get("val_holdout"):
        reason = "checkpoints must not be chosen on test data; a held-out part of the training videos takes its place"
        if dataset.get("val_path") != dataset.get("train_path"):
            change("dataset.val_path", dataset.get("train_path"), reason)
        change("dataset.val_holdout", VAL_HOLDOUT, reason)
    return found


def _names_splits(dataset: Mapping[str, Any]) -> bool:
    """Tell whether the files of a data set say themselves which items are for validation and which for tests."""
    name = dataset.get("meta_processor")
    return bool(name) and getattr(resolve_class("meta_processor", str(name)), "file_names_splits", False)


def correct_checkpoint(job: str, config: DictConfig, chosen: Iterable[str]) -> list[Correction]:
    """Let a test take the checkpoint chosen on held-out videos, in place; return what was changed.

    ``chosen`` are the folders of the project's training jobs that hold videos out for the choice.
    """
    path = OmegaConf.select(config, "fairseq.common_eval.path")
    folder, _, name = str(path or "").rpartition("/")
    if name != "checkpoint_last.pt" or folder not in set(chosen):
        return []
    best = f"{folder}/checkpoint_best.pt"
    OmegaConf.update(config, "fairseq.common_eval.path", best)
    return [Correction(job, "fairseq.common_eval.path", path, best, "the checkpoint chosen on held-out videos")]


def correct_model(job: str, config: DictConfig) -> list[Correction]:
    """Let a job that begins from a shared encoder have a model that can read it, in place; return what was changed."""
    model = config.get("model") or {}
    old = model.get("model_cls")
    if old not in _OF_ONE_ENCODER:
        return []
    model["model_cls"], model["mm_encoder_cls"] = _OF_ONE_ENCODER[old]
    for key in _OF_TOWERS:
        model.pop(key, None)
    return [Correction(job, "model.model_cls", old, model["model_cls"], "its checkpoint is of one shared encoder")]
