"""Tokenizers by local folder: no constants, no network, clear errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.utils.errors import ConfigError
from mmpt.utils.tokenizers import SpecialIds, load_tokenizer, special_ids

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_folder(folder: Path, vocabulary: list[str]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(vocabulary)}))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return str(folder)


def test_folder_of_config_and_vocabulary_is_enough(tmp_path: Path) -> None:
    name = write_folder(tmp_path / "bert", [*SPECIALS, "cut", "onion", "##s"])
    assert load_tokenizer(name)("Cut onions", add_special_tokens=False)["input_ids"] == [5, 6, 7]
    assert special_ids(name) == SpecialIds(cls=2, sep=3, pad=0, mask=4)


def test_special_ids_come_from_the_vocabulary(tmp_path: Path) -> None:
    name = write_folder(tmp_path / "bert", ["cut", "[MASK]", "[SEP]", "[UNK]", "[PAD]", "[CLS]"])
    assert special_ids(name) == SpecialIds(cls=5, sep=2, pad=4, mask=1)


def test_one_tokenizer_per_name_and_process(tmp_path: Path) -> None:
    name = write_folder(tmp_path / "bert", SPECIALS)
    assert load_tokenizer(name) is load_tokenizer(name)


def test_relative_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert special_ids("tests/data/tiny_bert").cls == 2


def test_folder_without_vocabulary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"holds no vocabulary .*vocab\.txt"):
        load_tokenizer(str(tmp_path))


def test_hub_id_without_network_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the hub\nand more")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", unreachable)
    with pytest.raises(ConfigError, match=r"no-such-bert.*local folder.*config\.json and vocab\.txt") as caught:
        load_tokenizer("no-such-bert")
    assert "\n" not in str(caught.value)


def test_importing_needs_no_transformers() -> None:
    code = "import sys; sys.modules['transformers'] = None; import mmpt.utils.tokenizers, mmpt.processors.how2_aligners"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_folder_is_told_from_one_of_the_same_name_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabularies = []
    for number, word in enumerate(("cut", "fry")):
        here = tmp_path / str(number)
        folder = here / "bert"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 6}')
        (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", word]))
        monkeypatch.chdir(here)
        vocabularies.append(load_tokenizer("bert").get_vocab())
    assert "cut" in vocabularies[0] and "fry" in vocabularies[1]
