"""Masks of the joint sequence: the published ones, the worked example, and each rule written out as loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.modules.attention_masks import (
    isolated_mask,
    joint_mask,
    joint_token_types,
    text_generation_mask,
    video_generation_mask,
)
from mmpt.utils.files import REPOSITORY


def seen(mask: torch.Tensor, row: int) -> set[int]:
    return set(mask[0, row].nonzero()[:, 0].tolist())


def test_isolation_of_five_seconds_and_two_words() -> None:
    vmasks, cmasks = torch.arange(32)[None] < 5, torch.arange(64)[None] < 5
    mask = isolated_mask(vmasks, cmasks)
    assert mask.shape == (1, 96, 96) and mask.dtype == torch.bool
    assert seen(mask, 0) == {0}
    for row in (1, 5, 20, 33):  # the first and last second, padding, the [SEP] after the video
        assert seen(mask, row) == {1, 2, 3, 4, 5, 33}
    for row in (34, 35, 36, 90):
        assert seen(mask, row) == {34, 35, 36}
    assert seen(joint_mask(vmasks, cmasks)[:, None], 0) == {0, 1, 2, 3, 4, 5, 33, 34, 35, 36}
    types = joint_token_types(32, 64)
    assert types.shape == (1, 96) and (types[0, :34] == 0).all() and (types[0, 34:] == 1).all()


@pytest.mark.parametrize(("name", "function"), [("textgen", text_generation_mask), ("videogen", video_generation_mask)])
def test_generation_masks_equal_the_published_ones(name: str, function) -> None:
    with np.load(REPOSITORY / "tests/data/mmpt_videoclip.npz") as file:
        vmasks, cmasks = (torch.from_numpy(file["in." + key]) for key in ("vmasks", "cmasks"))
    with np.load(REPOSITORY / "tests/data/mmpt_vlm.npz") as file:
        wanted = file[f"in.{name}_mask"]
    assert np.array_equal(function(vmasks, cmasks).numpy(), wanted)
    assert np.array_equal(function(vmasks.long(), cmasks.float()).numpy(), wanted)


def by_the_rules(kind: str, vmask: list[bool], cmask: list[bool]) -> list[list[bool]]:
    seconds, valid = len(vmask), [cmask[0], *vmask, *cmask[1:]]
    parts = ["cls", *["video"] * seconds, "end", *["text"] * (len(cmask) - 2)]

    def sees(row: int, column: int) -> bool:
        query, key = parts[row], parts[column]
        if not valid[column]:
            return False
        if kind == "isolated":
            halves = {"cls": 0, "video": 1, "end": 1, "text": 2}
            return halves[query] == halves[key]
        if kind == "textgen":
            return key != "text" or (query == "text" and valid[row] and column <= row)
        if query == "end":
            return True
        return key in ("cls", "text") or (key == "video" and query == "video" and valid[row] and column <= row)

    return [[sees(row, column) for column in range(len(valid))] for row in range(len(valid))]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(2, 6), st.data())
def test_masks_follow_the_rules(seconds: int, words: int, data) -> None:
    rows = 2
    vmasks = torch.tensor(
        data.draw(st.lists(st.lists(st.booleans(), min_size=seconds, max_size=seconds), min_size=rows, max_size=rows)),
        dtype=torch.bool,
    ).reshape(rows, seconds)
    lengths = data.draw(st.lists(st.integers(0, words), min_size=rows, max_size=rows))
    cmasks = torch.arange(words)[None] < torch.tensor(lengths)[:, None]
    functions = {"isolated": isolated_mask, "textgen": text_generation_mask, "videogen": video_generation_mask}
    for kind, function in functions.items():
        got = function(vmasks, cmasks).tolist()
        for row in range(rows):
            assert got[row] == by_the_rules(kind, vmasks[row].tolist(), cmasks[row].tolist()), kind
