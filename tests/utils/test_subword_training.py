"""Training tokenizers: deterministic, in the published layout, special ids in their places."""

import json
from pathlib import Path

import pytest

from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.subword_training import KINDS, train_subwords
from mmpt.utils.subwords import load_subwords

TEXTS = ["we mix the flour, and we Mix the eggs", "don't mix the naïve crème 你好", "the flour again"] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_files(tmp_path: Path, kind: str) -> None:
    first = train_subwords(kind, TEXTS, 400, tmp_path / "a")
    second = train_subwords(kind, iter(TEXTS), 400, tmp_path / "b")
    assert [file.name for file in first] == [file.name for file in second]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_tokenizer_is_read_like_the_published_one(tmp_path: Path, kind: str) -> None:
    train_subwords(kind, TEXTS, 380, tmp_path)
    subwords = load_subwords(str(tmp_path))
    assert subwords.kind == kind and 270 < subwords.vocab_size <= 380
    first = 100 if kind == "merlot" else 10
    for text in (" unseen words: ÄÖ 你 \t♥", " we mix the flour"):
        ids = subwords.encode(text)
        assert min(ids) >= first and max(ids) < subwords.vocab_size
        if kind == "merlot":
            assert subwords.decode(ids) == text
    (flour,) = subwords.encode_words(["flour"])
    assert len(flour) < 3
    if kind == "merlot":
        merges = (tmp_path / "vocab.bpe").read_text(encoding="utf-8")
        assert merges.startswith("#version: 0.2\n") and merges.endswith("\n")
        vocabulary = json.loads((tmp_path / "encoder.json").read_text(encoding="utf-8"))
        assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
        assert load_subwords(str(tmp_path), keep_last_merge=True).encode_words(["flour"]) == [flour]
    else:
        assert subwords.encode("x<|MASK|>")[-1] == 3 and subwords.encode("<|RESETCTX|>") == [9]


@pytest.mark.parametrize(("first", "second"), [("merlot", "reserve"), ("reserve", "merlot")])
def test_two_tokenizers_do_not_share_a_folder(tmp_path: Path, first: str, second: str) -> None:
    """Which of them dataset.tokenizer means would be a matter of chance."""
    train_subwords(first, TEXTS, 380, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(DataError, match="would not say which tokenizer it is"):
        train_subwords(second, TEXTS, 380, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    train_subwords(first, TEXTS, 380, tmp_path)  # anew
    for file in train_subwords(second, TEXTS, 380, tmp_path / "other"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="holds MERLOT's files and MERLOT Reserve's"):
        load_subwords(str(tmp_path))
    assert load_subwords(str(tmp_path / "lowercase_encoder.json")).kind == "reserve"


def test_what_cannot_be_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="356|357"):
        train_subwords("merlot", TEXTS, 300, tmp_path)
    with pytest.raises(DataError, match="no text"):
        train_subwords("reserve", [""], 300, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="'gpt'"):
        train_subwords("gpt", TEXTS, 300, tmp_path)
