"""A tiny learnable corpus in the public layouts, made by the project's own preparation scripts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from scripts.text_token_extractor import pretokenization
from scripts.video_feature_extractor import shard_feature

TINY_BERT = Path(__file__).parents[1] / "data" / "tiny_bert"
DIM = 16
VIDEOS = 24


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with features, shards, tokens, lists and MSR-VTT files; word wN goes with feature N."""
    root = tmp_path_factory.mktemp("tiny_corpus")
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((30, DIM)).astype(np.float32)
    captions: dict[str, Any] = {}
    (root / "features").mkdir()
    for number in range(VIDEOS):
        segments = [(start, start + 4) for start in range(0, 20, 4)]
        words = rng.integers(0, 30, len(segments))
        feature = np.concatenate([np.repeat(centers[word][None], 4, 0) for word in words])
        feature += 0.1 * rng.standard_normal(feature.shape)
        np.save(root / "features" / f"v{number:02d}.npy", feature.astype(np.float16))
        captions[f"v{number:02d}"] = {
            "start": [float(start) for start, _ in segments],
            "end": [float(end) for _, end in segments],
            "text": [f"w{word} w{word} w{30 + word % 20}" for word in words],
        }
    (root / "captions.json").write_text(json.dumps(captions))
    ids = sorted(captions)
    (root / "train.lst").write_text("\n".join(ids[:18]) + "\n")
    (root / "val.lst").write_text("\n".join(ids[18:]) + "\n")
    lists = [f"--split={name}={root / name}.lst" for name in ("train", "val")]
    shards = root / "shards"
    assert (
        shard_feature.main(["--fdir", str(root / "features"), "--sdir", str(shards), "--shard-size", "7", *lists]) == 0
    )
    flags = ["--captions", str(root / "captions.json"), "--tokenizer", str(TINY_BERT), "--vfeat-dir", str(shards)]
    assert pretokenization.main([*flags, "--output", str(root / "tokens" / "tiny."), "--workers", "1"]) == 0
    pairs = [(name, captions[name]["text"][0]) for name in ids]
    (root / "test.csv").write_text("video_id,sentence\n" + "".join(f"{name},{text}\n" for name, text in pairs[18:]))
    (root / "train.csv").write_text("video_id\n" + "".join(f"{name}\n" for name in ids[:18]))
    sentences = [{"video_id": name, "caption": text} for name in ids for text in captions[name]["text"][:2]]
    (root / "captions_vtt.json").write_text(json.dumps({"sentences": sentences}))
    return root


@pytest.fixture
def pretraining_config(tiny_corpus: Path, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a small pre-training with retrieved batches, on the CPU."""
    return {
        "task": "VideoRetriTask",
        "retri_epoch": 1,
        "num_cands": 8,
        "dataset": {
            "meta_processor": "ShardedHow2VideoRetriMetaProcessor",
            "video_processor": "ShardedVideoRetriVideoProcessor",
            "text_processor": "ShardedVideoRetriTextProcessor",
            "aligner": "VideoRetriOverlappedAligner",
            "train_path": str(tiny_corpus / "train.lst"),
            "val_path": str(tiny_corpus / "val.lst"),
            "vfeat_dir": str(tiny_corpus / "shards"),
            "tfeat_dir": str(tiny_corpus / "tokens" / "tiny."),
            "bert_name": str(TINY_BERT),
            "max_video_len": 8,
            "max_len": 24,
            "sampled_min_len": 2,
            "sampled_max_len": 8,
            "sampled_video_min_len": 2,
            "sampled_video_max_len": 6,
            "num_video_per_batch": 4,
            "clip_per_video": 3,
        },
        "model": {
            "model_cls": "MMFusionSeparate",
            "video_encoder_cls": "MMBertForEncoder",
            "text_encoder_cls": "BertModel",
            "num_hidden_video_layers": 1,
            "input_dim": DIM,
            "init": "random",
        },
        "loss": {"loss_cls": "MMContraLoss"},
        "fairseq": {
            "common": {"seed": 3, "log_interval": 1, "log_format": "json"},
            "dataset": {"batch_size": 1, "num_workers": 0},
            "optimization": {
                "lr": [0.003],
                "clip_norm": 2.0,
                "optimizer": "adam",
                "adam_betas": "(0.9, 0.98)",
                "lr_scheduler": "fixed",
                "max_epoch": 3,
            },
            "checkpoint": {"save_dir": str(tmp_path / "run"), "save_interval_updates": 2, "keep_interval_updates": 1},
        },
    }


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """Batches of videos instead of retrieved groups."""
    for key in ("task", "retri_epoch", "num_cands"):
        del config[key]
    for key in ("num_video_per_batch", "clip_per_video"):
        del config["dataset"][key]
    config["dataset"] |= {
        "meta_processor": "ShardedHow2MetaProcessor",
        "video_processor": "ShardedVideoProcessor",
        "text_processor": "ShardedTextProcessor",
        "aligner": "OverlappedAligner",
        "subsampling": 3,
    }
    return config


def write_yaml(path: Path, config: dict[str, Any]) -> Path:
    """Write a config."""
    path.write_text(yaml.safe_dump(config))
    return path
