"""Processors: what turns ids into features and token ids, and aligners that turn both into model inputs."""

__all__: list[str] = []
