"""The caption scripts: de-duplicate and tokenise into shards that line up with the feature shards."""

import importlib.util
import json
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmpt.store import token_shards
from mmpt.store.token_encoder import encode_transcript, tokenizer_name, vocabulary_checksum
from mmpt.store.token_shards import TokenShardJob
from mmpt.store.transcripts import Transcript
from mmpt.utils.errors import DataError
from mmpt.utils.files import sole_writer
from mmpt.utils.shardedtensor import ShardedTensor
from mmpt.utils.tokenizers import load_tokenizer

pytest.importorskip("transformers")

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "text_token_extractor"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cut", "the", "onion", "##s", "fry", "it", "now"]
ID = {word: number for number, word in enumerate(WORDS)}


def script(name):
    spec = importlib.util.spec_from_file_location(f"text_token_extractor_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dedup, pretokenization = script("dedup"), script("pretokenization")


def make_tokenizer(folder, words=WORDS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(words)}))
    return str(folder)


def entry(*rows):
    return {"start": [r[0] for r in rows], "end": [r[1] for r in rows], "text": [r[2] for r in rows]}


@pytest.fixture
def corpus(tmp_path):
    """Ten videos of train (two shards, one without captions and one with none usable) and one of val."""
    captions = {f"v{i}": entry((i, i + 1.5, "cut the onions"), (i + 2, i + 3, "fry it now")) for i in range(10)}
    del captions["v3"]
    captions["v5"] = entry((4, 2, "backwards"))
    captions["w0"] = entry((0, 1, "CUT"))
    (tmp_path / "caps.json").write_text(json.dumps(captions))
    feat = tmp_path / "feat"
    feat.mkdir()
    (feat / "train_meta.json").write_text(
        json.dumps({"0": [f"v{i}" for i in (4, 3, 2, 1, 0)], "1": [f"v{i}" for i in range(5, 10)]})
    )
    (feat / "val_meta.pkl").write_bytes(pickle.dumps({0: ["w0"]}))
    make_tokenizer(tmp_path / "models" / "tiny bert")
    return tmp_path


def flags(corpus, *more):
    return [
        *("--captions", str(corpus / "caps.json"), "--tokenizer", str(corpus / "models" / "tiny bert")),
        *("--vfeat-dir", str(corpus / "feat"), "--workers", "1", *more),
    ]


def test_shards_line_up_with_the_feature_shards(corpus, capsys):
    assert pretokenization.main(flags(corpus)) == 0
    prefix = f"{corpus}/feat/caps.tiny_bert."
    out = capsys.readouterr().out
    assert f"dataset.tfeat_dir: {prefix}" in out
    assert "done 3, skipped 0 shards; 11 videos with 17 clips written, failed 1 videos" in out
    assert "1 videos missing from the captions" in out and "1 videos without a usable clip" in out
    times, ids = (ShardedTensor.load(f"{prefix}train_0.{kind}") for kind in ("startends", "caps_ids"))
    assert times.ids == ids.ids == ["v4", "v3", "v2", "v1", "v0"]
    assert times.lengths().tolist() == ids.lengths().tolist() == [2, 0, 2, 2, 2]
    assert (times.data.dtype, ids.data.dtype, ids.data.shape[1]) == (np.float32, np.int32, 32)
    assert times[0].tolist() == [[4.0, 5.5], [6.0, 7.0]]
    assert ids[4][0].tolist() == [ID[w] for w in ("cut", "the", "onion", "##s")] + [-1] * 28
    assert ids[4][1].tolist() == [ID[w] for w in ("fry", "it", "now")] + [-1] * 29
    assert ShardedTensor.load(f"{prefix}train_1.caps_ids").lengths().tolist() == [0, 2, 2, 2, 2]
    assert ShardedTensor.load(f"{prefix}val_0.caps_ids")[0].tolist() == [[ID["cut"]] + [-1] * 31]
    producer = ids.index["producer"]
    assert producer["tokenizer"] == "tiny_bert" and producer["max_tokens"] == 32
    train, val = (json.loads(Path(f"{prefix}{split}_manifest.json").read_text()) for split in ("train", "val"))
    assert train["shards"] == {"train_0": 5, "train_1": 5} and val["shards"] == {"val_0": 1}
    assert (train["clips"], val["clips"], train["videos_without_clips"]) == (16, 1, 2)
    assert train["last_run"]["counts"]["videos missing from the captions (stored as empty items)"] == 1
    assert val["last_run"] == {"shards_written": 1, "counts": {}}


def test_a_manifest_does_not_forget_other_splits_and_kept_shards(corpus):
    prefix = f"{corpus}/feat/caps.tiny_bert."
    assert pretokenization.main(flags(corpus, "--split", "train")) == 0
    assert pretokenization.main(flags(corpus, "--split", "val")) == 0
    train = json.loads(Path(f"{prefix}train_manifest.json").read_text())
    assert train["shards"] == {"train_0": 5, "train_1": 5} and train["clips"] == 16
    for file in Path(corpus / "feat").glob("*train_1.*_index.json"):
        file.unlink()
    assert pretokenization.main(flags(corpus)) == 0
    again = json.loads(Path(f"{prefix}train_manifest.json").read_text())
    assert (again["clips"], again["last_run"]["shards_written"]) == (16, 1)
    Path(f"{prefix}val_manifest.json").unlink()  # as if killed before it
    assert pretokenization.main(flags(corpus)) == 0
    assert json.loads(Path(f"{prefix}val_manifest.json").read_text())["clips"] == 1


def test_two_runs_do_not_write_one_output(corpus, capsys):
    with sole_writer(corpus / "feat" / ".caps.tiny_bert.lock"):
        assert pretokenization.main(flags(corpus)) == 2
    assert "another run is writing there" in capsys.readouterr().err
    dedup_flags = ["--input", str(corpus / "caps.json"), "--output", str(corpus / "o.json")]
    with sole_writer(corpus / ".o.json.lock"):
        assert dedup.main(dedup_flags) == 2
    assert "another run is writing there" in capsys.readouterr().err
    assert dedup.main(dedup_flags) == 0


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left"), 2)])
def test_interruption_is_one_line(corpus, capsys, monkeypatch, error, code):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(pretokenization, "TokenShardJob", broken)
    monkeypatch.setattr(dedup, "deduplicate_file", broken)
    assert pretokenization.main(flags(corpus)) == code
    assert dedup.main(["--input", "a.json", "--output", "b.json"]) == code
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_share_is_between_0_and_1(corpus):
    for share in ("-0.1", "1.1", "nan"):
        with pytest.raises(SystemExit) as caught:
            pretokenization.main(flags(corpus, "--max-missing", share))
        assert caught.value.code == 2


def run(corpus, capsys, *more):
    assert pretokenization.main(flags(corpus, *more)) == 0
    return capsys.readouterr().out.splitlines()[0]


def test_only_what_changed_is_done_again(corpus, capsys):
    assert run(corpus, capsys).startswith("done 3, skipped 0")
    assert run(corpus, capsys).startswith("done 0, skipped 3")
    assert run(corpus, capsys, "--force").startswith("done 3, skipped 0")

    data = corpus / "feat" / "caps.tiny_bert.train_0.caps_ids_data.npy"
    content = bytearray(data.read_bytes())
    content[-4] ^= 1
    data.write_bytes(content)
    assert run(corpus, capsys).startswith("done 1, skipped 2")
    (corpus / "feat" / "caps.tiny_bert.train_1.startends_index.json").unlink()
    assert run(corpus, capsys).startswith("done 1, skipped 2")
    (corpus / "feat" / "val_meta.pkl").write_bytes(pickle.dumps({0: ["w0", "v1"]}))
    assert run(corpus, capsys).startswith("done 1, skipped 2")
    # Another tokenizer in a folder of the same name, other captions, another limit: everything again.
    make_tokenizer(corpus / "models" / "tiny bert", [*WORDS, "pan"])
    load_tokenizer.__globals__["_load"].cache_clear()
    assert run(corpus, capsys).startswith("done 3, skipped 0")
    assert run(corpus, capsys, "--max-tokens", "3").startswith("done 3, skipped 0")
    captions = json.loads((corpus / "caps.json").read_text())
    captions["v9"]["text"][0] = "fry"
    (corpus / "caps.json").write_text(json.dumps(captions))
    assert run(corpus, capsys, "--max-tokens", "3").startswith("done 3, skipped 0")
    shard = ShardedTensor.load(corpus / "feat" / "caps.tiny_bert.train_1.caps_ids")
    assert shard[4].tolist() == [[ID["fry"], -1, -1], [ID["fry"], ID["it"], ID["now"]]]


def test_the_public_yaml_form(corpus, capsys):
    target = corpus / "feat"
    yaml = corpus / "bert.yaml"
    pickled = {name: json.dumps(value) for name, value in json.loads((corpus / "caps.json").read_text()).items()}
    (corpus / "raw_caption_dedup.pkl").write_bytes(pickle.dumps(pickled))
    settings = {
        "bert_name": str(corpus / "models" / "tiny bert"),
        "use_fast": True,
        "caption_pkl_path": str(corpus / "raw_caption_dedup.pkl"),
        "target_dir": str(target),
    }
    yaml.write_text(json.dumps({"dataset": settings}))
    assert pretokenization.main([str(yaml), "--workers", "1"]) == 0
    shard = ShardedTensor.load(target / "raw_caption_dedup.tiny_bert.train_0.startends")
    assert shard.lengths().tolist() == [2, 0, 2, 2, 2]

    for wrong, message in (
        ({"bert_nam": "x"}, "unknown key dataset.bert_nam. Did you mean 'bert_name'?"),
        ({"target_dir": None}, "dataset.target_dir not set"),
        ({"caption_pkl_path": "nowhere.pkl"}, "nowhere.pkl: cannot be read"),
        ({"target_dir": str(corpus / "models")}, "shard the video features first"),
    ):
        yaml.write_text(json.dumps({"dataset": {**settings, **wrong}}))
        assert pretokenization.main([str(yaml), "--workers", "1"]) == 2
        assert message in capsys.readouterr().err


def test_the_shipped_yaml_names_only_known_keys(capsys):
    shipped = FOLDER / "configs" / "bert-base-uncased.yaml"
    assert pretokenization.main([str(shipped), "--workers", "1"]) == 2  # the corpus is not there
    assert "train_meta.json" in capsys.readouterr().err


def test_meta_names_folder_and_split(corpus, capsys):
    arguments = flags(corpus)
    at = arguments.index("--vfeat-dir")
    arguments[at : at + 2] = ["--meta", str(corpus / "feat" / "val_meta.pkl"), "--output", f"{corpus}/out/tok."]
    assert pretokenization.main(arguments) == 0
    assert sorted(p.name for p in (corpus / "out").glob("*_index.json")) == [
        "tok.val_0.caps_ids_index.json",
        "tok.val_0.startends_index.json",
    ]
    arguments[at + 1] = str(corpus / "caps.json")
    assert pretokenization.main(arguments) == 2
    assert "<split>_meta.json" in capsys.readouterr().err


def test_captions_of_another_corpus_are_an_error_and_nothing_is_written(corpus, capsys):
    (corpus / "caps.json").write_text(json.dumps({"other": entry((0, 1, "cut"))}))
    assert pretokenization.main(flags(corpus)) == 1
    assert "no captions for 11 of 11 videos" in capsys.readouterr().err
    assert sorted(p.name for p in (corpus / "feat").iterdir()) == ["train_meta.json", "val_meta.pkl"]


def test_too_many_malformed_videos_leave_no_shard(corpus, capsys):
    captions = json.loads((corpus / "caps.json").read_text())
    for name in ("v7", "v8"):
        captions[name]["end"].pop()
    (corpus / "caps.json").write_text(json.dumps(captions))
    assert pretokenization.main(flags(corpus)) == 1
    assert "the captions of 2 videos up to shard train_1 are malformed" in capsys.readouterr().err
    assert not list((corpus / "feat").glob("*train_1*"))
    assert run(corpus, capsys, "--max-missing", "0.5").startswith("done 2, skipped 1")


def test_a_video_listed_twice_has_two_items(corpus, capsys):
    (corpus / "feat" / "val_meta.pkl").write_bytes(pickle.dumps({0: ["w0", "v1", "w0"]}))
    run(corpus, capsys)
    shard = ShardedTensor.load(corpus / "feat" / "caps.tiny_bert.val_0.caps_ids")
    assert shard.lengths().tolist() == [1, 2, 1]
    assert run(corpus, capsys).startswith("done 0, skipped 3")


def test_clips_are_cut_to_tokens_not_characters_and_tokenless_ones_dropped(tmp_path):
    tokenizer = load_tokenizer(make_tokenizer(tmp_path / "t"))
    long = " ".join(["onions"] * 30)
    counts = Counter()
    video = Transcript([0.0, 1.0, 2.0], [1.0, 2.0, 3.5], [long, "\u200b", "cut"])
    times, ids = encode_transcript(video, tokenizer, 32, counts)
    assert times.tolist() == [[0.0, 1.0], [2.0, 3.5]]
    assert ids[0].tolist() == [ID["onion"], ID["##s"]] * 16 and ids[1].tolist() == [ID["cut"]] + [-1] * 31
    assert {reason: n for reason, n in counts.items() if n} == {
        "clips cut to the token limit": 1,
        "clips without a token (dropped)": 1,
    }
    empty = encode_transcript(Transcript([], [], []), tokenizer, 32)
    assert empty[0].shape == (0, 2) and empty[1].shape == (0, 32)


@pytest.mark.parametrize(
    ("bert_name", "expected"),
    [
        ("bert-base-uncased", "bert-base-uncased"),
        ("google-bert/bert-base-uncased", "bert-base-uncased"),
        ("/data/my models/tiny bert/", "tiny_bert"),
        ("..\\models\\b\u00e9rt:v1", "b_rt_v1"),
        ("../..", "tokenizer"),
    ],
)
def test_file_names_hold_no_path(bert_name, expected):
    assert tokenizer_name(bert_name) == expected


def test_the_vocabulary_checksum_sees_order_and_case(tmp_path):
    one = load_tokenizer(make_tokenizer(tmp_path / "a"))
    same = load_tokenizer(make_tokenizer(tmp_path / "b"))
    swapped = load_tokenizer(make_tokenizer(tmp_path / "c", [*WORDS[:-2], *reversed(WORDS[-2:])]))
    cased = make_tokenizer(tmp_path / "d")
    (tmp_path / "d" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert vocabulary_checksum(one) == vocabulary_checksum(same)
    assert len({vocabulary_checksum(t) for t in (one, swapped, load_tokenizer(cased))}) == 3


@pytest.mark.slow
def test_several_processes_write_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(token_shards, "POOL_FROM", 0)
    captions = {f"v{i}": entry((i, i + 1, "cut the onion " * (i % 4))) for i in range(400)}
    (tmp_path / "caps.json").write_text(json.dumps(captions))
    (tmp_path / "train_meta.json").write_text(json.dumps({"0": list(captions)[:250], "1": list(captions)[250:]}))
    name = make_tokenizer(tmp_path / "bert")
    reports = []
    for workers in (1, 2):
        job = TokenShardJob(str(tmp_path / "caps.json"), name, str(tmp_path), str(tmp_path / f"w{workers}."))
        reports.append(job.run(["train"], workers))
    assert reports[0] == reports[1] and reports[0].done == 2
    for end in ("train_0.caps_ids_data.npy", "train_1.startends_data.npy", "train_1.caps_ids_starts.npy"):
        assert (tmp_path / f"w1.{end}").read_bytes() == (tmp_path / f"w2.{end}").read_bytes()


def test_a_missing_split_is_an_error(corpus):
    job = TokenShardJob(str(corpus / "caps.json"), str(corpus / "models" / "tiny bert"), str(corpus / "feat"), "x.")
    with pytest.raises(DataError, match="test_meta.json"):
        job.run(["test"])


def test_dedup_script_in_both_forms(tmp_path, capsys):
    captions = {
        "v": entry((0, 2, "now we cut"), (1, 3, "we cut the onion")),
        "w": entry((0, 1, "the pan"), (1, 2, "the pan")),
    }
    (tmp_path / "raw_caption.json").write_text(json.dumps(captions))
    assert dedup.main(["--how2dir", str(tmp_path), "--pkl"]) == 0
    out = capsys.readouterr().out
    assert "done 2, skipped 0, failed 0 videos" in out and "4 clips before" in out
    written = json.loads((tmp_path / "raw_caption_dedup.json").read_text())
    assert written["w"] == {"start": [0.0], "end": [2.0], "text": ["the pan"]}
    assert json.loads(pickle.loads((tmp_path / "raw_caption_dedup.pkl").read_bytes())["w"]) == written["w"]
    other = ["--input", str(tmp_path / "raw_caption.json"), "--output", str(tmp_path / "o.json")]
    assert dedup.main(other) == 0 and json.loads((tmp_path / "o.json").read_text()) == written
    assert dedup.main(other) == 0 and "done 0, skipped 2, failed 0" in capsys.readouterr().out
    assert dedup.main(["--input", str(tmp_path / "no.json"), "--output", str(tmp_path / "p.json")]) == 2
    assert "no.json" in capsys.readouterr().err
    for wrong in ([], ["--input", "x.json"], ["--input", "x.json", "--output", "y.pkl"]):
        with pytest.raises(SystemExit):
            dedup.main(wrong)


@pytest.mark.parametrize("name", ["dedup", "pretokenization"])
def test_help_shows_an_example(name):
    found = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": ""},
    )
    assert f"python scripts/text_token_extractor/{name}.py" in found.stdout
