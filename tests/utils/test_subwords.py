"""Tokenizers: the encodings of the published files, if they are beside the repository, and of small ones."""

import json
import pickle
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.modules import merlot_tokens, reserve_tokens
from mmpt.utils.errors import ConfigError
from mmpt.utils.subwords import Subwords, load_subwords

GOLDENS = Path(__file__).resolve().parents[3] / "shared" / "goldens"
if not GOLDENS.exists():  # a worktree lies one folder deeper
    GOLDENS = GOLDENS.parents[2] / "shared" / "goldens"
PUBLISHED = {"merlot": GOLDENS / "merlot", "reserve": GOLDENS / "reserve" / "lowercase_encoder.json"}

needs_published = pytest.mark.skipif(
    not (PUBLISHED["merlot"] / "vocab.bpe").exists(), reason="the published tokenizer files are not here"
)


def golden(kind: str) -> dict[str, Any]:
    return json.loads((GOLDENS / kind / "tokenizer_ref.json").read_text(encoding="utf-8"))


def published(kind: str, **options: Any) -> Subwords:
    return load_subwords(str(PUBLISHED[kind]), **options)


@needs_published
@pytest.mark.parametrize("kind", ["merlot", "reserve"])
def test_encodings_are_the_published_ones(kind: str) -> None:
    subwords = published(kind)
    assert subwords.kind == kind
    shift = 100 if kind == "merlot" else 0
    for text, ids in golden(kind)["ids"].items():
        # the reference of MERLOT holds the ids of GPT-2
        assert subwords.encode(text) in (ids, [id + shift for id in ids]), text
        assert kind == "reserve" or subwords.decode(subwords.encode(text)) == text
    for text, decoded in golden(kind).get("decoded", {}).items():
        assert subwords.decode(golden(kind)["ids"][text]) == decoded


@needs_published
def test_merlot_lacks_its_last_merge_unless_it_is_asked_for() -> None:
    assert len(published("merlot").encode(" gazed")) == 2
    assert len(published("merlot", keep_last_merge=True).encode(" gazed")) == 1
    assert published("merlot").vocab_size == 50357
    assert published("reserve").vocab_size == 32768


@needs_published
@pytest.mark.parametrize("kind", ["merlot", "reserve"])
def test_words_are_encoded_as_in_running_text(kind: str) -> None:
    subwords = published(kind)
    text = "in this video I'll be making 12 cups -- of Café, don't you? naïve 你好"
    words = subwords.encode_words(text.split())
    assert len(words) == len(text.split())
    running = subwords.encode(f" {text}")
    assert kind == "reserve" or list(chain(*words)) == running
    begin = list(chain(*words[:9]))
    assert begin == running[: len(begin)]
    assert subwords.encode_words(["", "a"])[0] == []
    assert subwords.encode_words(["twice", "twice"])[0] == subwords.encode_words(["twice"])[0]


@needs_published
@pytest.mark.parametrize("kind", ["merlot", "reserve"])
def test_special_ids_are_those_of_the_models(kind: str) -> None:
    subwords = published(kind)
    constants = {"merlot": merlot_tokens, "reserve": reserve_tokens}[kind]
    assert subwords.special == constants.SPECIAL
    for name, id in subwords.special.items():
        assert getattr(constants, name) == id
        assert subwords.decode([id, 500, id]) == f"<|{name}|>{subwords.decode([500])}<|{name}|>"
        assert subwords.encode(f"<|{name}|>") == [id] or kind == "merlot"
    assert subwords.decode([subwords.vocab_size, -1]) == f"<|{subwords.vocab_size}|><|-1|>"


@needs_published
@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_merlot_gives_every_text_back(text: str) -> None:
    subwords = published("merlot")
    ids = subwords.encode(text)
    assert subwords.decode(ids) == text and all(id >= 100 for id in ids)
    assert all(id >= 10 for word in published("reserve").encode_words(text.split()) for id in word) or "<|" in text


def test_one_object_per_process_and_errors_that_name_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.tokenizer: 'nowhere' is neither a folder"):
        load_subwords("nowhere")
    (tmp_path / "bad.json").write_text('{"version": "1.0"}')
    with pytest.raises(ConfigError, match=r"dataset\.tokenizer: .*bad\.json is no usable tokenizer"):
        load_subwords(str(tmp_path / "bad.json"))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "encoder.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "m" / "vocab.bpe").write_text("#version: 0.2\na b\n")
    with pytest.raises(ConfigError, match=r"vocab\.bpe does not fit encoder\.json"):
        load_subwords(str(tmp_path / "m"))
    (tmp_path / "m" / "encoder.json").write_text('{"a": 0, "b": 1, "ab": 2}')
    (tmp_path / "m" / "vocab.bpe").write_text("#version: 0.2\na b")
    assert load_subwords(str(tmp_path / "m")).encode("ab") == [100, 101]
    assert load_subwords(str(tmp_path / "m"), keep_last_merge=True).encode("ab") == [102]
    subwords = load_subwords(str(tmp_path / "m"))
    assert subwords is load_subwords(str(tmp_path / "m")) is pickle.loads(pickle.dumps(subwords))
