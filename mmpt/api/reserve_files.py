"""Files of weights for :class:`~mmpt.api.merlot_reserve.PretrainedMerlotReserve`: which is meant, and of which sizes.

All sizes but one can be read off the shapes of weights of this toolkit. How many dimensions a head has stands in the
config of the training that made them; published files keep it in their shapes.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mmpt.api.job_files import find_checkpoint, read_job
from mmpt.models.reserve_options import PRESETS, ReserveOptions
from mmpt.models.reserve_weights import sizes_of
from mmpt.utils.config import read_yaml
from mmpt.utils.errors import CheckpointError
from mmpt.utils.files import resolve_path
from mmpt.utils.options import read_section
from mmpt.utils.weight_files import checkpoint_file, load_state_dict_file

__all__ = ["find_weights", "read_weights"]

_CONFIG = "config.yaml"
_CHECKPOINTS = ("checkpoint_best.pt", "checkpoint_last.pt")
#: The grid of the weights before they were adapted to larger frames.
_FIRST_GRID = (12, 20)


def find_weights(
    name: str | os.PathLike[str], grid: tuple[int, int], cache_dir: str | os.PathLike[str] | None = None
) -> tuple[Path, DictConfig | None]:
    """Return the file of weights that a name means, and the config of the training that made it, where there is one.

    Args:
        name: a file; the folder of a training (its best checkpoint, else its last); the YAML of one; or the name of a
            published file in ``cache_dir``, where ``base`` and ``large`` are those that fit the grid.
        grid: rows and columns of patches.
        cache_dir: where a name that is no path is looked for.

    Raises:
        CheckpointError: if there is no such file.
        ConfigError: if a YAML is wrong.
    """
    given = Path(name)
    if given.suffix in (".yaml", ".yml"):
        config = read_job(given, [])
        return find_checkpoint(config, Path(_CHECKPOINTS[0]), str(name)), config
    names = [given] if cache_dir is None else [given, Path(cache_dir) / given]
    if str(name) in PRESETS:
        adapted = given if tuple(grid) == _FIRST_GRID else Path(f"{given}_resadapt")
        names = [Path(cache_dir or ".") / adapted, *names]
    for path in names:
        folder = resolve_path(path)
        files = [path / each for each in _CHECKPOINTS] if folder.is_dir() else [path]
        found = next((file for file in files if checkpoint_file(resolve_path(file)).is_file()), None)
        if found is not None:
            settings = resolve_path(found).parent / _CONFIG
            return found, read_yaml(settings) if settings.is_file() else None
    if str(name) in PRESETS:
        raise CheckpointError(
            f"{name}: no such checkpoint file. The host of the published weights is gone, and nothing is fetched: give "
            "the path of a local file of weights, or cache_dir: the folder in which "
            f"{names[0].name} lies"
        )
    where = " or ".join(map(str, names))
    raise CheckpointError(f"{where}: no such checkpoint file, nor the folder of a training with {_CHECKPOINTS[0]}")


def read_weights(
    file: Path, config: DictConfig | None, size_per_head: int | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights of a file and the sizes of their model, as keys of ``model``.

    The dimensions of a head are those that a published file has, or ``size_per_head``, else those of the config, of
    the file's own metadata, or of the published model that has all other sizes of these weights.

    Raises:
        CheckpointError: if the file is damaged or no MERLOT Reserve, if nothing tells the dimensions of a head, or if
            ``size_per_head`` contradicts the file.
    """
    state = load_state_dict_file(file)
    sizes = sizes_of(state)
    told = sizes.get("size_per_head") or _told(file, config, sizes)
    if size_per_head is not None and told is not None and told != size_per_head:
        raise CheckpointError(f"{file}: size_per_head {size_per_head}, but its heads have {told} dimensions")
    if size_per_head is None and told is None:
        raise CheckpointError(
            f"{file}: nothing tells into how many heads its {sizes['hidden_size']} dimensions are divided, and the "
            "shapes fit any number: give size_per_head=, or the folder or YAML of the training that made it"
        )
    return state, {**sizes, "size_per_head": size_per_head or told}


def _told(file: Path, config: DictConfig | None, sizes: Mapping[str, int]) -> int | None:
    if config is not None and OmegaConf.select(config, "model.model_cls"):
        options = read_section(config, "model", ReserveOptions)
        return PRESETS[options.preset]["size_per_head"] if options.preset in PRESETS else options.size_per_head
    noted = _metadata(file).get("size_per_head")
    if noted is not None:
        return int(noted)
    for preset in PRESETS.values():
        if all(preset[key] == size for key, size in sizes.items()):
            return preset["size_per_head"]
    return None


def _metadata(file: Path) -> dict[str, str]:
    if file.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(resolve_path(file), framework="pt") as content:
        return dict(content.metadata() or {})
