"""Texts that a video is compared with."""

import torch

from mmpt.modules.pairing import in_batch_negatives, of_same_video


def test_negatives_are_other_texts_of_the_batch() -> None:
    assert in_batch_negatives(3, 4).tolist() == [[1, 2], [2, 0], [0, 1]]
    assert in_batch_negatives(6, 4)[5].tolist() == [0, 1, 2]
    assert in_batch_negatives(1, 4).shape == (1, 0)


def test_other_texts_of_the_same_video_are_told() -> None:
    negatives = in_batch_negatives(3, 3)
    assert of_same_video(negatives, torch.tensor([7, 7, 8])).nonzero().tolist() == [[0, 1], [1, 2]]
    assert not of_same_video(negatives, None).any() and of_same_video(in_batch_negatives(1, 4), None).shape == (1, 1)
