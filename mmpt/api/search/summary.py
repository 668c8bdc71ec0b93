"""What a run of indexing did."""

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["IndexSummary"]


@dataclass
class IndexSummary:
    """Counts of videos of one run, and of all clips that the index then has; ``failures`` are (path, reason) pairs.

    ``failed_before`` counts the videos that an earlier run could not index and that have not changed since.
    """

    added: int = 0
    replaced: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    failed_before: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    videos: int = 0
    clips: int = 0
    seconds: float = 0.0

    @property
    def failed_fraction(self) -> float:
        """Share of the videos of the folders that could not be indexed, 0 to 1."""
        failed = len(self.failures) + self.failed_before
        return failed / max(1, failed + self.added + self.replaced + self.moved + self.unchanged)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        return asdict(self)

    def describe(self, most: int = 20) -> str:
        """Return the closing lines: counts, then the reasons of at most ``most`` videos."""
        lines = [
            f"added {self.added}, replaced {self.replaced}, moved {self.moved}, removed {self.removed}, "
            f"unchanged {self.unchanged}, failed {len(self.failures)}, failed before {self.failed_before}; "
            f"{self.videos} videos, {self.clips} clips"
        ]
        lines += [f"  failed: {path}: {reason}" for path, reason in self.failures[:most]]
        if len(self.failures) > most:
            lines.append(f"  failed: {len(self.failures) - most} more")
        if self.failed_before:
            lines.append("  failed before: not tried again until they change, or with --retry-failed")
        return "\n".join(lines)
