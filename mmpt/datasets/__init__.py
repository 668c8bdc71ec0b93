"""Datasets: meta, video and text processor and an aligner put together, one item at a time."""

__all__: list[str] = []
