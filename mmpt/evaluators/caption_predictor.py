"""Captioning: write a text about every clip of a test set."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from mmpt.evaluators.base import EvalOptions
from mmpt.evaluators.batch_predictor import BatchPredictor
from mmpt.evaluators.caption_metrics import EMPTY_CAPTION
from mmpt.evaluators.sharing import NEW_ROWS
from mmpt.models.lavender_batches import PRETEXT_KEYS
from mmpt.modules.decoding import DecodingOptions, read_decoding_options
from mmpt.processors.base import TextOptions
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import atomic_open, read_json, write_json
from mmpt.utils.options import read_section, section_of
from mmpt.utils.seeds import item_generator
from mmpt.utils.tokenizers import load_tokenizer

__all__ = ["CaptionOptions", "NLGPredictor"]

logger = logging.getLogger(__name__)


@dataclass
class CaptionOptions(EvalOptions):
    """Keys of ``eval`` of captioning.

    With ``caption_tsv``, the captions are also written as ``merged.tsv``, in LAVENDER's form: a line per clip, its id,
    a tab and ``[{"caption": .., "conf": ..}]``, where ``conf`` is e to the power of the caption's score: for greedy
    texts and ``gen_param.length_penalty`` 1 about the mean probability of its words.
    """

    caption_tsv: bool = False


class _Captions(NamedTuple):
    """The names of a batch's items, the references of each, and the captions of the clips that are new in it.

    A caption is a text and its confidence.
    """

    names: list[str]
    references: list[list[str]]
    captions: dict[str, tuple[str, float]]


class NLGPredictor(BatchPredictor):
    """Write a caption about every clip, as ``gen_param`` says.

    Items with the same video id are one clip with several references, and it is written about once. An empty caption
    becomes "none". Writes ``merged.json`` to ``eval.save_path``: ``outputs``, a caption per clip, ``targets``, the
    list of references of each, and ``ids``; where asked for, also ``merged.tsv`` (:class:`CaptionOptions`). What a
    batch has of ``prompts`` and ``task_ids`` (LAVENDER's) is handed to the model.
    """

    kind = "captions"
    options: CaptionOptions
    once_per_video: ClassVar[bool] = True
    config_options: ClassVar[dict[str, type]] = {
        "eval": CaptionOptions,
        "gen_param": DecodingOptions,
        "dataset": TextOptions,
    }

    def __init__(self, config: Any) -> None:
        """Read the options.

        Raises:
            ConfigError: if a key of ``gen_param`` is unknown or has a wrong value; names it.
        """
        super().__init__(config)
        self.options = read_section(config, "eval", CaptionOptions)
        self.decoding = read_decoding_options(section_of(config, "gen_param"))
        text = read_section(config, "dataset", TextOptions)
        self.bert_name, self.use_fast = text.bert_name, text.use_fast

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], _Captions]:
        """Return what writes about the clips that a batch is the first to show; DataError from one without references.

        Raises:
            ConfigError: if the model writes no text.
        """
        if not hasattr(model, "generate") and not hasattr(model, "generate_hypotheses"):
            raise ConfigError(
                f"predictor: NLGPredictor needs a model that writes text; {type(model).__name__} does not"
            )
        if self.options.caption_tsv and not hasattr(model, "generate_hypotheses"):
            raise ConfigError(
                f"eval.caption_tsv: {type(model).__name__} does not say how sure it is of a text (generate_hypotheses)"
            )

        def predicted(batch: Mapping[str, Any]) -> _Captions:
            names, references = _references(batch)
            new = batch[NEW_ROWS]
            texts = self._write(model, batch, new, device) if new else []
            return _Captions(names, references, dict(zip((names[row] for row in new), texts, strict=True)))

        return predicted

    def finish(
        self, parts: Sequence[_Captions], dataloader: Iterable[Mapping[str, Any]], output_file: str
    ) -> dict[str, Any]:
        """Return ``outputs``, ``targets`` and ``ids``, which are saved too."""
        captions: dict[str, tuple[str, float]] = {}
        references: dict[str, list[str]] = {}
        for part in parts:
            captions.update(part.captions)
            for name, texts in zip(part.names, part.references, strict=True):
                known = references.setdefault(name, [])
                known.extend(text for text in dict.fromkeys(texts) if text not in known)
        outputs = {
            "outputs": [text for text, _ in captions.values()],
            "targets": [references[name] for name in captions],
            "ids": list(captions),
        }
        write_json(self.save_path / f"{output_file}.json", outputs)
        if self.options.caption_tsv:
            _write_tsv(self.save_path / f"{output_file}.tsv", captions)
        logger.info("%d captions; %d items of the test set", len(captions), sum(len(part.names) for part in parts))
        return outputs

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved captions."""
        path = self.save_path / f"{output_file}.json"
        content = read_json(path)
        if not isinstance(content, dict) or not {"outputs", "targets", "ids"} <= set(content):
            raise DataError(f"{path}: does not hold outputs, targets and ids; run the test again")
        return content

    def _write(
        self, model: Any, batch: Mapping[str, Any], rows: Sequence[int], device: torch.device
    ) -> list[tuple[str, float]]:
        """Write about some rows of a batch; draws depend on their places in the test set."""
        vfeats, vmasks = (batch[name][list(rows)].to(device) for name in ("vfeats", "vmasks"))
        pretext = {name: batch[name][list(rows)].to(device) for name in PRETEXT_KEYS if name in batch}
        rngs = [item_generator(self.decoding.seed, 0, int(batch["idx"][row])) for row in rows]
        if hasattr(model, "generate_hypotheses"):
            written = model.generate_hypotheses(vfeats, vmasks, self.decoding, rngs, **pretext)
            ids, sure = [one.ids for one in written], [math.exp(one.score) for one in written]
        else:
            ids = model.generate(vfeats, vmasks, self.decoding, rngs, **pretext)
            sure = [math.nan] * len(ids)
        tokenizer = load_tokenizer(self.bert_name, self.use_fast)
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        return [(text.strip() or EMPTY_CAPTION, one) for text, one in zip(texts, sure, strict=True)]


def _write_tsv(path: Path, captions: Mapping[str, tuple[str, float]]) -> None:
    """Write captions with their confidences as LAVENDER does."""
    with atomic_open(path) as file:
        for name, (text, sure) in captions.items():
            file.write(f"{name}\t{json.dumps([{'caption': text, 'conf': sure}], ensure_ascii=False)}\n")


def _references(batch: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the names of a batch's clips, and the references of each."""
    if "ref" not in batch:
        raise DataError("a batch has no references (ref); dataset.aligner must be one for captioning, as DSNLGAligner")
    names = [str(name) for name in batch["video_id"]]
    return names, [[one] if isinstance(one, str) else [str(text) for text in one] for one in batch["ref"]]
