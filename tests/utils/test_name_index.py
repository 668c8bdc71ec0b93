"""Where names stand in a list: as a dict says, whatever their order, repetitions and hashes."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt.utils import name_index
from mmpt.utils.name_index import NameIndex, all_differ

NAMES = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "é", "", "video1"]), max_size=12)


def check(names, wanted):
    index = NameIndex(names)
    first = {name: place for place, name in reversed(list(enumerate(names)))}
    assert dict(index) == first and len(index) == len(first) and list(index) == list(dict.fromkeys(names))
    found = index.find(wanted)
    assert found.dtype == np.int64 and found.tolist() == [first.get(name, -1) for name in wanted]
    assert ("z" in index) is False and index.get("z") is None


@given(NAMES, NAMES)
def test_places_are_those_of_a_dict(names, wanted):
    check(names, wanted)


@given(NAMES, st.integers(0, 12), st.integers(0, 12))
def test_parts_of_the_list_in_its_order(names, begin, end):
    check(names, names[begin:end])


@given(NAMES, NAMES)
def test_names_of_the_same_hash_are_told_apart(names, wanted):
    def alike(given):
        return np.zeros(len(given), np.int64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name_index, "_hashes", alike)
        patch.setattr(name_index, "hash", lambda name: 0, raising=False)
        check(names, wanted)


def test_a_copy_in_another_process_finds_the_same():
    index = pickle.loads(pickle.dumps(NameIndex(["b", "a"])))
    assert dict(index) == {"b": 0, "a": 1}
    with pytest.raises(KeyError, match="c"):
        index["c"]


def test_whether_all_differ():
    assert all_differ([]) and all_differ(["a"]) and all_differ(["a", "b"])
    assert not all_differ(["a", "b", "a"])
