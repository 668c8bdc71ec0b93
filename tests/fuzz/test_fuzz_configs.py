"""YAML configs: damaged, arbitrary, hostile; they are read, or refused by name, and nothing in them runs."""

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutations import examples, mutated, reads_or_refuses, structures

from mmpt.utils.config import apply_overrides, load_config, read_yaml
from mmpt.utils.errors import ConfigError
from mmpt.utils.files import REPOSITORY

SEED = (REPOSITORY / "projects/task/vtt.yaml").read_bytes()
KEYS = ("includes", "dataset", "model", "loss", "task", "fairseq", "meta_processor", "vfeat_dir")


def both(file: Path) -> None:
    reads_or_refuses(lambda: read_yaml(file), file)
    reads_or_refuses(lambda: load_config(file), file)


def check_bytes(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(content)
    both(file)


@given(content=mutated(SEED))
@examples(25)
def test_damaged_yaml(tmp_path, content):
    check_bytes(tmp_path, content)


@pytest.mark.slow
@given(content=mutated(SEED))
@examples(200)
def test_damaged_yaml_at_length(tmp_path, content):
    check_bytes(tmp_path, content)


@given(value=structures(*KEYS))
@examples(40)
def test_arbitrary_structures(tmp_path, value):
    """JSON is YAML, and keeps what yaml.dump cannot write."""
    check_bytes(tmp_path, json.dumps(value).encode())


@given(text=st.text("{}[]&*!|>-:#,?%@`'\"ab01.$ \n", max_size=60))
@examples(60)
def test_marks_of_yaml(tmp_path, text):
    check_bytes(tmp_path, text.encode())


@given(text=st.text("${}.:,[]()'\"\\abocenvHOME ", max_size=30))
@examples(40)
def test_interpolations(tmp_path, text):
    check_bytes(tmp_path, yaml.safe_dump({"dataset": {"vfeat_dir": text}, "task": f"${{{text}}}"}).encode())


@given(override=st.one_of(st.text(max_size=20), st.text("abt.=[]{}:-0&*!'\"$ \n\0", max_size=20)))
@examples(150)
def test_overrides(tmp_path, override):
    config = read_yaml(REPOSITORY / "projects/task/vtt.yaml")
    try:
        apply_overrides(config, [override])
    except ConfigError as error:
        assert "-o" in str(error)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {made}']",
        "!!python/object/new:subprocess.check_call [['touch', '{made}']]",
        "!!python/object/apply:builtins.open ['{made}', 'w']",
        "!!python/name:os.system",
        "!!python/module:antigravity",
    ],
)
def test_python_tags_are_refused_and_not_run(tmp_path, tag):
    made, file = tmp_path / "made", tmp_path / "job.yaml"
    text = tag.format(made=made)
    file.write_text(f"dataset:\n  vfeat_dir: {text}\n")
    with pytest.raises(ConfigError, match=r"job\.yaml"):
        load_config(file)
    with pytest.raises(ConfigError, match="vfeat_dir"):
        apply_overrides(read_yaml(REPOSITORY / "projects/task/vtt.yaml"), [f"dataset.vfeat_dir={text}"])
    assert not made.exists()


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {a: *a}",
        "a: &a [*a]",
        "a: 2001-99-99",
        "a: !!int ''",
        "a: !!float x",
        "a: !!binary é",
        "a: !!timestamp x",
        "a: " + "[" * 5000,
        "{}: 1",
        "[1]: 1",
        "? [a]\n: 1",
        "null: 1",
        "<<: 1",
        "<<: [1]",
        "a: " + "9" * 5000,
        "includes: {a: b}",
        "includes: [1, null]",
        "includes: [[a]]",
        "includes: 3",
        "includes: ${nothing}",
        'includes: "a\\0b"',
        "includes: .",
        "includes: " + "a" * 5000,
        "task: ${nothing}",
        "dataset: ${dataset}",
        "dataset: ${task}\ntask: ${dataset}",
        "dataset: {split: '${oc.env:MMPT_NO_SUCH_VARIABLE}'}",
        "dataset: {split: '${no.such.resolver:a}'}",
        "task: '" + "${" * 2000 + "'",
    ],
)
def test_faults_met(tmp_path, text):
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"job\.yaml"):
        load_config(file)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("leaf", ["[{}]", "{{k: {}}}"])
def test_aliases_that_multiply_are_refused(tmp_path, leaf):
    """Nine aliases of nine aliases of ..: kilobytes of YAML, terabytes of config."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    file = tmp_path / "job.yaml"
    file.write_text("\n".join(lines) + f"\ndataset: {leaf.format('*a11')}\n")
    with pytest.raises(ConfigError, match=r"job\.yaml.*aliases"):
        read_yaml(file)


def test_aliases_in_measure_are_read(tmp_path):
    (tmp_path / "job.yaml").write_text("model: &m {a: 1, b: [1, 2]}\nloss: *m\neval: {<<: *m, c: 2}\n")
    config = read_yaml(tmp_path / "job.yaml")
    assert config.loss.b == [1, 2] and config.eval.a == 1 and config.eval.c == 2


def test_environment_is_read_where_a_config_asks_and_never_written_out(tmp_path, monkeypatch):
    """``${oc.env:NAME}`` is allowed: the folder of the data differs from machine to machine.

    It is resolved when a value is used, so that a saved config holds the name of the variable and not its value.
    """
    from mmpt.utils.config import save_config

    monkeypatch.setenv("MMPT_FUZZ_FOLDER", "/data/features")
    file = tmp_path / "job.yaml"
    file.write_text("dataset: {vfeat_dir: '${oc.env:MMPT_FUZZ_FOLDER}/s3d', meta_processor: DiDeMoMetaProcessor}\n")
    config = load_config(file)
    assert config.dataset.vfeat_dir == "/data/features/s3d"
    save_config(config, tmp_path / "saved.yaml")
    assert "/data/features" not in (tmp_path / "saved.yaml").read_text()
    monkeypatch.delenv("MMPT_FUZZ_FOLDER")
    with pytest.raises(ConfigError, match=r"job\.yaml.*MMPT_FUZZ_FOLDER"):
        load_config(file)
    assert os.environ.get("MMPT_FUZZ_FOLDER") is None
