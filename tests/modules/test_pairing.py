"""Texts that a video is compared with."""

from mmpt.modules.pairing import in_batch_negatives


def test_negatives_are_other_texts_of_the_batch() -> None:
    assert in_batch_negatives(3, 4).tolist() == [[1, 2], [2, 0], [0, 1]]
    assert in_batch_negatives(6, 4)[5].tolist() == [0, 1, 2]
    assert in_batch_negatives(1, 4).shape == (1, 0)
