"""Which segments make a record: all of them, and few videos in a group."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.processors.segment_packing import Run, pack, pack_segments


def listed(runs, record):
    """Return (video, segment) of every record, (records, N, 2)."""
    return np.array(
        [
            [(run.video, run.first + k) for run in runs.record(number, record) for k in range(run.length)]
            for number in range(runs.records(record))
        ]
    ).reshape(-1, record, 2)


def test_a_long_video_fills_records_and_its_rest_groups():
    runs = pack_segments(np.array([21, 4, 3, 0, 1, 9]), 8, 4)
    records = [runs.record(number, 8) for number in range(runs.records(8))]
    assert records == [
        [Run(0, 0, 8)],
        [Run(0, 8, 8)],
        [Run(5, 0, 8)],
        [Run(0, 16, 4), Run(1, 0, 4)],
        [Run(2, 0, 3), Run(0, 20, 1), Run(4, 0, 1), Run(5, 8, 1), Run(0, 0, 2)],
    ]
    assert runs.segments == 38


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any),
    st.sampled_from([(8, 4), (16, 4), (16, 8), (6, 6), (5, 1), (30, 5), (3, 3)]),
)
def test_every_segment_is_in_a_record_and_only_the_last_repeats_some(lengths, sizes):
    record, group = sizes
    runs = pack_segments(np.array(lengths), record, group)
    flat = listed(runs, record).reshape(-1, 2)
    wanted = {(video, k) for video, length in enumerate(lengths) for k in range(length)}
    assert len(flat) == -(-len(wanted) // record) * record
    assert len(set(map(tuple, flat[: len(wanted)].tolist()))) == len(wanted)
    assert set(map(tuple, flat.tolist())) == wanted
    groups = flat[: len(wanted) // group * group].reshape(-1, group, 2)
    alone = (groups[:, :, 0] == groups[:, :1, 0]).all(1).sum()
    assert alone >= sum(length // group for length in lengths)  # none is torn that need not be


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 7), max_size=40))
def test_pieces_and_what_completes_them_are_never_torn(sizes):
    sizes = np.array(sizes + [8 - size for size in sizes], np.int64)
    order = pack(sizes, 8)
    assert sorted(order.tolist()) == list(range(len(sizes)))
    assert set(range(8, int(sizes.sum()) + 1, 8)) <= set(np.cumsum(sizes[order]).tolist())


def test_a_million_videos_are_a_matter_of_seconds():
    lengths = np.random.default_rng(0).integers(0, 80, 1_000_000)
    runs = pack_segments(lengths, 16, 4)
    assert runs.segments == lengths.sum()
    assert sum(run.length for run in runs.record(runs.records(16) - 1, 16)) == 16
