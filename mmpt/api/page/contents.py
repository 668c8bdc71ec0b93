"""What a page is made of: models, indexes and demo videos, and what could not be loaded."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.api.capability import MissingCapabilityError, require_call
from mmpt.api.page.shelf import Shelf
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.api.search import ClipIndex
from mmpt.api.search.layout import IndexSettings, recorded_model
from mmpt.utils.errors import ConfigError, MMPTError

__all__ = ["Contents", "Failure", "Limits", "load_models", "named_roots", "named_sources", "open_indexes"]


@dataclass(frozen=True)
class Limits:
    """Bounds of what visitors may do, and of what is made for them.

    Attributes:
        seconds: of a video that is uploaded or that a model is asked about.
        upload_mb: of an upload.
        uploads: files that are kept at a time.
        keep_minutes: for which they are kept.
        total_mb: of all of them.
        labels: that are scored, or options that are chosen among, at a time.
        label_letters: of each.
        text_letters: of a question, or of what is searched.
    """

    seconds: float = 600
    upload_mb: int = 200
    uploads: int = 100
    keep_minutes: float = 120
    total_mb: int = 2000
    labels: int = 50
    label_letters: int = 200
    text_letters: int = 1000


class Failure(NamedTuple):
    """What could not be loaded, such as ``model one``, from where, and why; visitors are told the first alone."""

    what: str
    source: str
    why: str

    def __str__(self) -> str:
        """Return all of it in a line."""
        return f"{self.what} ({self.source}): {self.why}"


@dataclass
class Contents:
    """Models, demo videos and indexes by name, and the shelf of what is played; ``failures`` are not loaded."""

    models: Mapping[str, VideoTextPipeline]
    shelf: Shelf
    demo: Mapping[str, Path] = field(default_factory=dict)
    indexes: Mapping[str, ClipIndex] = field(default_factory=dict)
    failures: Sequence[Failure] = ()
    limits: Limits = field(default_factory=Limits)

    def able(self, *calls: str) -> list[str]:
        """Return the names of the models that answer one of the calls."""
        return [name for name, pipeline in self.models.items() if not pipeline.calls.isdisjoint(calls)]

    def why_not(self, call: str) -> str:
        """Return why no loaded model answers a call, and which systems do."""
        for pipeline in self.models.values():
            try:
                require_call(pipeline, call)
            except MissingCapabilityError as error:
                return str(error)
        return "no model is loaded: mmpt app --model NAME=SOURCE"


def named_sources(given: Sequence[str], option: str = "--model") -> dict[str, str]:
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
            raise ConfigError(f"{option}: two are called {name!r}; name them: {option} NAME={source}")
        found[name] = source
    return found


def named_roots(given: Sequence[str], indexes: Sequence[str]) -> dict[str, list[str]]:
    """Return name of an index -> folders of its videos, of ``NAME=DIR`` or, if there is one index, ``DIR``.

    Raises:
        ConfigError: if it is not said of which index a folder is, or it is none.
    """
    found: dict[str, list[str]] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or name not in indexes:
            name, folder = (indexes[0], text) if len(indexes) == 1 else ("", text)
        if not name:
            raise ConfigError(f"--index-root {text}: of which index? Say --index-root NAME=DIR")
        if not Path(folder).is_dir():
            raise ConfigError(f"--index-root {folder}: no such folder")
        found.setdefault(name, []).append(folder)
    return found


def _is_wide(root: str) -> bool:
    """Tell whether a folder holds what nobody means to show: the root, the home folder, or one above it."""
    real = os.path.realpath(root)
    home = os.path.realpath(os.path.expanduser("~"))
    return os.path.commonpath([real, home]) == real


def load_models(sources: Mapping[str, str], **options: Any) -> tuple[dict[str, VideoTextPipeline], list[Failure]]:
    """Load models; return those that could be loaded, and those that could not."""
    loaded: dict[str, VideoTextPipeline] = {}
    failures = []
    for name, source in sources.items():
        try:
            loaded[name] = VideoTextPipeline.from_pretrained(source, **options)
        except MMPTError as error:
            failures.append(Failure(f"model {name}", source, str(error)))
    return loaded, failures


def open_indexes(
    folders: Mapping[str, str],
    models: dict[str, VideoTextPipeline],
    roots: Mapping[str, Sequence[str]] | None = None,
    **options: Any,
) -> tuple[dict[str, ClipIndex], list[Failure]]:
    """Open indexes of clips, each with the model it was made with; one that is not among ``models`` is added to them.

    Args:
        folders: name -> folder of the index.
        models: those that are loaded.
        roots: name -> where its videos are; of others the index is believed, unless it names ``/``, the home folder
            or one above it.
        options: of :meth:`~mmpt.api.pipeline.VideoTextPipeline.from_pretrained`.

    Returns:
        the indexes that could be opened, and those that could not.
    """
    opened: dict[str, ClipIndex] = {}
    failures = []
    for name, folder in folders.items():
        try:
            made_with, given = IndexSettings.read(Path(folder)), (roots or {}).get(name)
            if given is None and (wide := next(filter(_is_wide, made_with.roots), None)):
                raise ConfigError(
                    f"says that its videos are anywhere below {wide}, which is too much to be played on its word: say "
                    f"where they are: --index-root {name}=DIR"
                )
            alike = (
                one for one in models.values() if "index" in one.calls and one.fingerprint() == made_with.fingerprint
            )
            pipeline = next(alike, None) or VideoTextPipeline.from_pretrained(
                recorded_model(made_with, Path(folder)), **options
            )
            opened[name] = ClipIndex.open(folder, pipeline, given)
            if pipeline not in models.values():
                models[name if name not in models else f"{name} (index)"] = pipeline
        except MMPTError as error:
            failures.append(Failure(f"index {name}", folder, str(error)))
    return opened, failures
