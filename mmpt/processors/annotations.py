"""What the processors of annotated corpora share: reading their lists, and leaving out what has no features."""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.utils import safe_pickle
from mmpt.utils.errors import ConfigError, DataError, nearest
from mmpt.utils.files import read_json, resolve_path
from mmpt.utils.options import read_options

__all__ = ["AnnotationOptions", "SkipReport", "features_of", "missing_field", "read_records", "safe_video_id"]

logger = logging.getLogger(__name__)

_EXAMPLES = 3
_NO_FILE_NAME = re.compile(r"[/\\\x00]|^\.|^$")


@dataclass
class AnnotationOptions:
    """``max_missing`` is the fraction of annotated items that may be unusable before the job fails."""

    vfeat_dir: str | None = None
    max_missing: float = 0.1


class SkipReport:
    """Count the items of an annotation file that are left out, by reason, and fail beyond a limit."""

    def __init__(self, source: str | os.PathLike[str], limit: float) -> None:
        if not 0.0 <= limit <= 1.0:
            raise ConfigError(f"dataset.max_missing: {limit} is not in [0, 1]")
        self.source, self.limit = source, limit
        self.examples: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.examples.values()))

    def add(self, reason: str, item: Any) -> None:
        """Count one item."""
        self.examples.setdefault(reason, []).append(str(item))

    def close(self, total: int) -> None:
        """Log what was left out of ``total`` items.

        Raises:
            DataError: if it is more than the limit, or everything; names reasons and examples.
        """
        if not total:
            raise DataError(f"{self.source}: lists no items")
        if not len(self):
            return
        reasons = "; ".join(
            f"{len(items)} {reason} (for example {', '.join(items[:_EXAMPLES])})"
            for reason, items in sorted(self.examples.items())
        )
        message = f"{self.source}: {len(self)} of {total} items are left out: {reasons}"
        if len(self) >= total or len(self) > self.limit * total:
            raise DataError(
                f"{message}. dataset.max_missing {self.limit} allows fewer: complete the data, or raise the limit"
            )
        logger.warning("%s", message)


def features_of(config: Any) -> Any:
    """Return the feature store of ``dataset.vfeat_dir``; None where it is not set.

    Raises:
        DataError: if there is no such folder.
    """
    from mmpt.store.features import FeatureStore

    vfeat_dir = read_options(config, AnnotationOptions).vfeat_dir
    return FeatureStore(str(resolve_path(vfeat_dir))) if vfeat_dir else None


def safe_video_id(video_id: Any, source: str | os.PathLike[str]) -> str:
    """Return a video id that names a file inside the feature folder and nowhere else.

    Raises:
        DataError: if it is not a string, is empty or holds a path; names the file.
    """
    if not isinstance(video_id, str) or _NO_FILE_NAME.search(video_id):
        raise DataError(f"{source}: {video_id!r} is not a video id: a file name without folders was expected")
    return video_id


def missing_field(source: str | os.PathLike[str], what: str, name: str, present: Iterable[Any]) -> DataError:
    """Return the error that says that a column or key is missing, and which is nearest."""
    there = [str(key) for key in present]
    return DataError(f"{source}: no {what} {name!r} (there is {', '.join(there) or 'none'}).{nearest(name, there)}")


def read_records(path: str | os.PathLike[str], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Read a list of dicts from a .json file or a .pkl (restricted: no code runs).

    Raises:
        DataError: if the file is anything else or empty, or a record lacks one of ``keys``; names file and key.
    """
    records = safe_pickle.load(path) if Path(path).suffix in (".pkl", ".pickle") else read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path}: expected a list of records with {', '.join(keys)}")
    if not records:
        raise DataError(f"{path}: lists no items")
    for number, record in enumerate(records):
        for key in keys:
            if key not in record:
                raise missing_field(f"{path}: record {number}", "key", key, record)
    return records
