"""ShardedTensor: crashes at every step of a write, and several processes at once."""

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shard_samples import assert_same, five_items, legacy, ragged, write

from mmpt.utils import shardedtensor
from mmpt.utils.errors import DataError
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter, open_shared
from mmpt.utils.shardedtensor_files import UnfinishedShardError, shard_paths

OLD, NEW = ragged("<i4", [4, 1, 3], ()), [item + 7 for item in ragged("<i4", [1, 4, 3], ())]


@pytest.fixture
def features(tmp_path: Path) -> Path:
    return five_items(tmp_path)


def run_and_die(write_it: Callable[[], object], step: int) -> bool:
    """Run in a child that dies at once before file operation number ``step``; return whether it died."""
    child = os.fork()
    if child == 0:
        calls = 0

        def dying(real: Callable[..., object]) -> Callable[..., object]:
            def operation(*args: object, **kwargs: object) -> object:
                nonlocal calls
                if calls == step:
                    os._exit(9)
                calls += 1
                return real(*args, **kwargs)

            return operation

        for name in ("replace", "unlink", "fsync", "chmod"):
            setattr(os, name, dying(getattr(os, name)))
        try:
            write_it()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("older", ["none", "ours", "published"])
@pytest.mark.parametrize("ids", [None, ["a", "b", "c"]])
def test_a_crash_at_any_step_leaves_the_old_the_new_or_an_error(
    tmp_path: Path, older: str, ids: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shardedtensor, "_PAUSE_SECONDS", 0)
    outcomes = []
    step = 0
    while True:
        path = tmp_path / str(step) / "x"
        path.parent.mkdir()
        if older == "ours":
            write(path, OLD, ["o1", "o2", "o3"])
        elif older == "published":
            legacy(path, np.concatenate(OLD), np.cumsum([0, *map(len, OLD)]))
        died = run_and_die(lambda path=path: write(path, NEW, ids), step)
        try:
            shard = ShardedTensor.load(path, verify="off")
        except DataError as error:
            outcomes.append("unfinished" if isinstance(error, UnfinishedShardError) else "missing")
        else:
            outcomes.append("new" if len(shard[0]) == 1 else "old")
            assert_same(shard, NEW if outcomes[-1] == "new" else OLD)
            if outcomes[-1] == "new":
                assert shard.ids == ids
        write(path, NEW, ids)  # whatever is left, writing again works and cleans up
        assert_same(ShardedTensor.load(path), NEW)
        assert not list(path.parent.glob(".*_data.npy.tmp")) and not list(path.parent.glob(".*_starts.npy.tmp"))
        if not died:
            break
        step += 1
    first = "missing" if older == "none" else "old"
    order = [first, "unfinished", "new"]
    assert outcomes == sorted(outcomes, key=order.index) and set(outcomes) == set(order)
    assert outcomes.count("unfinished") >= 4


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardedTensorWriter(tmp_path / "x", "f4") as writer:
        writer.append(np.zeros(3, "f4"))
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with pytest.raises(DataError, match=r"x_data\.npy: no such file"):
        ShardedTensor.load(tmp_path / "x")


def test_an_error_in_the_block_keeps_the_older_shard(features: Path) -> None:
    before = sorted(os.listdir(features.parent))
    with pytest.raises(RuntimeError), ShardedTensorWriter(features, "f4") as writer:
        writer.append(np.zeros(3, "f4"))
        raise RuntimeError
    assert sorted(os.listdir(features.parent)) == before
    assert ShardedTensor.load(features).verify()


def test_the_unfinished_temporary_file_is_named(tmp_path: Path) -> None:
    writer = ShardedTensorWriter(tmp_path / "x", "f4")
    with pytest.raises(DataError, match="unfinished write"):
        ShardedTensor.load(tmp_path / "x")
    with pytest.raises(DataError, match="another process is writing"):
        ShardedTensorWriter(tmp_path / "x", "f4")
    with writer:
        pass
    assert len(ShardedTensor.load(tmp_path / "x")) == 0


def test_a_shard_without_ids_replaces_one_with_ids(features: Path) -> None:
    write(features, NEW)
    assert ShardedTensor.load(features).ids is None
    assert not shard_paths(features).ids.exists()


def read_sums(shard: ShardedTensor, connection: "multiprocessing.connection.Connection") -> None:
    connection.send([int(shard[i].sum()) for i in range(len(shard))])


def test_spawned_readers_reopen_by_path(tmp_path: Path) -> None:
    items = ragged("<i8", [5, 0, 900], (3,))
    shard = ShardedTensor.load(write(tmp_path / "x", items))
    assert len(pickle.dumps(shard)) < 500
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    readers = [context.Process(target=read_sums, args=(shard, pipe[1])) for pipe in pipes]
    for reader in readers:
        reader.start()
    for pipe in pipes:
        assert pipe[0].poll(60)
        assert pipe[0].recv() == [int(item.sum()) for item in items]
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0


def test_a_pickled_shard_that_was_rewritten_is_refused(features: Path) -> None:
    content = pickle.dumps(ShardedTensor.load(features))
    pickle.loads(content)
    write(features, NEW)
    with pytest.raises(DataError, match="rewritten while it was in use"):
        pickle.loads(content)


def test_readers_beside_a_writer_never_see_a_mixture(tmp_path: Path) -> None:
    """Every generation has the same shapes; only the values tell them apart."""
    path = tmp_path / "x"

    def generation(value: int) -> None:
        write(path, [np.full(50, value), np.full(30, value)], [f"{value}-a", f"{value}-b"])

    generation(0)
    child = os.fork()
    if child == 0:
        try:
            for value in range(1, 25):
                generation(value)
                time.sleep(0.02)
        finally:
            os._exit(0)
    seen, ended = set(), False
    while not ended:
        ended = os.waitpid(child, os.WNOHANG)[0] == child
        try:
            shard = ShardedTensor.load(path, verify="off")
        except DataError as error:  # a slow disk: the shard was being replaced at each attempt
            assert not ended and ("being written" in str(error) or "being rewritten" in str(error))
            continue
        assert shard.ids is not None
        value = int(shard[0][0])
        assert (shard.data == value).all() and shard.ids == [f"{value}-a", f"{value}-b"]
        seen.add(value)
    assert 24 in seen


def test_open_shared_opens_once_and_again_when_rewritten(features: Path) -> None:
    first = open_shared(features)
    assert open_shared(os.path.relpath(features)) is first
    assert open_shared(features, verify="off") is not first
    write(features, NEW)
    assert open_shared(features) is not first
    assert_same(open_shared(features), NEW)
    assert first[2].shape == (40, 4)  # an open shard keeps its files
