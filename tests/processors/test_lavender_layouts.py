"""LAVENDER's layouts of texts: the published ones, and where they end."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.processors import lavender_layouts as layouts
from mmpt.processors.text_layouts import plain
from mmpt.utils.files import REPOSITORY
from mmpt.utils.tokenizers import SpecialIds

with np.load(REPOSITORY / "tests/data/lavender_tiny.npz") as golden:
    VOCABULARY = golden["vocab"].tolist()
    PUBLISHED = json.loads(str(golden["recipes"]))["layouts"]
SPECIAL = SpecialIds(*map(VOCABULARY.index, ("[CLS]", "[SEP]", "[PAD]", "[MASK]")))


def ids(text: str) -> list[int]:
    return [VOCABULARY.index(word) for word in text.split()]


def joined() -> list[int]:
    options = [ids(option) for option in ("jump", "roll", "step", "dog runs", "cat")]
    return layouts.join_options(
        ids("what does man do"), options, [ids(f"option {number} :") for number in range(5)], SPECIAL
    )


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *((f"qamc_{where}", layouts.ask_choice(joined(), 24, SPECIAL, where)) for where in layouts.MASK_POSITIONS),
        ("qaoe", layouts.ask_openly(ids("what does a man do ?"), ids("answer :"), 10, SPECIAL)),
        ("retmc", layouts.match(ids("a man runs"), 10, SPECIAL)),
        ("fib", layouts.fill_in(ids("a man [MASK] the ball ."), 12, SPECIAL)),
    ],
)
def test_layouts_are_the_published_ones(name, layout) -> None:
    assert [VOCABULARY[token] for token in layout.caps] == PUBLISHED[name]
    assert layout.cmasks.tolist() == [token != "[PAD]" for token in PUBLISHED[name]]
    assert PUBLISHED[name].index("[MASK]") == layout.answer
    assert layout.cut == (7 if name.startswith("qamc") else 0)  # dog runs [SEP] option 4 : cat


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("prompt_")])
def test_prompts_are_the_published_ones(name) -> None:
    text, wanted = PUBLISHED[name]
    for mark in ",?.:-[]":
        text = text.replace(mark, f" {mark} ")
    assert layouts.prompt_ids(ids(text), SPECIAL).tolist() == wanted


def test_short_and_empty_texts() -> None:
    cls, sep, pad, mask = SPECIAL
    assert layouts.ask_choice([7, 8], 6, SPECIAL, "insert").caps.tolist() == [cls, 7, 8, mask, sep, *[pad] * 4]
    assert layouts.ask_choice([7, 8], 6, SPECIAL, None).caps.tolist() == [cls, 7, 8, sep, *[pad] * 4]
    assert layouts.ask_choice([7, 8], 6, SPECIAL, None).answer == -1
    assert layouts.match([], 4, SPECIAL).caps.tolist() == [cls, sep, pad, pad, mask]
    cut = layouts.fill_in([7, 8, mask], 4, SPECIAL)
    assert (cut.caps.tolist(), cut.answer, cut.cut) == ([cls, 7, 8, sep], -1, 1)
    with pytest.raises(ValueError, match="append, prepend"):
        layouts.ask_choice([], 6, SPECIAL, "middle")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(200, 299), max_size=40), st.integers(3, 30), st.sampled_from(layouts.MASK_POSITIONS))
def test_every_layout_has_its_length_and_says_what_it_lacks(words, room, where) -> None:
    for layout, length, fits in (
        (plain(words, room, SPECIAL), room, room - 2),
        (layouts.match(words, room, SPECIAL), room + 1, room - 2),
        (layouts.ask_openly(words, [5, 6], room, SPECIAL), room + 5, room - 1),
        (layouts.ask_choice(words, room, SPECIAL, where), room + (2 if where == "replace" else 3), room - 1),
    ):
        assert len(layout.caps) == len(layout.cmasks) == length
        assert layout.cut == max(0, len(words) - fits)
        assert [token for token in layout.caps if token >= 200] == words[:fits]
        assert np.array_equal(layout.cmasks, layout.caps != SPECIAL.pad)
        assert layout.answer < 0 or layout.caps[layout.answer] == SPECIAL.mask
