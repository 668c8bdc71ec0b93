"""Zero-shot or fine-tuned: what the run folder of the checkpoint says, never its name."""

import pytest

from mmpt.evaluators.setting import setting_of


def config_of(folder, **evaluation):
    return {"fairseq": {"common_eval": {"path": str(folder / "checkpoint_best.pt")}}, "eval": evaluation}


@pytest.mark.parametrize(
    ("restored", "expected"),
    [
        ("null", "zero-shot"),
        ("runs/pretraining/checkpoint_best.pt", "fine-tuned"),
        ("checkpoint_last.pt", "zero-shot"),  # fairseq's default: the run resumes itself
        ("{folder}/checkpoint7.pt", "zero-shot"),
        ("{folder}/../checkpoint7.pt", "fine-tuned"),
    ],
)
@pytest.mark.parametrize("name", ["vtt_zs", "vtt_ft"])
def test_restore_file_decides(tmp_path, name, restored, expected):
    folder = tmp_path / name
    folder.mkdir()
    restore = restored.format(folder=folder)
    (folder / "config.yaml").write_text(f"fairseq: {{checkpoint: {{restore_file: {restore}, save_dir: {folder}}}}}")
    assert setting_of(config_of(folder)) == expected
    assert setting_of(config_of(folder, setting="")) == expected
    assert setting_of(config_of(folder, setting="frozen")) == "frozen"


def test_training_from_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text("fairseq: {optimization: {lr: [0.1]}}")
    assert setting_of(config_of(tmp_path)) == "zero-shot"


@pytest.mark.parametrize("content", [None, "a: [", "- 1", "other: {}", "", b"\xff\xfe\x00"])
def test_unknown_where_nothing_usable_lies_beside(tmp_path, content):
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert setting_of(config_of(tmp_path)) == "-"
    assert setting_of({}) == "-"
