"""What compared trainings have in common, and what not: read from their settings, their files and their logs.

Every quantity is looked up for every training. Those that a comparison is to hold equal are judged: one that differs is
said loudly. The others are what makes the systems what they are; they are listed with the reason.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmpt.evaluators.comparison import Comparison, Training
from mmpt.utils.files import read_json, resolve_path

__all__ = ["QUANTITIES", "Quantity", "Term", "terms_json", "terms_of", "terms_table"]


#: Systems take the same time if the fastest, by the mean over its seeds, has this share of the slowest's.
_SAME_TIME = 0.9


@dataclass(frozen=True)
class Quantity:
    """One quantity: what it is called, how it is read of a training, and why it differs where it may (else "")."""

    name: str
    read: Callable[[Training], str]
    why: str = ""


@dataclass(frozen=True)
class Term:
    """A quantity of all systems: ``values`` system -> value, ``expected`` whether it is to be equal."""

    name: str
    values: Mapping[str, str]
    expected: bool
    why: str = ""

    @property
    def equal(self) -> bool:
        """Whether all systems have the same."""
        return len(set(self.values.values())) == 1

    @property
    def broken(self) -> bool:
        """Whether it is to be equal and is not."""
        return self.expected and not self.equal


def _at(*keys: str) -> Callable[[Training], str]:
    """Return a reader of the first of several keys that is set."""

    def read(training: Training) -> str:
        values = (OmegaConf.select(training.config, key) for key in keys)
        found = next((value for value in values if value is not None), None)
        return "-" if found is None else _plain(found)

    return read


def _plain(value: Any) -> str:
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return f"{value:g}" if isinstance(value, float) else str(value)


def _optional(training: Training, key: str, default: Any = None) -> Any:
    value = OmegaConf.select(training.config, key)
    return default if value is None else value


def _listed(training: Training) -> tuple[dict[str, None], int]:
    """Return the training videos that a training lists, and how many rows it has of them (0: a list of ids)."""
    path = _optional(training, "dataset.train_path")
    file = resolve_path(str(path)) if path else None
    if file is None or not file.is_file():
        return {}, 0
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if file.suffix != ".jsonl":
        return dict.fromkeys(lines), 0
    rows = [json.loads(line) for line in lines]
    trained = [row for row in rows if row.get("split", "train").startswith("train")]
    column = _optional(training, "dataset.columns.video", "video")
    return dict.fromkeys(row[column] for row in trained), len(trained)


def _videos(training: Training) -> str:
    videos, _ = _listed(training)
    if not videos:
        return "not known"
    digest = hashlib.sha256("\n".join(sorted(videos)).encode()).hexdigest()[:8]
    return f"{len(videos)} videos (ids {digest})"


def _pairs(training: Training) -> str:
    """Return how many pairs of a clip and a text an update sees, on all workers."""
    batch = int(_optional(training, "fairseq.dataset.batch_size", 0))
    frequency = _optional(training, "fairseq.optimization.update_freq", [1])
    each = int(frequency[0]) if not isinstance(frequency, int) else frequency
    aligner = str(_optional(training, "dataset.aligner", ""))
    if _optional(training, "dataset.num_video_per_batch"):
        batch *= int(training.config.dataset.num_video_per_batch) * int(training.config.dataset.clip_per_video)
    elif aligner.startswith("MERLOT"):
        batch *= int(_optional(training, "dataset.num_chunks", 1))
    elif aligner.startswith("Reserve"):
        batch *= int(_optional(training, "dataset.num_segments", 1))
    return str(batch * each * training.workers)


def _updates(training: Training) -> str:
    return "not logged" if training.updates is None else str(training.updates)


def _bert(training: Training, key: str) -> Any:
    """Return a size of the BERT that a config names; None where it names none that is there."""
    name = _optional(training, "dataset.bert_name")
    file = resolve_path(Path(str(name)) / "config.json") if name else None
    return read_json(file).get(key) if file is not None and file.is_file() else None


def _size(key: str, of_bert: str) -> Callable[[Training], str]:
    def read(training: Training) -> str:
        value = _optional(training, f"model.{key}")
        return str(_bert(training, of_bert) if value is None else value)

    return read


def _layers(training: Training) -> str:
    for key in ("model.num_layers", "model.joint_layers"):
        if _optional(training, key) is not None:
            return str(_optional(training, key))
    return str(_bert(training, "num_hidden_layers"))


def _resolution(training: Training) -> str:
    if _optional(training, "dataset.vfeat_dir"):
        return "features"
    grid, size = _optional(training, "dataset.image_grid"), _optional(training, "dataset.image_size")
    sides = [16 * int(side) for side in grid] if grid else [int(size)] * 2 if isinstance(size, int) else size
    return " x ".join(map(str, sides)) if sides else "-"


def _input(training: Training) -> str:
    features = _optional(training, "dataset.vfeat_dir")
    if features:
        return f"one feature a second of {Path(str(features)).name}, of a frozen encoder"
    if _optional(training, "dataset.frame_path"):
        return f"{_optional(training, 'dataset.num_frames')} frames of a clip"
    many = _optional(training, "dataset.num_segments") or _optional(training, "dataset.num_chunks")
    reserve = str(_optional(training, "dataset.aligner", "")).startswith("Reserve")
    sound = reserve and _optional(training, "dataset.use_audio", True)
    return f"a frame of each of {many} segments of a video" + (", and its sound" if sound else "")


def _tokens(training: Training) -> str:
    given = _optional(training, "dataset.tokenizer")
    return f"subwords ({Path(str(given)).name})" if given else "word pieces (BERT)"


def _parameters(training: Training) -> str:
    return "not known" if training.parameters is None else f"{training.parameters:,}"


def _optimizer(training: Training) -> str:
    names = ("optimizer", "lr", "lr_scheduler", "warmup_share", "adam_betas", "adam_eps", "weight_decay", "clip_norm")
    section = _optional(training, "fairseq.optimization", OmegaConf.create())
    return ", ".join(f"{name} {_plain(section[name])}" for name in names if section.get(name) is not None)


def _apart(training: Training) -> str:
    """Return which weights the section ``optim`` sets apart; factors of a weight decay of 0 do not count."""
    keys = ["freeze", "lr_multipliers", "layer_decay"]
    if _optional(training, "fairseq.optimization.weight_decay", 0.0):
        keys.append("weight_decay_multipliers")
    given = {key: _optional(training, f"optim.{key}") for key in keys}
    return ", ".join(f"{key} {_plain(value)}" for key, value in given.items() if value) or "none"


def _precision(training: Training) -> str:
    common = _optional(training, "fairseq.common", OmegaConf.create())
    return next((name for name in ("fp16", "bf16") if common.get(name)), "fp32")


#: Held equal, the budget apart (:func:`_budget`); and, with a reason, what is not to be.
QUANTITIES = (
    Quantity("training videos", _videos),
    Quantity("hours allowed", _at("fairseq.optimization.stop_time_hours")),
    Quantity("pairs of clip and text per update", _pairs),
    Quantity("optimizer", _optimizer),
    Quantity("not trained, or at another rate", _apart),
    Quantity("precision", _precision),
    Quantity("width", _size("hidden_size", "hidden_size")),
    Quantity("layers of the (joint) transformer", _layers),
    Quantity("updates made", _updates, "of a budget of time each system makes what it can"),
    Quantity("resolution", _resolution, "features are of the resolution of their encoder"),
    Quantity("input", _input, "what a system sees is part of its design"),
    Quantity("tokens", _tokens, "each system has its own tokenizer; all are made of the words of the same corpus"),
    Quantity("vocabulary", _size("vocab_size", "vocab_size"), "follows from the tokenizer"),
    Quantity("parameters", _parameters, "encoders of frames and sound, and the heads of an objective, add to them"),
    Quantity("model", _at("model.model_cls"), "the objective needs its own model"),
    Quantity("objective", _at("loss.loss_cls"), "this is what is compared"),
    Quantity("initial weights", _at("model.initializer_range"), "each as in its own small demo; empty: of the BERT"),
)


def terms_of(comparison: Comparison) -> list[Term]:
    """Return every quantity of all systems: those to be held equal, those of the tests, then the others."""
    terms = _budget(comparison)
    for quantity in QUANTITIES:
        values = {system: _joined(map(quantity.read, comparison.of(system))) for system in comparison.systems}
        terms.append(Term(quantity.name, values, not quantity.why, quantity.why))
    seeds = {system: ", ".join(str(one.seed) for one in comparison.of(system)) for system in comparison.systems}
    held = [term for term in terms if term.expected] + [Term("seeds", seeds, True)] + _of_tests(comparison)
    return held + [term for term in terms if not term.expected]


def _budget(comparison: Comparison) -> list[Term]:
    """Return updates and seconds of training: one of the two is to be equal, and the other follows from it.

    Seconds are never the same twice: they count as equal if the system with the fewest has nine tenths of the most.
    """
    read = _at("fairseq.optimization.max_update")
    systems = comparison.systems
    allowed = {system: _joined(map(read, comparison.of(system))) for system in systems}
    updates = Term("updates allowed", allowed, True)
    walls = {system: [one.wall for one in comparison.of(system) if one.wall is not None] for system in systems}
    if updates.equal or sum(map(len, walls.values())) < len(comparison.trainings):
        seconds = {system: _joined(f"{wall:.0f}" for wall in own) for system, own in walls.items()}
        return [updates, Term("seconds of training", seconds, False, "the budget is of updates; this is their cost")]
    means = {system: sum(own) / len(own) for system, own in walls.items()}
    least, most = min(means.values()), max(means.values())
    within = least >= _SAME_TIME * most
    held = Term(
        "seconds of training",
        {system: f"{least:.0f} to {most:.0f}" if within else f"{mean:.0f}" for system, mean in means.items()},
        True,
    )
    if not within:
        return [updates, held]
    return [held, Term("updates allowed", allowed, False, "the budget is of time: as many as fit into it")]


def _of_tests(comparison: Comparison) -> list[Term]:
    terms = []
    for test in dict.fromkeys(test for own in comparison.tests.values() for test in own):
        for title, key in (("file", "dataset.test_path"), ("items", "count"), ("candidates", "candidates")):
            values = {}
            for system in comparison.systems:
                found = comparison.tests[system].get(test, [])
                said = [
                    _plain(OmegaConf.select(_config(one.record), key) if "." in key else one.metrics.get(key, "-"))
                    for one in found
                ]
                values[system] = _joined(said)
            terms.append(Term(f"test {test}: {title}", values, True))
        settings = {
            system: _joined(one.setting for one in own.get(test, [])) for system, own in comparison.tests.items()
        }
        terms.append(Term(f"test {test}: setting", settings, True))
    return [term for term in terms if set(term.values.values()) != {"-"}]


def _config(record: Mapping[str, Any]) -> DictConfig:
    config = OmegaConf.create(dict(record.get("config") or {}))
    assert isinstance(config, DictConfig)
    return config


def _joined(values: Any) -> str:
    return " / ".join(dict.fromkeys(values)) or "-"


def terms_table(terms: Sequence[Term], systems: Sequence[str]) -> list[list[str]]:
    """Return rows of text, headings first: quantity, verdict, and the value of all or of each system."""
    rows = [["quantity", "equal", "value"]]
    for term in terms:
        verdict = "yes" if term.equal else "NO, AND SHOULD BE" if term.broken else "no"
        by_value: dict[str, list[str]] = {}
        for system in systems:
            by_value.setdefault(term.values.get(system, "-"), []).append(system)
        each = "; ".join(f"{', '.join(names)}: {value}" for value, names in by_value.items())
        rows.append([term.name, verdict, next(iter(by_value)) if term.equal else each])
    return rows


def terms_json(terms: Sequence[Term]) -> list[dict[str, Any]]:
    """Return the terms as plain data."""
    return [
        {"name": one.name, "to_be_equal": one.expected, "equal": one.equal, "why": one.why, "values": dict(one.values)}
        for one in terms
    ]
