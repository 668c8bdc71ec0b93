"""Published checkpoints of any format as safetensors, under this toolkit's names."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.api.job_files import read_job
from mmpt.api.loading import find_model, load_model
from mmpt.models.lavender_weights import published_names as lavender_names
from mmpt.models.merlot_weights import from_published as merlot_names
from mmpt.models.reserve_weights import is_published as is_reserve
from mmpt.models.reserve_weights import published_names as reserve_names
from mmpt.utils.checkpoint import LoadReport, load_into
from mmpt.utils.errors import CheckpointError, ConfigError
from mmpt.utils.files import file_sha256, resolve_path
from mmpt.utils.registry import build
from mmpt.utils.weight_files import checkpoint_file, load_state_dict_file, save_safetensors

__all__ = ["DTYPES", "Conversion", "convert", "convert_to_folder"]

#: Names of the types that floats can be written as.
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_MERLOT = "word_embeddings/word_embeddings"  # a variable of its TensorFlow files
_SWINBERT = "trans_encoder."


@dataclass(frozen=True)
class Conversion:
    """What was written: number of ``tensors`` and ``parameters``, tensors by ``dtypes``, and against a model, names.

    Attributes:
        layout: of the source: mmpt, or merlot, reserve or swinbert, whose names were changed.
        model: class of the config; None: the file was compared with none.
        missing: names that the model has and the file has not, and may.
        unexpected: names that the file has and the model does not take, and may leave.
    """

    source: str
    output: str
    layout: str
    tensors: int
    parameters: int
    dtypes: Mapping[str, int]
    model: str | None = None
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        return asdict(self)


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model_config: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    weights: str = "model",
    dtype: str = "float32",
    force: bool = False,
) -> Conversion:
    """Read a checkpoint (fairseq, a flat state dict, TensorFlow, Flax, safetensors) and write it as safetensors.

    Args:
        source: the checkpoint; of TensorFlow's its prefix.
        output: the file to write, ending in .safetensors.
        model_config: YAML of a job; the weights are loaded into its model, strictly, and written as that has them.
        overrides: ``key.sub=value`` settings of that job.
        weights: which of a training checkpoint's: ``model`` or ``ema``.
        dtype: of :data:`DTYPES`; whole numbers stay.
        force: replace a file that is there.

    Raises:
        CheckpointError: if the source cannot be read, does not fit the model, or the output is there already.
        ConfigError: if the config is wrong.
    """
    if Path(output).suffix != ".safetensors":
        raise CheckpointError(f"{output}: the name must end in .safetensors")
    if Path(output).exists() and not force:
        raise CheckpointError(f"{output}: is there already; --force replaces it")
    if dtype not in DTYPES:
        raise CheckpointError(f"--dtype {dtype}: is none of {', '.join(DTYPES)}")
    state, layout = _renamed(load_state_dict_file(source, weights))
    name, report = None, LoadReport((), (), ())
    if model_config is not None:
        model = _model_of(model_config, overrides)
        report = load_into(model, state, source=str(source))
        name, state = type(model).__name__, model.state_dict()
    state = {key: value.to(DTYPES[dtype]) if value.is_floating_point() else value for key, value in state.items()}
    metadata = {"format": "pt", "source": Path(source).name, "source_sha256": file_sha256(checkpoint_file(source))}
    save_safetensors(output, state, metadata)
    return _conversion(source, output, layout, state, name, report)


def convert_to_folder(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    model_config: str | os.PathLike[str],
    *,
    overrides: Sequence[str] = (),
    licence: str | None = None,
    force: bool = False,
) -> Conversion:
    """Read a checkpoint into the model of a job and save that, with settings, tokenizer and model card.

    Args:
        source: the checkpoint.
        folder: to write, as ``save_pretrained`` of a pipeline does.
        model_config: YAML of a job.
        overrides: ``key.sub=value`` settings of that job.
        licence: of the weights, for the model card.
        force: replace a folder that is there.

    Raises:
        CheckpointError: as :func:`convert`.
        ConfigError: if the config is wrong.
    """
    from mmpt.api.pipeline import VideoTextPipeline

    if Path(folder).exists() and not force:
        raise CheckpointError(f"{folder}: is there already; --force replaces it")
    layouts: list[str] = []
    # With its folder: a name alone would be looked up where the job writes its own.
    place = find_model(model_config, os.path.abspath(resolve_path(source)), overrides)
    loaded = load_model(place, lambda state: layouts.append(_layout_of(state)))
    pipeline = VideoTextPipeline(loaded, str(model_config))
    pipeline.save_pretrained(folder, licence=licence, metrics={})
    state = pipeline.model.state_dict()
    return _conversion(source, folder, layouts[0], state, type(pipeline.model).__name__, pipeline.load_report)


def _conversion(
    source: Any, output: Any, layout: str, state: Mapping[str, Tensor], name: str | None, report: LoadReport
) -> Conversion:
    """Count what was written."""
    counts = Counter(str(value.dtype).removeprefix("torch.") for value in state.values())
    numbers = sum(value.numel() for value in state.values())
    return Conversion(
        str(source), str(output), layout, len(state), numbers, dict(counts), name, report.missing, report.unexpected
    )


def _renamed(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Bring published names to this toolkit's; return the layout too."""
    layout = _layout_of(state)
    rename = {"merlot": merlot_names, "reserve": reserve_names, "swinbert": lavender_names}.get(layout)
    return rename(state) if rename is not None else state, layout


def _layout_of(state: Mapping[str, Tensor]) -> str:
    """Return whose names the weights have."""
    if _MERLOT in state:
        return "merlot"
    if is_reserve(state):
        return "reserve"
    return "swinbert" if any(key.startswith(_SWINBERT) for key in state) else "mmpt"


def _model_of(path: str | os.PathLike[str], overrides: Sequence[str]) -> torch.nn.Module:
    """Build the model of a job, its own pretrained weights left where they are: others take their place."""
    config = read_job(Path(path), overrides)
    if config.get("model") is None or not config.model.get("model_cls"):
        raise ConfigError(f"{path}: names no model (model.model_cls)")
    config.dataset.split = "test"
    model: torch.nn.Module = build("model", str(config.model.model_cls), config)
    return model
