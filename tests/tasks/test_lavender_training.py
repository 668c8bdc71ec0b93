"""A training of LAVENDER through fairseq: from a flat published file, by the published optimizer and schedule."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

pytest.importorskip("fairseq")

from fairseq_runs import run

from mmpt.models.cross_modal import tiny_cross_modal_config
from mmpt.models.lavender import LAVENDER
from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.images import encode_jpeg
from mmpt.utils.files import REPOSITORY
from mmpt.utils.weight_files import load_state_dict_file


@pytest.mark.slow
def test_a_training_begins_from_a_flat_file_and_ends_at_the_floor(tmp_path: Path) -> None:
    bert = tmp_path / "bert"
    bert.mkdir()
    with np.load(REPOSITORY / "tests/data/lavender_tiny.npz") as golden:
        (bert / "config.json").write_text(str(golden["bert_config"]))
        (bert / "vocab.txt").write_text("\n".join(golden["vocab"].tolist()) + "\n")
    with FrameStoreWriter(tmp_path / "frames") as writer:
        for number in range(8):
            writer.append(f"v{number}", [encode_jpeg(np.full((24, 24, 3), 30 * number, np.uint8), 90)] * 2, None)
    texts = {f"v{number}": [f"a dog runs on the w{number} ball"] for number in range(8)}
    (tmp_path / "txt.json").write_text(json.dumps({"train": texts}))
    model = LAVENDER(tiny_cross_modal_config("LAVENDER", dataset={"bert_name": str(bert)}))
    torch.save(model.state_dict(), tmp_path / "lavender.pt")
    config = {
        "dataset": {
            "meta_processor": "ClipPretrainingMetaProcessor",
            "video_processor": "FrameVideoProcessor",
            "text_processor": "ClipTextProcessor",
            "aligner": "LAVENDERPretrainingAligner",
            "train_path": str(tmp_path / "txt.json"),
            "frame_path": str(tmp_path / "frames"),
            "prompt": True,
        },
        "loss": {"loss_cls": "LAVENDERLoss"},
        "optim": {"weight_decay_multipliers": {"*": 1.0, "*bias*": 0.0, "*LayerNorm.weight": 0.0}},
        "fairseq": {
            "common": {"seed": 3, "log_interval": 1, "log_format": "json"},
            "dataset": {"batch_size": 4, "num_workers": 0, "disable_validation": True},
            "optimization": {
                "lr": [0.001],
                "optimizer": "mmadamw",
                "adam_betas": "(0.9, 0.98)",
                "weight_decay": 0.001,
                "clip_norm": 1.0,
                "lr_scheduler": "warmup_linear",
                "warmup_share": 0.5,
                "max_epoch": 2,
            },
            "checkpoint": {
                "save_dir": str(tmp_path / "run"),
                "restore_file": str(tmp_path / "lavender.pt"),
                "reset_optimizer": True,
            },
        },
    }
    given = OmegaConf.merge(tiny_cross_modal_config("LAVENDER", dataset={"bert_name": str(bert)}), config)
    codes, output = run(yaml.safe_load(OmegaConf.to_yaml(given)), tmp_path)
    assert codes == [0], output
    # Two epochs of two updates; fairseq logs the rate of the next one.
    rates = [float(rate) for rate in re.findall(r'"lr": "([^"]+)"', output)]
    assert rates == pytest.approx([0.0005, 0.001, 0.0005, 1e-8])
    assert "mmadamw: tensors x part" in output
    trained, first = load_state_dict_file(tmp_path / "run" / "checkpoint_last.pt"), model.state_dict()
    moved = {key for key in first if not torch.equal(first[key], trained[key])}
    assert {"fc_mtm.predictions.decoder.weight", "enc_img.swin.patch_embed.proj.weight"} <= moved
    assert "emb_task" in trained and math.isfinite(float(trained["fc_mtm.predictions.bias"].sum()))
    distance = max(float((first[key] - trained[key]).abs().max()) for key in moved)
    assert distance < 0.01, "it began from the file, not at random"
