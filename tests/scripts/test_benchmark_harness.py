"""The harness of the benchmarks: what it compares, times, tells and keeps, on works that take no time."""

import json

import numpy as np
import pytest

from mmpt.utils.errors import DataError
from scripts.benchmarks import history, machine, measuring, table
from scripts.benchmarks.run import MODULES, entries_of, main
from scripts.benchmarks.work import disagreement

FAKES = ["tests.scripts.benchmark_fakes"]
RATES = {"matmul": 2e9, "copy": 4e9, "read": 1e9}


@pytest.fixture(autouse=True)
def rates(monkeypatch):
    """Have the machine's rates without measuring them."""
    monkeypatch.setattr(measuring.Session, "machine", lambda self, threads: self.rates.setdefault(threads, RATES))


def run(tmp_path, *arguments):
    record = tmp_path / "record.json"
    code = main([*arguments, "--rounds", "1", "--seconds", "0.001", "--json", str(record),
                 "--history", str(tmp_path / "history.jsonl")], FAKES)  # fmt: skip
    return code, json.loads(record.read_text())


def test_a_failing_work_is_named_and_the_others_go_on(tmp_path, capsys):
    code, record = run(tmp_path, "--quick")
    out = capsys.readouterr().out
    works = record["works"]
    assert code == 1
    assert set(works) == {"sum", "sum-wrong", "sum-dying", "sum-raising", "sum-slow", "sum-alone"}
    assert works["sum-dying"]["failed"] == "the process ended with exit code 7"
    assert works["sum-raising"]["failed"] == "ValueError: no such thing"
    assert "wrong result: result: differs" in works["sum-wrong"]["failed"]
    assert all(f"FAILED sum-{name}" in out for name in ("dying", "raising", "wrong"))
    assert works["sum"]["ratio"] > 2 and works["sum-slow"]["ratio"] < 0.5
    assert works["sum-alone"]["figures"] == {"numbers": 500} and "ratio" not in works["sum-alone"]
    assert works["sum"]["bound"] == pytest.approx(4e9 / 8) and works["sum"]["bound_by"] == "copy"
    assert works["sum"]["share"] == pytest.approx(works["sum"]["ours"] / works["sum"]["bound"])
    assert works["sum"]["peak"] > works["sum"]["own"] >= 0
    assert "* sum-alone: numbers 500" in out


def test_a_broken_promise_and_a_fallen_ratio_have_exit_codes_of_their_own(tmp_path, capsys):
    assert run(tmp_path, "sum-slow")[0] == 3
    assert "NOT KEPT sum-slow" in capsys.readouterr().out
    code, record = run(tmp_path, "sum-slow", "-o", "count=300")
    assert code == 0 and record["works"]["sum-slow"]["sizes"] == {"count": 300}
    past = json.loads(json.dumps(record))
    past["works"]["sum-slow"]["ratio"] = 1000.0
    history.append(tmp_path / "history.jsonl", past)
    history.append(tmp_path / "history.jsonl", past)
    assert run(tmp_path, "sum-slow", "-o", "count=300")[0] == 4
    assert "SLOWER sum-slow" in capsys.readouterr().out
    assert len(history.read(tmp_path / "history.jsonl")) == 5


def test_works_are_chosen_by_name_and_wrong_ones_refused(tmp_path, capsys):
    _, record = run(tmp_path, "--quick", "sum-named")
    assert list(record["works"]) == ["sum-named"]
    for wrong in (["nothing"], ["sum", "-o", "videos=1"], ["sum", "-o", "count=many"]):
        with pytest.raises(SystemExit) as ended:
            main(wrong, FAKES)
        assert ended.value.code == 2
    assert "the sizes of these works are count" in capsys.readouterr().err
    assert main(["--list"], FAKES) == 0
    assert "sum-named" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rounds", "passes", "taken"), [(5, 0.5, 5), (5, 7.0, 4), (5, 30.0, 3), (2, 30.0, 2), (9, 0.0, 9)]
)
def test_long_passes_take_fewer_turns(rounds, passes, taken):
    assert measuring._rounds(measuring.Effort(rounds), passes) == taken


def record_of(ratio, **other):
    about = {"cpu": "one", "cores": 2, "clock": "wall"} | other
    return about | {"works": {"a": {"ratio": ratio, "sizes": {"n": 1}}}}


def test_a_ratio_is_compared_with_the_median_of_the_last_runs_alike():
    earlier = [record_of(ratio) for ratio in (100, 2.0, 2.1, 1.9, 2.0, 50)]  # the first is too long ago
    assert history.dropped(record_of(1.61), earlier) == []
    (told,) = history.dropped(record_of(1.59), earlier)
    assert told == "a: ratio 1.59, 2.00 is the median of the last 5 runs"
    for other in ({"cpu": "two"}, {"cores": 4}, {"clock": "processor"}, {"quick": True}):
        assert history.dropped(record_of(0.1, **other), earlier) == []
    larger = record_of(0.1)
    larger["works"]["a"]["sizes"] = {"n": 2}
    assert history.dropped(larger, earlier) == [] and history.dropped(record_of(None), earlier) == []


def test_a_history_survives_a_run_that_was_ended_while_it_wrote(tmp_path):
    path = tmp_path / "new" / "history.jsonl"
    assert history.read(path) == []
    history.append(path, record_of(1.0))
    with path.open("a") as file:
        file.write('{"works": {"a"')
    assert len(history.read(path)) == 1
    history.append(path, record_of(2.0))
    with pytest.raises(DataError, match="line 2 is no record"):
        history.read(path)


@pytest.mark.parametrize(
    ("ours", "reference", "tolerance", "told"),
    [
        ({"a": [1, 2]}, {"a": [1, 2]}, 0.0, None),
        ({"a": [1, 2]}, {"a": [1, 3]}, 0.0, "result['a'][1]: differs by up to 1"),
        ({"a": 1}, {"b": 1}, 0.0, "the keys are"),
        ([1], [1, 2], 0.0, "1 and 2 elements"),
        (b"x", b"y", 0.0, "result: "),
        (np.zeros(3), np.zeros((3, 1)), 1.0, "shapes (3,) and (3, 1)"),
        (np.full(3, 1.0), np.full(3, 1.05), 0.1, None),
        (np.full(3, 1.0), np.full(3, 1.5), 0.1, "0.1 is allowed"),
        (np.array([np.nan]), np.array([0.0]), 0.1, "differs"),
        (None, 0, 0.1, "result: "),
    ],
)
def test_results_are_compared(ours, reference, tolerance, told):
    found = disagreement(ours, reference, tolerance)
    assert found is None if told is None else told in found


def test_the_bound_is_the_slower_of_computing_and_moving():
    assert machine.bound(RATES, "copy", flop=2.0, moved=0.0) == 1e9
    assert machine.bound(RATES, "copy", flop=2.0, moved=8.0) == 5e8
    assert machine.bound(RATES, "read", flop=2.0, moved=8.0) == 1.25e8
    assert machine.bound(RATES, "copy", 0.0, 0.0) is None


def test_operations_of_attention_and_products_are_counted():
    torch = pytest.importorskip("torch")
    from scripts.benchmarks.flops import count

    query = torch.randn(2, 4, 16, 32, requires_grad=True)
    forward = 2 * 2 * 2 * 4 * 16 * 16 * 32
    attend = torch.nn.functional.scaled_dot_product_attention
    assert count(lambda: attend(query, query, query)) == forward
    assert count(lambda: attend(query, query, query).sum().backward()) == forward * 3.5
    assert count(lambda: torch.ones(3, 5) @ torch.ones(5, 7)) == 2 * 3 * 5 * 7


def test_operations_that_a_block_does_again_to_keep_less_are_no_part_of_the_bound(monkeypatch):
    torch = pytest.importorskip("torch")
    from mmpt.modules import linear
    from scripts.benchmarks.flops import count

    rows, width, inner = 64, 8, 32
    up, down = linear.Linear(width, inner), linear.Linear(inner, width)
    values = torch.randn(rows, width, requires_grad=True)
    plain = count(lambda: linear.feed_forward(values, up, down).sum().backward())
    monkeypatch.setattr(linear, "_FEW", 0)  # as where the block is large
    assert count(lambda: linear.feed_forward(values, up, down).sum().backward()) == plain
    assert plain == 3 * 2 * (2 * rows * width * inner)  # two products forward, each twice more backward


def test_a_reference_that_is_ours_keeps_freed_memory_too(monkeypatch):
    from scripts.benchmarks import child

    kept = []
    monkeypatch.setattr(child, "keep_freed_memory", lambda: kept.append(True))
    monkeypatch.setattr(child, "limit_threads", lambda threads: None)  # they are those of all tests
    for work, side, expected in (("sum", "ours", 1), ("sum", "reference", 0), ("sum-slow", "reference", 1)):
        kept.clear()
        with pytest.raises(FileNotFoundError):  # no data: what comes before is enough
            child._Side("tests.scripts.benchmark_fakes", work, side, "/nowhere", {"count": 1}, 1)
        assert len(kept) == expected


def test_the_table_is_markdown_with_numbers_to_the_right():
    lines = table.aligned(["work", "unit", "ours/s"], [["a", "b", "1,000"], ["longer", "", "2"]])
    assert lines == [
        "| work   | unit | ours/s |",
        "|--------|------|-------:|",
        "| a      | b    |  1,000 |",
        "| longer |      |      2 |",
    ]
    texts = [table.number(value) for value in (None, 0, 12345.6, 12.345, 0.0123, 0.00001)]
    assert texts == ["", "0", "12,346", "12.3", "0.0123", "1.0e-05"]


def test_the_rates_of_this_machine_are_measured_small():
    found = machine.measure_rates(1, seconds=0.001, size=16, mebibytes=1)
    assert set(found) == set(machine.RATES) and all(rate > 0 for rate in found.values())
    assert machine.describe()["cores"] >= 1


def test_all_modules_have_works_with_a_group_and_a_reference_in_words():
    entries = entries_of(MODULES)
    assert len(entries) > 30
    for entry in entries:
        work = entry.work
        assert work.group in table.GROUPS and work.tiny
        assert bool(work.naive) == (work.reference is not None), work.name
        assert set(work.quick) <= set(work.sizes) and set(work.tiny) <= set(work.sizes), work.name
