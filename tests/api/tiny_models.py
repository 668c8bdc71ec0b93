"""Run folders of tiny random models of every class that a pipeline serves, and small videos with sound."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from mmpt.utils.files import write_json
from mmpt.utils.registry import build, resolve_class
from scripts.tiny_data.subword_files import write_merlot_tokenizer, write_reserve_tokenizer

__all__ = ["ANSWERS", "CONV3D", "WORDS", "readable", "write_model", "write_video"]

#: Words of the tiny vocabulary.
WORDS = [f"w{number}" for number in range(12)]
#: What a head of five answers tells apart.
ANSWERS = ["w1", "w2 w3", "w4", "w5", "w6"]
#: What the small encoder says of its features; a pipeline compares it with what it says itself.
CONV3D = {
    "encoder": "conv3d",
    "random_init": 0,
    "fps": 8,
    "resize": 64,
    "size": 64,
    "dim": 512,
    "pad": "zero",
    "l2_normalize": False,
}
_TRUTH = {"true_word": "w0", "false_word": "w1"}
_ALIGNERS = {
    "VIOLETRetrieval": "FrameAligner",
    "VIOLETMultipleChoice": "VIOLETMultipleChoiceAligner",
    "VIOLETOpenEnded": "VIOLETOpenEndedAligner",
    "VIOLETPretraining": "VIOLETPretrainingAligner",
    "LAVENDER": "LAVENDERRetrievalAligner",
    "LAVENDERMultiHead": "FrameAligner",
    "LAVENDERTaskSpecificRetrieval": "FrameAligner",
    "LAVENDERTaskSpecificOptions": "VIOLETMultipleChoiceAligner",
    "LAVENDERTaskSpecificChoice": "LAVENDERTaskSpecificChoiceAligner",
    "LAVENDERTaskSpecificOpenEnded": "VIOLETOpenEndedAligner",
    "LAVENDERTaskSpecificPretraining": "LAVENDERTaskSpecificPretrainingAligner",
    "MERLOTPretraining": "MERLOTPretrainingAligner",
    "MERLOTAnswering": "MERLOTChoiceAligner",
    "MERLOTVCR": "MERLOTVCRAligner",
    "MERLOTOpenEnded": "MERLOTOpenEndedAligner",
    "ReservePretraining": "ReservePretrainingAligner",
    "ReserveTVQA": "TVQAAligner",
    "ReserveVCR": "ReserveVCRAligner",
    "ReserveCloze": "ClozeAligner",
}


def write_model(folder: Path, name: str, dataset: dict[str, Any] | None = None, **model: Any) -> Path:
    """Write a run folder ``folder / name`` of a tiny model with random weights, and what it needs beside; return it."""
    sections = {"dataset": _dataset(folder, name) | (dataset or {}), "model": _model(name) | model}
    config = OmegaConf.merge(resolve_class("model", name).tiny_config(), sections)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = build("model", name, config).state_dict()
    run = folder / name
    run.mkdir()
    torch.save(
        {"args": None, "model": {f"mmmodel.{key}": value for key, value in state.items()}}, run / "checkpoint_best.pt"
    )
    OmegaConf.save(config, run / "config.yaml")
    return run


def _dataset(folder: Path, name: str) -> dict[str, Any]:
    if name.startswith("MMFusion"):
        manifest = folder / "feat" / "manifest.json"
        if not manifest.exists():
            write_json(manifest, {"version": 1, "provenance": CONV3D, "videos": {}})
        return {"vfeat_dir": str(manifest.parent)}
    settings: dict[str, Any] = {"aligner": _ALIGNERS[name]}
    if name.startswith("LAVENDER"):
        settings |= {"bert_name": str(_bert(folder / "bert")), "max_text_len": 40}
    if name.startswith("MERLOT"):
        place = folder / "merlot"
        settings |= {"tokenizer": str(place if place.exists() else write_merlot_tokenizer(place)), "num_chunks": 4}
        settings |= {} if name == "MERLOTPretraining" else {"max_text_len": 24}
    if name.startswith("Reserve"):
        file = folder / "lowercase_encoder.json"
        settings["tokenizer"] = str(file if file.exists() else write_reserve_tokenizer(file))
    if name.endswith("OpenEnded"):
        texts = folder / "txt_open.json"
        if not texts.exists():
            write_json(texts, {"train": [], "vocab": ANSWERS})
        settings["train_path"] = str(texts)
    return settings


def _bert(folder: Path) -> Path:
    """Return the tiny BERT whose last words are those that LAVENDER's questions are made with."""
    if not folder.exists():
        shutil.copytree("tests/data/tiny_bert", folder)
        words = (folder / "vocab.txt").read_text().split()
        needed = ["option", "answer", ":", *map(str, range(10))]
        (folder / "vocab.txt").write_text("\n".join([*words[: -len(needed)], *needed]) + "\n")
    return folder


def _model(name: str) -> dict[str, Any]:
    if name == "LAVENDER":
        return dict(_TRUTH)
    return {"vocab_size": 600} if name.startswith(("MERLOT", "Reserve")) else {}


def readable(pipeline: Any, videos: list[Path]) -> list[Any]:
    """Return videos as a model reads them without an encoder: files, or features (4 and more seconds, D)."""
    if getattr(pipeline.model, "reads_frames", False):
        return list(videos)
    width = pipeline.config.model.get("input_dim") or 512
    rngs = [np.random.default_rng(number) for number in range(len(videos))]
    return [rng.normal(size=(4 + number, width)).astype(np.float32) for number, rng in enumerate(rngs)]


def write_video(path: Path, seconds: float = 5.0, seed: int = 0, sound: bool = True) -> Path:
    """Write a small video of changing colours, with noise to hear; return it."""
    import av

    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        heard = container.add_stream("aac", rate=22050) if sound else None
        for number in range(int(seconds * 8)):
            picture = np.full((48, 64, 3), (number * 5 + seed * 40) % 255, np.uint8)
            picture[:, :20] = rng.integers(0, 255, 3)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
        if heard is not None:
            wave = rng.normal(0, 0.1, (1, int(seconds * 22050))).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate = 22050
            container.mux(heard.encode(frame))
            container.mux(heard.encode(None))
    return path
