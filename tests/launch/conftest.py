"""The small corpus and pre-training of the tests of training, for those that launch it."""

from tests.tasks.conftest import pretraining_config, tiny_corpus

__all__ = ["pretraining_config", "tiny_corpus"]
