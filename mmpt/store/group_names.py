"""What entries of a segment store are called that are groups of a video's segments, and of which video they are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["IMPORT_TOOL", "EntryNames", "videos_of"]

#: Names the import of published records as the producer of a store.
IMPORT_TOOL = "import_tfrecords"
#: Behind the video: the number of the first chunk or its second, and which of that name the entry is.
_SUFFIX = re.compile(r"_\d{5,}(?:_[1-9]\d{0,3})?$")


@dataclass
class EntryNames:
    """Names of entries that no other has."""

    taken: set[str] = field(default_factory=set)

    def unique(self, name: str) -> str:
        """Return a name, with a number behind it if it was given out before."""
        chosen, number = name, 1
        while chosen in self.taken:
            number += 1
            chosen = f"{name}_{number}"
        self.taken.add(chosen)
        return chosen


def videos_of(ids: Sequence[str], producer: Mapping[str, Any]) -> list[str]:
    """Return the video of each entry of a segment store: of an imported one several entries may be of one video.

    Args:
        ids: of the entries.
        producer: what made the store.
    """
    if producer.get("tool") != IMPORT_TOOL:
        return list(ids)
    return [_SUFFIX.sub("", name) for name in ids]
