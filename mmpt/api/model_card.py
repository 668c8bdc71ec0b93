"""The model card of a saved model: what it is, how it was trained and tested, how it is used, under which licence."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from mmpt.api.saved_config import inference_config
from mmpt.utils.files import atomic_open, read_json

__all__ = ["found_metrics", "write_card"]

_PAPERS = {
    "VideoCLIP": "2109.14084",
    "VLM": "2105.09996",
    "VIOLET": "2111.12681",
    "LAVENDER": "2206.07160",
    "MERLOT": "2106.02636",
    "MERLOT Reserve": "2201.02639",
}
_PIPELINE_TAGS = (("caption", "video-text-to-text"), ("answer", "visual-question-answering"))
_METRICS = "metrics.json"
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


def write_card(pipeline: Any, file: Path, name: str, licence: str | None, metrics: Mapping[str, Any] | None) -> None:
    """Write the card; ``metrics`` by default those of the tests found beside the run."""
    numbers = dict(found_metrics(pipeline.folder) if metrics is None else metrics)
    with atomic_open(file) as card:
        card.write(f"---\n{yaml.safe_dump(_front_matter(pipeline, licence, numbers), sort_keys=False)}---\n\n")
        card.write("\n\n".join(_sections(pipeline, name, licence, numbers)) + "\n")


def found_metrics(folder: Path | None) -> dict[str, Any]:
    """Return the contents of the ``metrics.json`` of tests in or below a run folder, by the name of the test."""
    if folder is None:
        return {}
    files = [file for file in (folder / _METRICS, *sorted(folder.glob(f"*/{_METRICS}"))) if file.is_file()]
    return {file.parent.name: read_json(file) for file in files}


def _front_matter(pipeline: Any, licence: str | None, metrics: Mapping[str, Any]) -> dict[str, Any]:
    tag = next((tag for call, tag in _PIPELINE_TAGS if call in pipeline.calls), "feature-extraction")
    found: dict[str, Any] = {"license": licence} if licence else {}
    found |= {
        "library_name": "mmpt",
        "pipeline_tag": tag,
        "tags": ["video", "video-text", pipeline.system.lower().replace(" ", "-")],
        "language": ["en"],
    }
    if corpus := _corpus(pipeline):
        found["datasets"] = [corpus]
    keys = sorted({key for values in metrics.values() if isinstance(values, Mapping) for key in _numbers(values)})
    return found | ({"metrics": keys} if keys else {})


def _corpus(pipeline: Any) -> str | None:
    """Return the corpus that a job's list lies in, None where its path does not tell."""
    listed = OmegaConf.select(pipeline.config, "dataset.train_path")
    folders = Path(str(listed or "")).parent.parts
    return next((corpus for folder, corpus in _CORPORA.items() if folder in folders and "demo" not in folders), None)


def _sections(pipeline: Any, name: str, licence: str | None, metrics: Mapping[str, Any]) -> list[str]:
    parameters = sum(one.numel() for one in pipeline.model.parameters())
    paper = _PAPERS.get(pipeline.system)
    settings = OmegaConf.to_yaml(inference_config(pipeline.config)).rstrip()
    told = f" ([arXiv:{paper}](https://arxiv.org/abs/{paper}))" if paper else ""
    asked = "" if licence else " No licence was named when it was saved: ask its author before you use it."
    return [
        f"# {name.rpartition('/')[2]}",
        f"A {pipeline.system} model{told}, `{type(pipeline.model).__name__}` with {parameters:,} parameters, trained "
        f"and saved with MMPT.{asked}",
        f"It answers: {', '.join(sorted(pipeline.calls))}.",
        "## How to load it\n\n```python\nfrom mmpt.api import VideoTextPipeline\n\n"
        f'pipeline = VideoTextPipeline.from_pretrained("{name}")  # this folder, or its hub id\n```',
        *_data(pipeline),
        *_results(metrics),
        f"## Settings\n\n```yaml\n{settings}\n```",
    ]


def _data(pipeline: Any) -> list[str]:
    lines = []
    listed = OmegaConf.select(pipeline.config, "dataset.train_path")
    if listed:
        corpus = _corpus(pipeline)
        lines.append(f"* trained on the items of `{Path(str(listed)).name}`{f' of {corpus}' if corpus else ''}")
    for key in _TRAINING:
        value = OmegaConf.select(pipeline.config, f"fairseq.{key}")
        if value is not None:
            lines.append(f"* {key.rpartition('.')[2]}: {value}")
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
