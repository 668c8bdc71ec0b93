"""The model card of a saved model: what it is, how it was trained and tested, how it is used, under which licence."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from mmpt.api.saved_config import inference_config
from mmpt.evaluators.results import baselines_of, collect_results
from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open, read_json, write_json

__all__ = ["FACTS_FILE", "CardFacts", "found_metrics", "read_facts", "write_card"]

#: What a card says that weights and settings do not, for the card of a copy.
FACTS_FILE = "card.json"

_PAPERS = {
    "VideoCLIP": "2109.14084",
    "VLM": "2105.09996",
    "VIOLET": "2111.12681",
    "LAVENDER": "2206.07160",
    "MERLOT": "2106.02636",
    "MERLOT Reserve": "2201.02639",
}
_PIPELINE_TAGS = (("caption", "video-text-to-text"), ("answer", "visual-question-answering"))
#: Numbers of a test that measure no model, beside baselines.
_COUNTS = ("count", "skipped", "unreachable")
#: Folders in which the shipped projects have corpora, and what those are called.
_CORPORA = {
    "coin": "COIN",
    "crosstask": "CrossTask",
    "didemo": "DiDeMo",
    "how2": "HowTo100M",
    "lsmdc": "LSMDC",
    "msrvtt": "MSR-VTT",
    "msvd": "MSVD",
    "tgif": "TGIF-QA",
    "tvqa": "TVQA",
    "vcr": "VCR",
    "vist": "VIST",
    "youcook": "YouCook2",
    "yttemporal180m": "YT-Temporal-180M",
    "yttemporal1b": "YT-Temporal-1B",
}
_TRAINING = (
    "optimization.lr",
    "optimization.max_epoch",
    "optimization.max_update",
    "dataset.batch_size",
    "common.seed",
)


@dataclass(frozen=True)
class CardFacts:
    """What a card says of a model beyond its weights and settings.

    Attributes:
        licence: of the weights; None: not known.
        metrics: numbers of tests, by the name of the test.
        corpus: that it was trained on, by name; None: not known.
        training: lines on data and training.
    """

    licence: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    corpus: str | None = None
    training: tuple[str, ...] = ()


def read_facts(folder: Path) -> CardFacts:
    """Return what a saved folder keeps for the cards of its copies; nothing where an earlier version saved it.

    Raises:
        DataError: if its file is damaged.
    """
    file = folder / FACTS_FILE
    if not file.is_file():
        return CardFacts()
    known = read_json(file)
    licence, corpus = (known.get("licence"), known.get("corpus")) if isinstance(known, dict) else (0, 0)
    if not isinstance(licence, str | None) or not isinstance(corpus, str | None):
        raise DataError(f"{file}: holds no facts of a model card; remove it, or save the model again")
    metrics, training = known.get("metrics"), known.get("training")
    return CardFacts(
        licence,
        metrics if isinstance(metrics, dict) else {},
        corpus,
        tuple(map(str, training)) if isinstance(training, list) else (),
    )


def write_card(pipeline: Any, file: Path, name: str, licence: str | None, metrics: Mapping[str, Any] | None) -> None:
    """Write the card, and its facts beside it.

    ``licence`` and ``metrics`` are by default those of the saved folder that the model is of; ``metrics`` of a run are
    by default those of the tests found beside it.
    """
    kept: CardFacts = pipeline.facts
    if metrics is None:
        metrics = kept.metrics if pipeline.saved else found_metrics(pipeline.folder)
    facts = CardFacts(
        licence or kept.licence,
        dict(metrics),
        _corpus(pipeline) or kept.corpus,
        tuple(_training(pipeline)) or kept.training,
    )
    write_json(file.with_name(FACTS_FILE), asdict(facts))
    with atomic_open(file) as card:
        card.write(f"---\n{yaml.safe_dump(_front_matter(pipeline, facts), sort_keys=False)}---\n\n")
        card.write("\n\n".join(_sections(pipeline, name, facts)) + "\n")


def found_metrics(folder: Path | None) -> dict[str, Any]:
    """Return the metrics of the tests in or below a run folder, by the name of the job.

    Raises:
        DataError: if a ``metrics.json`` is damaged.
    """
    results = [] if folder is None else collect_results([folder])[0]
    return {result.name.rpartition("/")[2]: dict(result.metrics) for result in results}


def _front_matter(pipeline: Any, facts: CardFacts) -> dict[str, Any]:
    tag = next((tag for call, tag in _PIPELINE_TAGS if call in pipeline.calls), "feature-extraction")
    found: dict[str, Any] = {"license": facts.licence} if facts.licence else {}
    found |= {
        "library_name": "mmpt",
        "pipeline_tag": tag,
        "tags": ["video", "video-text", pipeline.system.lower().replace(" ", "-")],
        "language": ["en"],
    }
    if facts.corpus:
        found["datasets"] = [facts.corpus]
    tests = [values for values in facts.metrics.values() if isinstance(values, Mapping)]
    keys = sorted({key for values in tests for key in _numbers(values) if key in values and _is_metric(key)})
    return found | ({"metrics": keys} if keys else {})


def _is_metric(name: str) -> bool:
    """Tell whether a number of a test measures the model."""
    return name not in _COUNTS and not name.endswith(("chance", "_ci")) and not baselines_of({name: 0.0})


def _corpus(pipeline: Any) -> str | None:
    """Return the corpus that a job's list lies in, None where its path does not tell."""
    listed = OmegaConf.select(pipeline.config, "dataset.train_path")
    folders = Path(str(listed or "")).parent.parts
    return next((corpus for folder, corpus in _CORPORA.items() if folder in folders and "demo" not in folders), None)


def _sections(pipeline: Any, name: str, facts: CardFacts) -> list[str]:
    parameters = sum(one.numel() for one in pipeline.model.parameters())
    paper = _PAPERS.get(pipeline.system)
    settings = OmegaConf.to_yaml(inference_config(pipeline.config)).rstrip()
    told = f" ([arXiv:{paper}](https://arxiv.org/abs/{paper}))" if paper else ""
    asked = "" if facts.licence else " No licence was named when it was saved: ask its author before you use it."
    return [
        f"# {name.rpartition('/')[2]}",
        f"A {pipeline.system} model{told}, `{type(pipeline.model).__name__}` with {parameters:,} parameters, trained "
        f"and saved with MMPT.{asked}",
        f"It answers: {', '.join(sorted(pipeline.calls))}.",
        "## How to load it\n\n```python\nfrom mmpt.api import VideoTextPipeline\n\n"
        f'pipeline = VideoTextPipeline.from_pretrained("{name}")  # this folder, or its hub id\n```',
        *_data(pipeline, facts),
        *_results(facts.metrics),
        f"## Settings\n\n```yaml\n{settings}\n```",
    ]


def _training(pipeline: Any) -> list[str]:
    """Return what the settings of a run say of its data and training."""
    lines = []
    listed = OmegaConf.select(pipeline.config, "dataset.train_path")
    if listed:
        corpus = _corpus(pipeline)
        lines.append(f"* trained on the items of `{Path(str(listed)).name}`{f' of {corpus}' if corpus else ''}")
    for key in _TRAINING:
        value = OmegaConf.select(pipeline.config, f"fairseq.{key}")
        if value is not None:
            lines.append(f"* {key.rpartition('.')[2]}: {value}")
    return lines


def _data(pipeline: Any, facts: CardFacts) -> list[str]:
    lines = list(facts.training)
    if pipeline.provenance:
        features = {key: value for key, value in pipeline.provenance.items() if key != "decoder"}
        lines.append(f"* features of video: `{json.dumps(features, sort_keys=True)}`")
    return ["## Data and training\n\n" + "\n".join(lines)] if lines else []


def _results(metrics: Mapping[str, Any]) -> list[str]:
    rows = []
    for test, values in metrics.items():
        given = _numbers(values) if isinstance(values, Mapping) else _numbers({test: values})
        rows += [f"| {test} | {key} | {value:.4g} |" for key, value in given.items()]
    return ["## Results\n\n| test | metric | value |\n|---|---|---|\n" + "\n".join(rows)] if rows else []


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a ``metrics.json``, those of nested mappings under ``outer.inner``."""
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": number for inner, number in _numbers(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[str(key)] = float(value)
    return found
