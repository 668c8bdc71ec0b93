"""Text-video retrieval by models that see a video and a text together: every pair is fused.

VIOLET and LAVENDER score a pair by a transformer over the tokens of both, so N texts and V videos need N x V passes
of it, but no more than V passes of the video encoder. Shapes: N texts, V videos, B rows of a batch, H hidden.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import OmegaConf
from torch import nn

import mmpt
from mmpt.evaluators.base import NothingEvaluated, Predictor, save_arrays
from mmpt.evaluators.batch_predictor import check_same_batches, with_progress
from mmpt.evaluators.fusion_items import FusionItems, exchange_items
from mmpt.evaluators.fusion_rerank import POOLED, behind, best_candidates, cosines, read_cheap_scores
from mmpt.evaluators.fusion_run import FusionOptions, FusionRun, weights_digest
from mmpt.evaluators.fusion_scoring import FinishedBlocks, PairPlan
from mmpt.evaluators.fusion_states import STATE_TYPES
from mmpt.evaluators.retrieval_files import EMBEDDINGS, PAIRS, read_pairs
from mmpt.evaluators.sharing import Share
from mmpt.models.embedding import evaluating
from mmpt.utils.distributed import all_gather_objects, broadcast_object, gather_items, is_main_process
from mmpt.utils.errors import ConfigError
from mmpt.utils.options import read_section, section_of
from mmpt.utils.process_group import failing_together

__all__ = ["FusionRetrievalPredictor"]

#: Folder, below ``eval.save_path``, of what a test that is not finished keeps.
_UNFINISHED = "unfinished"


class FusionRetrievalPredictor(Predictor):
    """Score every text of a test set against every video by fusing the two; text i belongs to the video of item i.

    Every item is a query, also where several describe one video. A video that several items show is encoded once, and
    is one item of the index (``eval.unique_videos``); other frames under the same id are a clip of their own.

    Writes to ``eval.save_path``: ``merged.npy``, the scores float32 (N, V), whatever their number, and ``pairs.npz``:
    ``target`` int64 (N,), the video of each text, ``ids`` (V,) and ``texts`` (N,) strings.

    Scores of finished blocks of videos lie in the folder ``unfinished`` there until the end: a test that is started
    again encodes again and goes on where it was, unless weights, test set or options are others. Several processes
    take the videos of their batches (:class:`~mmpt.evaluators.sharing.Share`) and score them against all texts; the
    results are the same to the last bit for any number of processes.

    Raises:
        ConfigError: if an option has a wrong value; names the key.
    """

    kind = "retrieval"
    options: FusionOptions
    config_options: ClassVar[dict[str, type]] = {"eval": FusionOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.options = read_section(config, "eval", FusionOptions)
        for key in ("pairs_per_batch", "rerank_top_k"):
            value = getattr(self.options, key)
            if value is not None and value < 1:
                raise ConfigError(f"eval.{key}: must be at least 1, not {value}")
        if not self.options.states_max_gb >= 0:
            raise ConfigError(f"eval.states_max_gb: must be at least 0, not {self.options.states_max_gb}")
        if self.options.cheap_score != POOLED and self.options.rerank_top_k is None:
            raise ConfigError("eval.cheap_score: nothing is re-ranked; set eval.rerank_top_k, or leave it out")
        if self.options.states_dtype not in STATE_TYPES:
            raise ConfigError(f"eval.states_dtype: {self.options.states_dtype!r} is none of {', '.join(STATE_TYPES)}")

    def can_be_shared(self) -> bool:
        """Tell whether a subclass has left :meth:`predict` as it is."""
        return type(self).predict is FusionRetrievalPredictor.predict

    def predict(
        self, model: nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device, output_file: str
    ) -> dict[str, Any]:
        """Encode, fuse and score; the result is empty on all processes but the first.

        Returns:
            ``outputs``, float32 (N, V), and the arrays of ``pairs.npz``.

        Raises:
            ConfigError: if the model fuses nothing, or the cheap score cannot be had.
            DataError: if an item is not a video and a text, or a score is not finite.
            NothingEvaluated: if the test set is empty.
        """
        _check_fuses(model)
        # What each process does alone, and may fail at, stands in a block; between blocks they exchange.
        run = FusionRun(self.config, self.options, model, device)
        share = Share(dataloader, mark_new=self.options.unique_videos)
        with failing_together() as look_for_failures, _scoring(model):
            for number, batch in with_progress(share):
                look_for_failures()
                run.read(number, batch)
            if not share.total:
                raise NothingEvaluated("the test set is empty: nothing to evaluate")
            weights = weights_digest(model) if is_main_process() else ""
        check_same_batches(share)
        weights = broadcast_object(weights)
        items = exchange_items(run.own)
        with failing_together() as look_for_failures, _scoring(model):
            if items.missing:
                run.encode_missing(Share(dataloader), items.missing, look_for_failures)
            run.encode_texts(items)
        vectors = {index: one for part in all_gather_objects(run.pooled_videos(items)) for index, one in part.items()}
        with failing_together() as look_for_failures, _scoring(model):
            cheap = self._cheap_scores(items, run, vectors)
            fingerprint = self._fingerprint(model, weights, items, cheap)
            finished = FinishedBlocks(self.save_path / _UNFINISHED, fingerprint)
            if is_main_process():
                finished.drop_others()
            candidates = None if cheap is None else best_candidates(cheap, self.options.rerank_top_k or 0)
            plan = PairPlan(len(items.target), items.batch_of, self.options.pairs_per_batch, candidates)
            own = run.score(plan, items, finished, look_for_failures)
        gathered = gather_items(own)
        if gathered is None:
            return {}
        outputs = self._finish(plan, items, cheap, dict(one for part in gathered for one in part), output_file)
        finished.remove()
        return outputs

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved scores."""
        return read_pairs(self.save_path, output_file)

    def _cheap_scores(
        self, items: FusionItems, run: FusionRun, vectors: Mapping[int, npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32] | None:
        """Return the cheap scores (N, V); None where all pairs are fused."""
        count = self.options.rerank_top_k
        if count is None or count >= len(items.videos):
            return None
        if self.options.cheap_score == POOLED:
            return cosines(
                np.concatenate(run.text_vectors), np.stack([vectors[index] for index in range(len(items.videos))])
            )
        return read_cheap_scores(self.options.cheap_score, items.texts, [name for name, _ in items.videos])

    def _fingerprint(
        self, model: nn.Module, weights: str, items: FusionItems, cheap: npt.NDArray[np.float32] | None
    ) -> str:
        """Return a hash of everything that scores depend on."""
        section = section_of(self.config, "model")
        options = asdict(self.options)
        content = {
            "version": mmpt.__version__,
            "model": type(model).__name__,
            "settings": OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else section,
            "weights": weights,
            "items": items.digest(),
            "cheap": None if cheap is None else hashlib.sha256(cheap.tobytes()).hexdigest(),
            **{key: options[key] for key in ("pairs_per_batch", "rerank_top_k", "states_dtype", "unique_videos")},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def _finish(
        self,
        plan: PairPlan,
        items: FusionItems,
        cheap: npt.NDArray[np.float32] | None,
        scored: Mapping[Any, npt.NDArray[np.float32]],
        output_file: str,
    ) -> dict[str, Any]:
        if cheap is None:
            scores = np.empty((plan.texts, len(items.videos)), dtype=np.float32)
        else:
            scores = behind(cheap, np.concatenate(list(scored.values())))
        for block in plan.blocks():
            scores[plan.pairs_of(block)] = scored[block]
        arrays: dict[str, np.ndarray] = {
            "target": items.target,
            "ids": np.array([name for name, _ in items.videos], dtype=str),
            "texts": np.array(items.texts, dtype=str),
        }
        save_arrays(self.save_path / f"{output_file}.npy", scores=scores)
        save_arrays(self.save_path / PAIRS, **arrays)
        (self.save_path / EMBEDDINGS).unlink(missing_ok=True)  # of an earlier test, by another predictor
        return {"outputs": scores, **arrays}


def _check_fuses(model: nn.Module) -> None:
    """Raise ConfigError for a model that does not fuse."""
    if "fusion" not in getattr(model, "capabilities", ()):
        raise ConfigError(
            f"predictor: FusionRetrievalPredictor needs a model that fuses videos and texts; {type(model).__name__} "
            "encodes them apart: use RetrievalPredictor"
        )


@contextmanager
def _scoring(model: nn.Module) -> Iterator[None]:
    """Run a model without dropout and gradients; a loader draws from torch's generator, which is put back."""
    with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        yield
