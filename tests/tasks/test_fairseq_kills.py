"""Kill -9 at any moment: the resumed training ends with the very tensors of the uninterrupted one."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fairseq")

from fairseq_runs import KILLED, assert_same, final, run

from tests.tasks.conftest import plain

pytestmark = pytest.mark.slow


def in_folder(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    config["fairseq"]["checkpoint"]["save_dir"] = str(folder)
    return config


def test_one_process_with_retrieved_batches_killed_again_and_again(
    pretraining_config: dict[str, Any], tmp_path: Path
) -> None:
    """Epochs have 4 updates; a checkpoint is written after every third update and at the end of an epoch."""
    config = pretraining_config
    config["fairseq"]["checkpoint"]["save_interval_updates"] = 3
    codes, output = run(in_folder(config, tmp_path / "whole"), tmp_path)
    assert codes == [0], output
    assert (tmp_path / "whole" / "config.yaml").exists() and "retrieved groups" in output
    assert len(list((tmp_path / "whole" / "retri").iterdir())) == 3, "one set of groups an epoch, none after the last"
    assert all(key.startswith("mmmodel.") for key in final(tmp_path / "whole")["model"])
    in_folder(config, tmp_path / "cut")
    for fault, resumed in (
        (("before_update", 2), False),  # before the first checkpoint
        (("while_writing", "checkpoint_1_3.pt"), False),
        (("after_writing", "checkpoint_1_3.pt"), False),  # there is no checkpoint_last.pt yet
        (("before_update", 4), True),  # just after a checkpoint, in the middle of an epoch
        (("while_retrieving", 2), True),
        (("before_update", 5), True),  # the first of an epoch
        (("before_update", 9), True),  # the last checkpoint in time is at the end of an epoch
        (("while_writing", "checkpoint_3_9.pt"), True),
        (("after_writing", "checkpoint_3_9.pt"), True),
    ):
        codes, output = run(config, tmp_path, fault=fault)
        assert codes == [KILLED], output
        assert ("Loaded checkpoint" in output) is resumed, fault
    codes, output = run(config, tmp_path)
    assert codes == [0], output
    assert_same(final(tmp_path / "whole"), final(tmp_path / "cut"))
    assert not list((tmp_path / "cut").glob(".checkpoint*")), "half-written files are cleared away"


def test_data_workers_and_accumulated_gradients(pretraining_config: dict[str, Any], tmp_path: Path) -> None:
    config = plain(pretraining_config)
    config["fairseq"]["dataset"] |= {"batch_size": 6, "num_workers": 2}  # 2 of 18 videos: 9 batches, 5 updates
    config["fairseq"]["dataset"]["disable_validation"] = True
    config["fairseq"]["optimization"] |= {"update_freq": [2], "max_epoch": 2}
    codes, output = run(in_folder(config, tmp_path / "whole"), tmp_path)
    assert codes == [0], output
    config["fairseq"]["dataset"]["num_workers"] = 0
    in_folder(config, tmp_path / "cut")
    for workers, update in ((0, 4), (1, 9)):
        config["fairseq"]["dataset"]["num_workers"] = workers
        codes, output = run(config, tmp_path, fault=("before_update", update))
        assert codes == [KILLED], output
    codes, output = run(config, tmp_path)
    assert codes == [0], output
    assert_same(final(tmp_path / "whole"), final(tmp_path / "cut"))


def test_two_processes_one_of_which_is_killed(pretraining_config: dict[str, Any], tmp_path: Path) -> None:
    """5 batches for 2 processes: one has a batch less; its padding step counts for nothing.

    Epochs have 3 updates; there is a checkpoint at the end of each, and one after update 7.
    """
    config = plain(pretraining_config)
    config["loss"]["global_negatives"] = True
    config["fairseq"]["dataset"]["batch_size"] = 12
    config["fairseq"]["distributed_training"] = {"ddp_backend": "no_c10d"}
    config["fairseq"]["checkpoint"]["save_interval_updates"] = 7
    codes, output = run(in_folder(config, tmp_path / "whole"), tmp_path, ranks=2)
    assert codes == [0, 0], output
    in_folder(config, tmp_path / "cut")
    codes, output = run(config, tmp_path, ranks=2, fault=("before_update", 6), on=(1,))
    assert codes[1] == KILLED and codes[0] not in (0, KILLED), "the other process ends by itself: " + output
    codes, output = run(config, tmp_path, ranks=2, fault=("before_update", 9), on=(0, 1))
    assert codes == [KILLED, KILLED], output
    assert "Loaded checkpoint" in output
    codes, output = run(config, tmp_path, ranks=2)
    assert codes == [0, 0], output
    assert_same(final(tmp_path / "whole"), final(tmp_path / "cut"))
