"""Every work of the benchmarks runs at its least size, both ways, and the two agree as its tolerance says."""

import logging

import pytest
import torch

from scripts.benchmarks.measuring import prepare
from scripts.benchmarks.run import MODULES, entries_of
from scripts.benchmarks.work import disagreement
from tests.processes import spawn

#: Works that take more than two seconds even at their least size: networks, processes, videos.
SLOW = (
    *("evaluation", "extract", "first-batch", "frame-extraction", "fusion", "global-loss", "grad-cache", "s3d"),
    *("index-killed", "project", "ranks-large", "scaling", "search", "segment", "switch", "training"),
)
#: The first compiles for minutes: tests/modules/test_compiling.py has it. The others differ from works that run by a
#: setting or the system alone.
LEFT_OUT = (
    *("switch-videoclip-compile", "scaling-threads", "scaling-processes-global", "feeding-reserve"),
    *(f"switch-{system}-gradient-checkpointing" for system in ("violet", "merlot", "reserve")),
)


def _cases():
    for entry in entries_of(MODULES):
        marks = [pytest.mark.slow] if entry.work.name.startswith(SLOW) else []
        if entry.work.name not in LEFT_OUT:
            yield pytest.param(entry, id=entry.work.name, marks=marks)


@pytest.mark.parametrize("entry", list(_cases()))
def test_a_work_runs_at_its_least_size(entry, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.multiprocessing, "spawn", spawn)
    work = entry.work
    sizes = work.sized(changes=work.tiny)
    level = logging.getLogger("mmpt").level
    prepare(entry.module, work.name, str(tmp_path), sizes)
    found = {}
    for side in ["ours"] + ["reference"] * (work.reference is not None):
        run = work.way(side)(tmp_path, **sizes)
        result = run.call()
        found[side] = run.check() if run.check else result
        assert run.units > 0
        if run.own_clock:
            assert float(result) > 0
        if side == "ours" and run.figures:
            assert run.figures()
    logging.getLogger("mmpt").setLevel(level)
    if work.reference and work.tolerance is not None:
        assert disagreement(found["ours"], found["reference"], work.tolerance) is None
