"""The recipes of MERLOT and MERLOT Reserve against the published numbers: sizes of updates, rates, what decays."""

import functools
import json
import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mmpt.launch.layout import JOB_TYPES, job_type_of
from mmpt.launch.project import Job, expand_project
from mmpt.models.reserve import ReservePretraining
from mmpt.models.reserve_weights import published_names
from mmpt.optim.options import OptimOptions
from mmpt.optim.parameters import prepare_parameters, scales_of
from mmpt.utils.files import REPOSITORY
from mmpt.utils.options import read_section
from mmpt.utils.registry import resolve_class

RECIPES = ("merlot", "merlot_reserve", "merlot_reserve_large")
#: Records or questions of an update (specification A3, B3, B5.2).
UPDATES = {
    "merlot_pretrain": 1024,
    "merlot_pretrain_5seg": 1024,
    "merlot_vcr": 64,
    "reserve_pretrain": 1024,
    "reserve_resadapt": 1024,
    "reserve_vcr": 32,
    "reserve_tvqa": 32,
}
RATES = {
    "merlot": {"merlot_pretrain": 3e-4, "merlot_pretrain_5seg": 2e-5, "merlot_vcr": 1.2e-5},
    "merlot_reserve": {
        "reserve_pretrain": 4e-4,
        "reserve_resadapt": 8e-6,
        "reserve_vcr": 1e-5,
        "reserve_tvqa": 5e-6,
    },
    "merlot_reserve_large": {
        "reserve_pretrain": 3e-4,
        "reserve_resadapt": 6e-6,
        "reserve_vcr": 1e-5,
        "reserve_tvqa": 5e-6,
    },
}


@functools.cache
def trainings(recipe: str) -> dict[str, Job]:
    """Return the trainings of a project by the names of their files."""
    jobs = expand_project(f"projects/script/{recipe}.yaml").jobs
    return {Path(job.name).stem: job for job in jobs if job.kind == "train"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_command_of_the_header_makes_updates_of_the_published_size(recipe: str) -> None:
    text = (REPOSITORY / f"projects/script/{recipe}.yaml").read_text()
    commands = re.findall(rf"^#   python locallaunch.py projects/script/{recipe}\.yaml(.*)$", text, re.MULTILINE)
    assert len(commands) == 1
    asked = re.search(r"--jobtype (\S+)", commands[0])
    found = {}
    for name, job in trainings(recipe).items():
        workers = JOB_TYPES[job_type_of(job, asked[1] if asked else None)]
        settings = job.config.fairseq
        found[name] = workers * settings.dataset.batch_size * settings.optimization.update_freq[0]
    assert {name: size for name, size in found.items() if name in UPDATES} == {
        name: size for name, size in UPDATES.items() if name in found
    }


@pytest.mark.parametrize("recipe", RECIPES)
def test_learning_rates_are_the_published_ones(recipe: str) -> None:
    rates = {name: trainings(recipe)[name].config.fairseq.optimization.lr for name in RATES[recipe]}
    assert rates == {name: [rate] for name, rate in RATES[recipe].items()}
    for job in trainings(recipe).values():
        assert "total_num_update" not in job.config.fairseq.optimization, "max_update says it, and alone"
        assert job.config.model.get("preset") == ("large" if recipe.endswith("large") else None)


@pytest.mark.parametrize(("recipe", "name"), [(recipe, name) for recipe in RECIPES for name in trainings(recipe)])
def test_what_a_recipe_sets_apart_is_in_its_model(recipe: str, name: str) -> None:
    config = trainings(recipe)[name].config
    kind = resolve_class("model", str(config.model.model_cls))
    with torch.device("meta"):
        model = kind(kind.tiny_config())
    prepare_parameters(model, read_section(config, "optim", OptimOptions), config.fairseq.optimization.optimizer)
    if name in ("reserve_vcr", "reserve_tvqa"):
        decayed = {key for key, value in model.named_parameters() if scales_of(value)[1] > 0}
        large = {key for key, value in model.named_parameters() if value.dim() > 1 and key != "proj.weight"}
        assert decayed == large


@pytest.mark.parametrize("name", ["reserve_pretrain", "reserve_resadapt"])
def test_reserves_decay_is_that_of_leaves_of_more_than_one_dimension(name: str) -> None:
    """Published are Flax's leaves: the biases of its fused projections have a dimension of heads (specification B3)."""
    shapes = json.loads((REPOSITORY / "tests/data/reserve_shapes.json").read_text())["base"]
    with torch.device("meta"):
        model = ReservePretraining(OmegaConf.create({"model": {"preset": "base"}}))
        leaves = {key: torch.empty(shape) for key, shape in shapes.items()}
    prepare_parameters(model, read_section(trainings("merlot_reserve")[name].config, "optim", OptimOptions))
    wanted = published_names({key: value for key, value in leaves.items() if value.dim() > 1})
    scales = {key: scales_of(value)[1] for key, value in model.named_parameters()}
    assert {key for key, scale in scales.items() if scale == 1} == wanted.keys()
    assert set(scales.values()) == {0, 1}


def test_the_adaptation_to_larger_frames_is_the_published_one(tmp_path: Path) -> None:
    """Specification B3, B4.4: 144 tokens of a frame beside 160 of text, frames as filmed and hardly enlarged."""
    configs = []
    for name in ("reserve_resadapt", "reserve_resadapt_square"):  # a project has one of them: they write to one folder
        file = tmp_path / "adapted.yaml"
        groups = {"resadapt": {"task_list": [f"{name}.yaml"]}}
        file.write_text(OmegaConf.to_yaml({"project_dir": "adapted", "base_dir": "task", "task_group": groups}))
        configs += [job.config for job in expand_project(str(file)).jobs]
    wide, square = configs
    for config, grid, largest in ((wide, [18, 32], 1.1), (square, [24, 24], 1.88)):
        dataset, settings = config.dataset, config.fairseq.optimization
        assert dataset.image_grid == grid and dataset.image_scale == [1.0, largest] and not dataset.rotate_tall
        assert dataset.seq_len == dataset.lang_seq_len + 8 * grid[0] * grid[1] // 4 == 1312
        assert (settings.max_update, settings.warmup_updates, settings.final_share) == (75_000, 15_000, 0)
        assert JOB_TYPES[str(config.task_type)] * config.fairseq.dataset.batch_size * settings.update_freq[0] == 1024
    wide.dataset = square.dataset
    assert wide == square, "they differ in the data alone"
