"""Entries of an imported store lead back to their video, whatever its id looks like."""

from mmpt.store.group_names import EntryNames, videos_of


def test_groups_lead_back_to_their_video() -> None:
    videos = ["abc", "a_b", "a_12345", "x_00010", "-_9", "12345"]
    names, ids, expected = EntryNames(), [], []
    for video in videos:
        for number in (0, 75, 99999, 100000):
            for _ in range(3):  # of a file that is given three times
                ids.append(names.unique(f"{video}_{number:05d}"))
                expected.append(video)
    assert len(set(ids)) == len(ids) and ids[:3] == ["abc_00000", "abc_00000_2", "abc_00000_3"]
    assert videos_of(ids, {"tool": "import_tfrecords"}) == expected
    assert videos_of(ids, {"tool": "extract_segments"}) == ids
