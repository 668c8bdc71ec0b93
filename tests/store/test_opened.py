"""Stores: opened once for each path, anew once they changed; missing ids are told with the nearest."""

from pathlib import Path

from mmpt.store.opened import OpenedOnce, not_among


def test_a_store_is_opened_anew_once_it_has_changed(tmp_path: Path, monkeypatch) -> None:
    states: dict[str, int] = {str(tmp_path): 1}
    made: list[object] = []

    def make(path: object) -> list[object]:
        made.append(path)
        return [path]

    opened = OpenedOnce(make, states.get)
    first = opened(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert opened(".") is first and len(made) == 1
    states[str(tmp_path)] = 2
    assert opened(tmp_path) is not first and len(made) == 2
    assert opened("absent") is not opened("absent")  # nothing is kept of what is not there


def test_the_nearest_id_is_looked_for_among_few_alone() -> None:
    assert not_among("vido1", ["video1", "x"], "store s") == (
        "video 'vido1': not among the 2 videos of the store s. Did you mean 'video1'?"
    )
    assert not_among("vido1", [f"video{number}" for number in range(10_000)], "store s").endswith("store s.")
