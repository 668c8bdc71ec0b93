"""Captioning: write a text about every clip of a test set."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from mmpt.evaluators.base import EvalOptions, Predictor, batches_of
from mmpt.evaluators.caption_metrics import EMPTY_CAPTION
from mmpt.modules.decoding import DecodingOptions, read_decoding_options
from mmpt.processors.base import TextOptions
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import read_json, write_json
from mmpt.utils.options import read_options, section_of
from mmpt.utils.seeds import item_generator
from mmpt.utils.tokenizers import load_tokenizer

__all__ = ["NLGPredictor"]

logger = logging.getLogger(__name__)


class NLGPredictor(Predictor):
    """Write a caption about every clip, as ``gen_param`` says.

    Items with the same video id are one clip with several references, and it is written about once. An empty caption
    becomes "none". Writes ``merged.json`` to ``eval.save_path``: ``outputs``, a caption per clip, ``targets``, the
    list of references of each, and ``ids``.
    """

    kind = "captions"
    config_options: ClassVar[dict[str, type]] = {
        "eval": EvalOptions,
        "gen_param": DecodingOptions,
        "dataset": TextOptions,
    }

    def __init__(self, config: Any) -> None:
        """Read the options.

        Raises:
            ConfigError: if a key of ``gen_param`` is unknown or has a wrong value; names it.
        """
        super().__init__(config)
        self.decoding = read_decoding_options(section_of(config, "gen_param"))
        text = read_options(section_of(config, "dataset"), TextOptions)
        self.bert_name, self.use_fast = text.bert_name, text.use_fast

    def predict(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device, output_file: str
    ) -> dict[str, Any]:
        """Write all captions and return ``outputs``, ``targets`` and ``ids``, which are saved too.

        Raises:
            ConfigError: if the model writes no text.
            DataError: if a batch has no references.
        """
        if not hasattr(model, "generate"):
            raise ConfigError(
                f"predictor: NLGPredictor needs a model that writes text; {type(model).__name__} does not"
            )
        captions: dict[str, str] = {}
        references: dict[str, list[str]] = {}
        items = 0
        for batch in batches_of(dataloader):
            names, given = _references(batch)
            for name, texts in zip(names, given, strict=True):
                known = references.setdefault(name, [])
                known.extend(text for text in dict.fromkeys(texts) if text not in known)
            new = [row for row, name in enumerate(names) if name not in captions and name not in names[:row]]
            if new:
                numbers = batch["idx"].tolist() if "idx" in batch else range(items, items + len(names))
                texts = self._write(model, batch, new, [int(numbers[row]) for row in new], device)
                captions.update(zip((names[row] for row in new), texts, strict=True))
            items += len(names)
        outputs = {
            "outputs": list(captions.values()),
            "targets": [references[name] for name in captions],
            "ids": list(captions),
        }
        write_json(self.save_path / f"{output_file}.json", outputs)
        logger.info("%d captions; %d items of the test set", len(captions), items)
        return outputs

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved captions."""
        path = self.save_path / f"{output_file}.json"
        content = read_json(path)
        if not isinstance(content, dict) or not {"outputs", "targets", "ids"} <= set(content):
            raise DataError(f"{path}: does not hold outputs, targets and ids; run the test again")
        return content

    def _write(
        self, model: Any, batch: Mapping[str, Any], rows: Sequence[int], numbers: Sequence[int], device: torch.device
    ) -> list[str]:
        """Write about some rows of a batch; draws depend on ``numbers``, the rows' places in the test set."""
        vfeats, vmasks = (batch[name][list(rows)].to(device) for name in ("vfeats", "vmasks"))
        rngs = [item_generator(self.decoding.seed, 0, number) for number in numbers]
        ids = model.generate(vfeats, vmasks, self.decoding, rngs)
        tokenizer = load_tokenizer(self.bert_name, self.use_fast)
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        return [text.strip() or EMPTY_CAPTION for text in texts]


def _references(batch: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the names of a batch's clips, and the references of each."""
    if "ref" not in batch:
        raise DataError("a batch has no references (ref); dataset.aligner must be one for captioning, as DSNLGAligner")
    names = [str(name) for name in batch["video_id"]]
    return names, [[one] if isinstance(one, str) else [str(text) for text in one] for one in batch["ref"]]
