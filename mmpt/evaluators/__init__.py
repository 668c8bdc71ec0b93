"""Evaluators: predictors run a model over a test set, metrics turn that into numbers, reports show them."""

from mmpt.evaluators.batch_predictor import BatchPredictor
from mmpt.evaluators.didemo_predictor import DiDeMoPredictor
from mmpt.evaluators.evaluator import Evaluator
from mmpt.evaluators.metrics import DiDeMoMetric, RetrievalMetric
from mmpt.evaluators.retrieval_predictor import RetrievalPredictor

__all__ = [
    "BatchPredictor",
    "DiDeMoMetric",
    "DiDeMoPredictor",
    "Evaluator",
    "RetrievalMetric",
    "RetrievalPredictor",
]
