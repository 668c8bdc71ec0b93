"""Any sequence of changes, runs and compactions leaves the index that a plain dictionary says."""

import os
import tempfile
from pathlib import Path

from fake_clips import write
from hypothesis import given, settings
from hypothesis import strategies as st
from test_clip_index import held, run, same, wanted

from mmpt.api.search.writer import compact

NAMES = st.sampled_from(["a", "b", "c"])
CONTENTS = st.builds(lambda word, count: f"{word} {count}", st.sampled_from(["red", "tan", "grey"]), st.integers(0, 4))
STEPS = st.one_of(
    st.tuples(st.just("write"), NAMES, CONTENTS),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("rename"), NAMES, NAMES),
    st.tuples(st.just("run")),
    st.tuples(st.just("compact")),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_any_sequence(steps):
    with tempfile.TemporaryDirectory() as folder:
        videos, out = write(Path(folder, "v"), always="blue 2"), Path(folder, "index")
        model, clock = {"always": "blue 2"}, 10**9
        run(videos, out)
        for step, *names in [*steps, ("run",)]:
            file = videos / f"{names[0]}.mp4" if names else None
            if step == "write":
                model[names[0]] = names[1]
                write(videos, **{names[0]: names[1]})
                clock += 10**9  # the clock of a file system may stand still between two of our steps
                os.utime(file, ns=(clock, clock))
            elif step == "remove" and names[0] in model:
                del model[names[0]]
                file.unlink()
            elif step == "rename" and names[0] in model:
                model[names[1]] = model.pop(names[0])
                file.rename(videos / f"{names[1]}.mp4")
            elif step == "compact":
                compact(out)
            elif step == "run":
                summary = run(videos, out)
                assert summary.clips == sum(int(content.split()[1]) for content in model.values())
                same(held(out), wanted(**model))
                assert run(videos, out).unchanged == len(model)
