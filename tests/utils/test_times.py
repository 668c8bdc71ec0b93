"""Times as they are printed."""

import pytest

from mmpt.utils.times import clock, clocks


@pytest.mark.parametrize(
    ("seconds", "tenths", "whole"),
    [(0, "00:00.0", "00:00"), (59.96, "01:00.0", "01:00"), (3725.04, "62:05.0", "62:05"), (75.9, "01:15.9", "01:16")],
)
def test_clock(seconds, tenths, whole):
    assert (clock(seconds), clock(seconds, tenths=False)) == (tenths, whole)


def test_a_short_part_has_tenths():
    assert clocks(8, 12) == ("00:08", "00:12")
    assert clocks(1.25, 1.75) == ("00:01.2", "00:01.8")
    assert clocks(59.5, 62) == ("00:59.5", "01:02.0")
