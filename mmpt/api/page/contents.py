"""What a page is made of: models, indexes and demo videos, and what could not be loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.api.page.shelf import Shelf
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.utils.errors import ConfigError, MMPTError

__all__ = ["Contents", "load_models", "named_sources"]


@dataclass
class Contents:
    """Models by name, demo videos by name, the shelf of what is played, and limits; ``failures`` are one line each."""

    models: Mapping[str, VideoTextPipeline]
    shelf: Shelf
    demo: Mapping[str, Path] = field(default_factory=dict)
    failures: Sequence[str] = ()
    max_seconds: float = 600
    max_upload_mb: int = 200

    def able(self, call: str) -> list[str]:
        """Return the names of the models that answer a call."""
        return [name for name, pipeline in self.models.items() if call in pipeline.calls]


def named_sources(given: Sequence[str]) -> dict[str, str]:
    """Return name -> source of ``NAME=SOURCE`` or ``SOURCE``, whose name is then the last part of its path.

    Raises:
        ConfigError: if two have one name.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, source = text.partition("=")
        if not equals or "/" in name:
            name, source = Path(text).name, text
        if name in found:
            raise ConfigError(f"--model: two models are called {name!r}; name them: --model NAME=SOURCE")
        found[name] = source
    return found


def load_models(sources: Mapping[str, str], **options: Any) -> tuple[dict[str, VideoTextPipeline], list[str]]:
    """Load models; return those that could be loaded, and a line for each that could not.

    Raises:
        MMPTError: if none could be loaded; says why of each.
    """
    loaded: dict[str, VideoTextPipeline] = {}
    failures = []
    for name, source in sources.items():
        try:
            loaded[name] = VideoTextPipeline.from_pretrained(source, **options)
        except MMPTError as error:
            failures.append(f"model {name} ({source}): {error}")
    if not loaded:
        raise MMPTError("no model could be loaded: " + ("; ".join(failures) or "name one with --model NAME=SOURCE"))
    return loaded, failures
