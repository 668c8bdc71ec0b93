"""YAML reading, overrides, the schema and its errors."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmpt.utils.config import apply_overrides, fingerprint, load_config, read_yaml, save_config, training_batch_size
from mmpt.utils.errors import ConfigError
from mmpt.utils.schema import validate


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_includes_merge_and_null_switches_off(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "model: {mm_encoder_cls: A, use_seg_emb: true}\ndataset: {max_len: 96}\nxs: [1, 2]\n")
    child = write(tmp_path / "child.yaml", "includes: base.yaml\nmodel: {mm_encoder_cls: null}\nxs: [3]\n")
    config = read_yaml(child)
    assert config.model.mm_encoder_cls is None
    assert config.model.use_seg_emb is True
    assert config.dataset.max_len == 96
    assert list(config.xs) == [3], "lists replace lists"
    assert "includes" not in config


def test_include_errors_name_the_files(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", f"includes: {tmp_path}/b.yaml\n")
    write(tmp_path / "b.yaml", f"includes: {tmp_path}/a.yaml\n")
    with pytest.raises(ConfigError, match="includes itself"):
        read_yaml(tmp_path / "a.yaml")
    missing = write(tmp_path / "c.yaml", "includes: no/such/file.yaml\n")
    with pytest.raises(ConfigError, match=r"no/such/file\.yaml.*included by .*c\.yaml"):
        read_yaml(missing)
    with pytest.raises(ConfigError, match="list.yaml"):
        read_yaml(write(tmp_path / "list.yaml", "- 1\n- 2\n"))
    with pytest.raises(ConfigError, match="broken.yaml"):
        read_yaml(write(tmp_path / "broken.yaml", "a: [1\n"))


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    evil = write(tmp_path / "evil.yaml", f"a: !!python/object/apply:os.mkdir ['{tmp_path}/hacked']\n")
    with pytest.raises(ConfigError):
        read_yaml(evil)
    assert not (tmp_path / "hacked").exists()


def test_overrides_are_yaml_values_and_leave_the_original_alone() -> None:
    config = OmegaConf.create({"fairseq": {"optimization": {"lr": [1.0], "max_epoch": 3}}})
    changed = apply_overrides(config, ["fairseq.optimization.max_epoch=2", "model.init=random", "a.b=[1,2]", "c=null"])
    assert changed.fairseq.optimization.max_epoch == 2
    assert changed.model.init == "random"
    assert list(changed.a.b) == [1, 2]
    assert changed.c is None
    assert config.fairseq.optimization.max_epoch == 3
    with pytest.raises(ConfigError, match="key.sub=value"):
        apply_overrides(config, ["oops"])


def test_unknown_key_names_the_file_and_the_nearest_key(tmp_path: Path) -> None:
    text = "dataset: {aligner: DSAligner, max_vido_len: 32}\n"
    with pytest.raises(ConfigError, match=r"job\.yaml: unknown key 'dataset\.max_vido_len'.*'max_video_len'"):
        load_config(write(tmp_path / "job.yaml", text))
    with pytest.raises(ConfigError, match=r"'datset'.*Did you mean 'dataset'"):
        load_config(write(tmp_path / "top.yaml", "datset: {}\n"))


def test_unknown_class_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.aligner: unknown aligner 'DSAlinger'.*'DSAligner'"):
        load_config(write(tmp_path / "job.yaml", "dataset: {aligner: DSAlinger}\n"))
    with pytest.raises(ConfigError, match="there is no module 'no_such_module'"):
        load_config(write(tmp_path / "own.yaml", "dataset: {aligner: 'no_such_module:X'}\n"))


def test_wrong_type_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"job\.yaml.*max_len"):
        load_config(write(tmp_path / "job.yaml", "dataset: {aligner: DSAligner, max_len: many}\n"))


def test_keys_of_other_classes_are_reported_as_unused() -> None:
    config = OmegaConf.create({"dataset": {"aligner": "DSAligner", "mfm_probability": 0.15}})
    assert validate(config, "x.yaml") == ["dataset.mfm_probability"]


def test_a_users_class_brings_its_own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path / "their_module.py",
        "from dataclasses import dataclass\n\n"
        "@dataclass\nclass Options:\n    wobble: int = 3\n\n"
        "class Theirs:\n    config_options = {'dataset': Options}\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    good = OmegaConf.create({"dataset": {"aligner": "their_module:Theirs", "wobble": 4}})
    assert validate(good, "x.yaml") == []
    with pytest.raises(ConfigError, match="wobble"):
        validate(OmegaConf.create({"dataset": {"aligner": "DSAligner", "wobble": 4}}), "x.yaml")
    with pytest.raises(ConfigError, match="wobble"):
        validate(OmegaConf.create({"dataset": {"aligner": "their_module:Theirs", "wobble": "lots"}}), "x.yaml")


def test_batch_size_counts_clips_and_is_never_stored_divided(tmp_path: Path) -> None:
    config = OmegaConf.create({"dataset": {"subsampling": 32}, "fairseq": {"dataset": {"batch_size": 256}}})
    assert training_batch_size(config) == 8
    save_config(config, tmp_path / "config.yaml")
    assert training_batch_size(read_yaml(tmp_path / "config.yaml")) == 8
    config.fairseq.dataset.batch_size = 16
    with pytest.raises(ConfigError, match="subsampling=32"):
        training_batch_size(config)


def test_fingerprint_sees_values_not_order() -> None:
    one = OmegaConf.create({"a": 1, "b": {"c": 2, "d": 3}})
    same = OmegaConf.create({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint(OmegaConf.create({"a": 1, "b": {"c": 2, "d": 4}}))
