"""Merged hits of any index: none overlaps another of its video, and the best come first."""

import tempfile
from pathlib import Path

import numpy as np
from fake_clips import FakePipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.api.search import ClipIndex
from mmpt.api.search.layout import IndexSettings
from mmpt.api.search.writer import writing_index

DIM = 2
VIDEOS = st.lists(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.integers(0, 360)), min_size=1, max_size=8),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(VIDEOS, st.integers(1, 4))
def test_no_two_hits_overlap_and_scores_descend(videos, per_video):
    with tempfile.TemporaryDirectory() as folder:
        made_with = IndexSettings("m", "VideoCLIP", "fingerprint-one", DIM, 4.0, 2.0, 0, [folder])
        with writing_index(Path(folder, "index"), made_with) as writer:
            for number, clips in enumerate(videos):
                starts, lengths, angles = np.array(clips, np.float64).T
                vectors = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], 1)
                writer.add(f"0:{number}.mp4", starts, starts + lengths, vectors, [], {})
        index = ClipIndex.open(Path(folder, "index"), FakePipeline())
        hits = index.search(vector=np.array([1.0, 0.0]), top=100)
        best_rows = index.search(vector=np.array([1.0, 0.0]), top=100, merge=False)
        few = index.search(vector=np.array([1.0, 0.0]), top=100, per_video=per_video)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].score == best_rows[0].score and {hit.video for hit in hits} == {hit.video for hit in best_rows}
    for number, hit in enumerate(hits):
        clip = next(row for row in best_rows if row.row == hit.row)
        assert hit.start <= clip.start < clip.end <= hit.end  # its own clip is always whole
        for other in hits[:number]:
            assert other.video != hit.video or other.end <= hit.start or hit.end <= other.start
    assert few == [hit for n, hit in enumerate(hits) if sum(o.video == hit.video for o in hits[:n]) < per_video]
