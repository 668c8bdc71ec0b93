"""Many objects are made without collections between, and collections go on afterwards."""

import gc

import pytest

from mmpt.utils.collection import uncollected


def test_no_collection_runs_meanwhile_and_what_was_made_stays_out_of_the_next():
    runs = []
    gc.callbacks.append(lambda phase, info: runs.append(phase))
    try:
        with uncollected():
            made = [[number] for number in range(100_000)]
            assert not runs and not gc.isenabled()
        assert gc.isenabled() and gc.get_freeze_count() >= len(made)
    finally:
        gc.callbacks.pop()
        gc.unfreeze()


def test_an_error_inside_and_a_collector_that_was_off_are_left_as_they_were():
    with pytest.raises(ValueError), uncollected():
        raise ValueError
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
