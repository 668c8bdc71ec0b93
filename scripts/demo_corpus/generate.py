"""Render the demo corpus: real video files of moving coloured shapes, with what is said about them.

    python scripts/demo_corpus/generate.py --output data/demo

Writes, below the output folder:

    videos/<id>.mp4|.mkv|.avi       H.264 and MPEG-4, several sizes and frame rates
    raw_caption.json                HowTo100M-style narration: {id: {"start": [..], "end": [..], "text": [..]}}
    how2_train.lst, how2_val.lst    ids of the narrated videos
    vtt_train.csv, vtt_val.csv, vtt_test.csv, vtt_data.json
                                    MSR-VTT-format retrieval splits; no (colour, shape, action) of the test or
                                    validation clips occurs in any narrated video or training clip
    vtt_qa_test.csv                 MSR-VTT-format multiple-choice questions about the test clips
    coin/, crosstask/, youcook/     annotations of the step videos in COIN's, CrossTask's and YouCook2's formats
    bert/config.json, vocab.txt     a small BERT to be trained from scratch
    triples.json, manifest.json     what each video shows; what was done

A second run renders only what is missing.
"""

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.utils.errors import ConfigError, MMPTError
from mmpt.utils.extras import require
from mmpt.utils.files import atomic_open, read_json, write_json
from scripts.demo_corpus.annotations import write_coin, write_crosstask, write_questions, write_youcook
from scripts.demo_corpus.plan import Counts, VideoPlan, plan_corpus
from scripts.demo_corpus.scenes import render

__all__ = ["main"]

#: Sizes of the small BERT; the vocabulary is that of the corpus.
BERT = {
    "model_type": "bert",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.3,
    "attention_probs_dropout_prob": 0.3,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Render the corpus; return the exit code, 1 if a video could not be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("data/demo"), help="folder (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another corpus (default 0)")
    for name, value in asdict(Counts()).items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, default=value, metavar="N", help=f"number of videos (default {value})")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    arguments = parser.parse_args(argv)
    counts = Counts(**{name: getattr(arguments, name) for name in asdict(Counts())})
    try:
        return generate(arguments.output, arguments.seed, counts, arguments.workers)
    except MMPTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def generate(output: Path, seed: int, counts: Counts, workers: int) -> int:
    """Write a corpus to a folder; return the exit code.

    Raises:
        ConfigError: if the folder holds a corpus of another seed or size.
    """
    require("av", "video")
    plans = plan_corpus(seed, counts)
    settings = {"seed": seed, **asdict(counts), "plan": hashlib.sha256(repr(plans).encode()).hexdigest()}
    manifest = output / "manifest.json"
    if manifest.exists() and read_json(manifest).get("settings") != settings:
        raise ConfigError(
            f"{output} holds another corpus: of other settings, or of another version of this script."
            " Remove it or choose another --output"
        )
    write_json(manifest, {"settings": settings, "videos": {}})
    videos = output / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    missing = [plan for plan in plans if not (videos / plan.file_name).exists()]
    failed = render_all(missing, videos, workers)
    write_texts(plans, output)
    write_questions(output / "vtt_qa_test.csv", [plan for plan in plans if plan.split == "clips_test"], seed)
    steps = [plan for plan in plans if plan.split.startswith("steps")]
    write_coin(output / "coin" / "COIN.json", steps)
    write_crosstask(output / "crosstask", steps)
    write_youcook(output / "youcook", steps)
    write_bert(plans, output / "bert")
    state = {plan.name: failed.get(plan.name, "done") for plan in plans}
    write_json(manifest, {"settings": settings, "videos": state})
    minutes = sum(plan.seconds for plan in plans) / 60
    print(
        f"done {len(missing) - len(failed)}, skipped {len(plans) - len(missing)} (rendered before),"
        f" failed {len(failed)}; {len(plans)} videos, {minutes:.0f} minutes in {output}"
    )
    for reason, number in Counter(failed.values()).most_common():
        print(f"  failed {number}: {reason}")
    return 1 if failed else 0


def render_all(plans: Sequence[VideoPlan], folder: Path, workers: int) -> dict[str, str]:
    """Render videos in ``workers`` processes; return video name -> reason of those that failed."""
    failed = {}
    with ProcessPoolExecutor(max(1, workers), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(render_video, plan, folder / plan.file_name): plan for plan in plans}
        for future in tqdm(as_completed(futures), total=len(futures), desc="render", unit="video"):
            error = future.exception()
            if error is not None:
                failed[futures[future].name] = f"{type(error).__name__}: {error}"
    return failed


def render_video(plan: VideoPlan, path: Path) -> None:
    """Encode one video; the file appears only when it is whole."""
    import av

    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        with av.open(str(temporary), "w") as container:
            # x264's macroblock tree gives other bytes, and other pixels, from one call to the next.
            x264 = {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}
            options = x264 if plan.codec == "libx264" else {"qscale": "3"}
            stream = container.add_stream(plan.codec, rate=plan.fps, options=options)
            stream.width, stream.height, stream.pix_fmt = plan.width, plan.height, "yuv420p"
            stream.thread_count = 1
            rng = np.random.default_rng(plan.seed)
            for image_HW3 in render(list(plan.segments), plan.width, plan.height, plan.fps, rng, plan.seconds):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image_HW3, format="rgb24")))
            container.mux(stream.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_texts(plans: Sequence[VideoPlan], output: Path) -> None:
    """Write narration, id lists and retrieval files."""
    narrated = [plan for plan in plans if plan.split.startswith("narrated")]
    write_json(
        output / "raw_caption.json",
        {
            plan.name: {
                "start": [line.start for line in plan.lines],
                "end": [line.end for line in plan.lines],
                "text": [line.text for line in plan.lines],
            }
            for plan in narrated
        },
        indent=None,
    )
    for split in ("train", "val"):
        with atomic_open(output / f"how2_{split}.lst") as file:
            file.writelines(f"{plan.name}\n" for plan in narrated if plan.split == f"narrated_{split}")
        clips = [plan for plan in plans if plan.split == f"clips_{split}"]
        _write_csv(output / f"vtt_{split}.csv", clips, sentences=split != "train")
    _write_csv(output / "vtt_test.csv", [plan for plan in plans if plan.split == "clips_test"], sentences=True)
    train = [plan for plan in plans if plan.split == "clips_train"]
    sentences = [{"video_id": plan.name, "caption": caption} for plan in train for caption in plan.captions]
    write_json(output / "vtt_data.json", {"sentences": sentences}, indent=None)
    triples = {
        plan.name: [[s.start, s.end, s.triple.colour, s.triple.shape, s.triple.action] for s in plan.segments]
        for plan in plans
    }
    write_json(output / "triples.json", triples, indent=None)


def _write_csv(path: Path, plans: Sequence[VideoPlan], sentences: bool) -> None:
    table = pd.DataFrame({"video_id": [plan.name for plan in plans]})
    if sentences:
        table["sentence"] = [plan.captions[0] for plan in plans]
    with atomic_open(path) as file:
        table.to_csv(file, index=False)


def write_bert(plans: Sequence[VideoPlan], folder: Path) -> None:
    """Write a BERT folder without weights: the training words as whole pieces, single letters for the rest."""
    said = [line.text for plan in plans for line in plan.lines]
    said += [caption for plan in plans if plan.split == "clips_train" for caption in plan.captions]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = sorted({word for text in said for word in text.split()} - set(letters))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *words]
    with atomic_open(folder / "vocab.txt") as file:
        file.writelines(f"{piece}\n" for piece in pieces)
    with atomic_open(folder / "config.json") as file:
        file.write(json.dumps({**BERT, "vocab_size": len(pieces)}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
