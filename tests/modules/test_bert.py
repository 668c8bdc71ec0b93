"""BERT: numbers equal to transformers', weights from every layout that published folders have."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmpt.modules.bert import BertConfig, BertModel, read_bert_config, read_bert_weights
from mmpt.utils.checkpoint import load_into
from mmpt.utils.errors import CheckpointError, ConfigError
from mmpt.utils.files import REPOSITORY

TINY = str(REPOSITORY / "tests/data/tiny_bert")


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    model = BertModel(read_bert_config(TINY))
    return {key: torch.randn(value.shape, generator=generator) * 0.1 for key, value in model.state_dict().items()}


def folder(path: Path, name: str, state: dict[str, torch.Tensor]) -> str:
    (path / "config.json").write_text((Path(TINY) / "config.json").read_text())
    if name.endswith(".safetensors"):
        save_file(state, path / name)
    else:
        torch.save(state, path / name)
    return str(path)


def test_states_equal_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertModel(transformers.BertConfig.from_pretrained(TINY)).eval()
    ours = BertModel(read_bert_config(TINY)).eval()
    ours.load_state_dict(weights())
    assert set(theirs.state_dict()) - {"embeddings.position_ids"} == set(ours.state_dict())
    theirs.load_state_dict(weights(), strict=False)
    ids = torch.randint(64, (3, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.arange(9)[None] < torch.tensor([[9], [4], [1]])
    types = (torch.arange(9)[None] > 3).long().expand(3, 9)
    wanted = theirs(ids, mask.long(), types, output_hidden_states=True)
    output = ours(ids, mask, types, output_hidden_states=True)
    for one, other in zip(output.hidden_states, wanted.hidden_states, strict=True):
        torch.testing.assert_close(one[mask], other[mask], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.pooler(output.last_hidden_state), wanted.pooler_output, atol=1e-5, rtol=1e-5)


def legacy(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for key, value in state.items():
        if "LayerNorm" in key:
            key = key.replace("weight", "gamma").replace("bias", "beta")
        renamed["bert." + key] = value
    return {
        **renamed,
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "cls.predictions.bias": torch.zeros(64),
        "cls.seq_relationship.weight": torch.zeros(2, 32),
    }


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("layout", ["plain", "prefixed", "legacy"])
def test_every_layout_of_a_weights_folder_loads(tmp_path: Path, name: str, layout: str) -> None:
    state = weights()
    written = {
        "plain": state,
        "prefixed": {"bert." + key: value for key, value in state.items()},
        "legacy": legacy(state),
    }[layout]
    loaded, source = read_bert_weights(folder(tmp_path, name, written))
    model = BertModel(read_bert_config(TINY))
    model.load_pretrained(loaded, source)
    assert source.endswith(name)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_a_shallower_model_takes_the_first_layers_and_a_deeper_one_is_refused() -> None:
    state = weights()
    shallow = BertModel(read_bert_config(TINY, num_hidden_layers=2))
    shallow.load_pretrained(state, "here")
    assert torch.equal(shallow.encoder.layer[1].output.dense.weight, state["encoder.layer.1.output.dense.weight"])
    deep = BertModel(read_bert_config(TINY, num_hidden_layers=4))
    with pytest.raises(CheckpointError, match=r"here: .*16 missing keys: encoder\.layer\.3"):
        deep.load_pretrained(state, "here")


def test_a_file_without_pooler_is_accepted_and_other_gaps_are_not() -> None:
    state = {key: value for key, value in weights().items() if not key.startswith("pooler")}
    model = BertModel(read_bert_config(TINY))
    model.load_pretrained(state, "here")
    del state["embeddings.LayerNorm.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing keys: embeddings\.LayerNorm\.bias"):
        model.load_pretrained(state, "here")


def test_old_files_with_position_ids_load_strictly() -> None:
    model = BertModel(read_bert_config(TINY))
    state = {**weights(), "embeddings.position_ids": torch.arange(64)[None]}
    report = load_into(model, state)
    assert report.unexpected == ("embeddings.position_ids",) and not report.missing


def test_config_is_read_with_additions_and_without_transformers() -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from mmpt.modules.bert import read_bert_config\n"
        f"config = read_bert_config({TINY!r}, num_hidden_layers=1, input_dim=7)\n"
        "print(config.hidden_size, config.num_hidden_layers, config.input_dim, config.hidden_dropout_prob)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["32", "1", "7", "0.0"]


def test_a_relative_folder_is_found_below_the_repository(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_bert_config("tests/data/tiny_bert").vocab_size == 64


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder '/no/such'"):
        read_bert_config("/no/such")
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        read_bert_config(str(tmp_path))
    with pytest.raises(CheckpointError, match=r"model\.init: random"):
        read_bert_weights(TINY)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    with pytest.raises(ConfigError, match="'roberta'"):
        read_bert_config(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"position_embedding_type": "relative_key"}))
    with pytest.raises(ConfigError, match="relative_key"):
        read_bert_config(str(tmp_path))


def test_hub_ids_go_through_the_cache_of_transformers(tmp_path: Path, monkeypatch) -> None:
    utils = pytest.importorskip("transformers.utils")
    folder(tmp_path, "pytorch_model.bin", weights())
    asked = []

    def cached_file(name, filename, **options):
        asked.append((name, filename))
        return str(tmp_path / filename) if (tmp_path / filename).exists() else None

    monkeypatch.setattr(utils, "cached_file", cached_file)
    assert read_bert_config("someone/bert").hidden_size == 32
    state, source = read_bert_weights("someone/bert")
    assert "pooler.dense.weight" in state and source.endswith("pytorch_model.bin")
    assert asked[-2:] == [("someone/bert", "model.safetensors"), ("someone/bert", "pytorch_model.bin")]

    def refuse(*args, **options):
        raise OSError("We couldn't connect")

    monkeypatch.setattr(utils, "cached_file", refuse)
    with pytest.raises(ConfigError, match="'someone/bert' is neither a folder nor a model that could be fetched"):
        read_bert_config("someone/bert")


def test_defaults_are_those_of_bert_base() -> None:
    with torch.device("meta"):
        model = BertModel(BertConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 109_482_240
    assert dataclasses.replace(BertConfig(), num_hidden_layers=6).transformer().num_layers == 6
