"""Loss curves: from lines that fairseq itself writes, resumed and cut-off logs."""

import logging

import pytest

from mmpt.evaluators.training_log import read_training_log
from mmpt.utils.errors import DataError

JSON = """\
05-01 10:00 | INFO | fairseq_cli.train | {'_name': None, 'common': {'log_format': 'json'}}
05-01 10:01 | INFO | fairseq.trainer | begin training epoch 1
05-01 10:02 | INFO | train_inner | {"epoch": 1, "update": 0.5, "loss": "4.5", "num_updates": "10", "lr": "1e-05"}
05-01 10:03 | INFO | train_inner | {"epoch": 1, "update": 1.0, "loss": "3.5", "num_updates": "20", "lr": "2e-05"}
05-01 10:04 | INFO | valid | {"epoch": 1, "valid_loss": "3.9", "valid_num_updates": "20", "valid_best_loss": "3.9"}
05-01 10:05 | INFO | train | {"epoch": 1, "train_loss": "4.0", "train_num_updates": "20", "train_lr": "2e-05"}
"""
SIMPLE = """\
05-01 10:02 | INFO | train_inner | epoch 001:     10 / 20 loss=4.5, wps=0, num_updates=10, lr=1e-05
05-01 10:03 | INFO | train_inner | epoch 001:     20 / 20 loss=3.5, wps=0, num_updates=20, lr=2e-05
05-01 10:04 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 3.9 | num_updates 20 | best_loss 3.9
05-01 10:05 | INFO | fairseq_cli.train | end of epoch 1 (average epoch stats below)
05-01 10:05 | INFO | train | epoch 001 | loss 4.0 | num_updates 20 | lr 2e-05
"""


def check(log):
    assert log.inner.updates.tolist() == [10, 20]
    assert log.inner.values.tolist() == [4.5, 3.5]
    assert (log.valid.updates.tolist(), log.valid.values.tolist()) == ([20], [3.9])
    assert (log.epochs.updates.tolist(), log.epochs.values.tolist()) == ([20], [4.0])
    assert log.damaged_lines == 0
    assert log


@pytest.mark.parametrize("text", [JSON, SIMPLE])
@pytest.mark.parametrize("prefix", [True, False])
def test_formats_with_and_without_prefix(tmp_path, text, prefix):
    path = tmp_path / "log.txt"
    path.write_text(text if prefix else "".join(line.split(" | ", 3)[3] for line in text.splitlines(keepends=True)))
    check(read_training_log(path))
    assert read_training_log(path, "lr").inner.values.tolist() == [1e-5, 2e-5]


@pytest.mark.parametrize("log_format", ["json", "simple"])
def test_lines_written_by_fairseq(tmp_path, log_format):
    pytest.importorskip("fairseq")
    from fairseq.logging import progress_bar

    handler = logging.FileHandler(tmp_path / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | %(name)s | %(message)s"))
    old_level = progress_bar.logger.level
    progress_bar.logger.addHandler(handler)
    progress_bar.logger.setLevel(logging.INFO)
    try:
        bar = progress_bar.progress_bar(range(20), log_format, log_interval=10, epoch=1)
        for step, _ in enumerate(bar, 1):
            loss = {10: 4.5, 20: 3.5}.get(step, 0.0)
            bar.log({"loss": loss, "num_updates": step, "lr": 1e-5}, tag="train_inner", step=step)
        bar.print({"loss": 4.0, "num_updates": 20}, tag="train", step=20)
        valid = progress_bar.progress_bar(range(2), log_format, epoch=1, prefix="valid on 'valid' subset")
        valid.print({"loss": 3.9, "num_updates": 20, "best_loss": 3.9}, tag="valid", step=20)
    finally:
        progress_bar.logger.removeHandler(handler)
        progress_bar.logger.setLevel(old_level)
        handler.close()
    check(read_training_log(tmp_path / "log.txt"))


@pytest.mark.parametrize(
    "text",
    [
        '{"epoch": 1, "loss": "4", "bsz": "64", "num_updates": "10"}\n'
        '{"epoch": 1, "loss": "4", "bsz": "64", "num_updates": "20"}\n'
        '{"epoch": 1, "loss": "3", "bsz": "17", "num_updates": "30"}\n'
        '{"epoch": 1, "valid_loss": "3", "valid_bsz": "48", "valid_num_updates": "30"}\n',
        "epoch 001:     10 / 20 loss=4.5, bsz=64, num_updates=10\n"
        "epoch 001 | valid on 'valid' subset | loss 3.9 | bsz 48 | num_updates 20\n",
    ],
)
def test_usual_batch_sizes(tmp_path, text):
    (tmp_path / "log.txt").write_text(text)
    log = read_training_log(tmp_path / "log.txt")
    assert (log.train_batch, log.valid_batch) == (64, 48)


def test_batch_sizes_that_were_not_logged(tmp_path):
    (tmp_path / "log.txt").write_text(JSON)
    log = read_training_log(tmp_path / "log.txt")
    assert (log.train_batch, log.valid_batch) == (None, None)


def test_resumed_run_counts_the_later_line(tmp_path):
    later = JSON.replace('"loss": "3.5"', '"loss": "3.25"').replace('"valid_loss": "3.9"', '"valid_loss": "3.75"')
    (tmp_path / "log.txt").write_text(JSON + later)
    log = read_training_log(tmp_path / "log.txt")
    assert log.inner.values.tolist() == [4.5, 3.25]
    assert log.valid.values.tolist() == [3.75]


def test_cut_lines_are_counted_and_nan_is_kept(tmp_path):
    lines = JSON.replace('"4.5"', '"nan"') + '2025-05-01 | INFO | train_inner | {"epoch": 2, "update": 1.2, "lo\n'
    (tmp_path / "log.txt").write_text(lines)
    log = read_training_log(tmp_path / "log.txt")
    assert log.damaged_lines == 1
    assert str(log.inner.values.tolist()) == "[nan, 3.5]"


def test_log_of_something_else_is_empty(tmp_path):
    (tmp_path / "log.txt").write_text("100 videos done\nepoch of glaciers | not a loss\n")
    assert not read_training_log(tmp_path / "log.txt")
    with pytest.raises(DataError, match="no such log file"):
        read_training_log(tmp_path / "other.txt")
