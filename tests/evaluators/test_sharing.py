"""The processes of a test notice that they do not see the same test set in the same order."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from mmpt.evaluators import batch_predictor, sharing
from mmpt.evaluators.sharing import Share
from mmpt.utils.errors import ConfigError


class Listed(list):
    """Items of some videos, as a data set with a list of its own."""

    def __init__(self, names: list[str], texts: list[Any] | None = None) -> None:
        super().__init__({"video_id": name, "idx": number} for number, name in enumerate(names))
        self.meta_processor = list(zip(names, texts or names, strict=True))


class OwnLoader(DataLoader):
    """Not a plain loader: every process reads all batches."""


NAMES = ["a", "b", "c", "d"]


def seen_by(monkeypatch: pytest.MonkeyPatch, *loaders: Any, mark_new: bool = False) -> list[Share]:
    """Return the shares of as many processes as there are loaders, after they were read."""
    shares = []
    for rank, loader in enumerate(loaders):
        monkeypatch.setattr(sharing, "world", lambda rank=rank: (rank, len(loaders)))
        torch.manual_seed(rank)
        shares.append(Share(loader, mark_new))
        list(shares[-1])
    return shares


def agree(monkeypatch: pytest.MonkeyPatch, shares: list[Share]) -> bool:
    monkeypatch.setattr(batch_predictor, "all_gather_objects", lambda _: [(one.total, one.order) for one in shares])
    try:
        batch_predictor.check_same_batches(shares[0])
    except ConfigError as error:
        assert "the processes see different batches" in str(error)
        return False
    return True


@pytest.mark.parametrize("loader", [DataLoader, OwnLoader])
@pytest.mark.parametrize("mark_new", [False, True])
def test_another_order_is_noticed(monkeypatch: pytest.MonkeyPatch, loader: Any, mark_new: bool) -> None:
    for shuffle in (True, False):
        loaders = [loader(Listed(NAMES), batch_size=1, shuffle=shuffle) for _ in range(2)]
        assert agree(monkeypatch, seen_by(monkeypatch, *loaders, mark_new=mark_new)) is not shuffle


@pytest.mark.parametrize("loader", [DataLoader, OwnLoader, list])
def test_another_list_of_the_same_length_is_noticed(monkeypatch: pytest.MonkeyPatch, loader: Any) -> None:
    """As a node would have it that reads an older file, or one written by hand."""
    loaders = [loader(Listed(names)) for names in (NAMES, [*NAMES[:3], "e"])]
    assert not agree(monkeypatch, seen_by(monkeypatch, *loaders))
    assert agree(monkeypatch, seen_by(monkeypatch, loaders[0], loaders[0]))


def test_other_texts_of_the_same_videos_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    loaders = [DataLoader(Listed(NAMES, [{"text": text, "start": 0.5}] * 4)) for text in ("a cat", "a dog")]
    assert not agree(monkeypatch, seen_by(monkeypatch, *loaders))


def test_what_the_list_holds_besides_does_not_part_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object of a user's, which says where in memory it lies, is the same for all."""
    loaders = [DataLoader(Listed(NAMES, [SimpleNamespace(), object(), {object()}, torch.ones(1)])) for _ in range(2)]
    assert agree(monkeypatch, seen_by(monkeypatch, *loaders))
