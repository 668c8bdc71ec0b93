"""A training of MERLOT through fairseq that begins from a published TensorFlow checkpoint."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("fairseq")

from fairseq_runs import run

from mmpt.models.merlot import MERLOTPretraining
from mmpt.models.merlot_weights import from_published
from mmpt.utils.files import REPOSITORY
from mmpt.utils.weight_files import load_state_dict_file

PREFIX = REPOSITORY / "tests/data/merlot_checkpoint/model.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_a_training_begins_from_published_weights(tmp_path: Path, half: bool) -> None:
    items = {"meta_processor": "Records", "video_processor": "Frames", "text_processor": "Words", "aligner": "Items"}
    config = {
        "dataset": {"train_path": "none", "chunks_in_group": 2}
        | {key: f"merlot_items:{name}" for key, name in items.items()},
        "model": {
            "model_cls": "MERLOTPretraining",
            "hidden_size": 64,
            "num_layers": 2,
            "vision_layers": 2,
            "num_heads": 4,
            "intermediate_size": 256,
            "vocab_size": 400,
            "max_text_positions": 64,
            "max_image_positions": 80,
            "resnet_layers": [2, 1, 1],
            "gradient_checkpointing": half,
        },
        "loss": {"loss_cls": "MERLOTLoss"},
        "fairseq": {
            "common": {"seed": 3, "log_interval": 1, "log_format": "json", "bf16": half},
            "dataset": {"batch_size": 2, "num_workers": 0, "disable_validation": True},
            "optimization": {"lr": [1e-5], "optimizer": "adam", "max_update": 2},
            "checkpoint": {
                "save_dir": str(tmp_path / "run"),
                "restore_file": str(PREFIX),
                "reset_optimizer": True,
                "reset_dataloader": True,
                "reset_meters": True,
            },
        },
    }
    codes, output = run(config, tmp_path)
    assert codes == [0], output
    published = from_published(load_state_dict_file(PREFIX))
    trained = load_state_dict_file(tmp_path / "run" / "checkpoint_last.pt")
    assert trained.keys() == published.keys() == MERLOTPretraining(config).state_dict().keys()
    moved = {key for key, value in published.items() if not torch.equal(value, trained[key])}
    assert {"word_embeddings.weight", "vision.resnet.stem.0.conv.weight", "image_image_order.dense.weight"} <= moved
    distance = max(float((published[key] - trained[key]).abs().max()) for key in moved)
    assert distance < (0.05 if half else 1e-4), "it began from the file, not at random"
    for name in ("mlm_accuracy", "text_to_image_accuracy", "text_image_order_accuracy"):
        assert f'"{name}"' in output
