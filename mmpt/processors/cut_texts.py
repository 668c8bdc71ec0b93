"""A count of texts that lose something on their way to the model, told while the data are read."""

import logging
import os

__all__ = ["CutTexts"]

logger = logging.getLogger(__name__)


class CutTexts:
    """Count texts, and those of which a part is lost; warn at the 1st, 10th, 100th .. of them.

    A data set has no end at which to report: each process that reads it counts for itself.

    Args:
        what: what has happened to such a text, and what to do about it: ``are longer than dataset.max_text_len``.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.texts = self.cut = 0
        self._process = os.getpid()

    def add(self, lost: bool, example: str) -> None:
        """Count one text; ``example`` names it, and what it has lost."""
        if self._process != os.getpid():  # a data worker begins with the counts of its parent
            self.texts, self.cut, self._process = 0, 0, os.getpid()
        self.texts += 1
        if not lost:
            return
        self.cut += 1
        if str(self.cut).strip("0") == "1":
            logger.warning("%d of %d texts so far %s; the last: %s", self.cut, self.texts, self.what, example)
