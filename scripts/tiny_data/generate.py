"""Write tiny data in the layout of every public corpus, to check an installation before having the real data.

    python scripts/tiny_data/generate.py --output /tmp/tiny
    cd /tmp/tiny && python <checkout>/locallaunch.py projects/mtm/vlm.yaml

Below the output folder come, under the names that the shipped project files expect,

    data/how2/, data/feat/feat_how2_s3d_shard_small/    narrated videos, as shards of features and of tokens
    data/msrvtt/, data/msrvtt-qa/, data/youcook/, data/didemo/, data/coin/, data/crosstask/
    data/own/corpus.jsonl, data/own/feat/               a corpus of one's own (docs/own_corpus.md)
    data/<corpus>/txt_<task>.json, frames/, vq/         texts, frames of 32 pixels and random visual tokens, for VIOLET
                                                        and LAVENDER; data/msrvtt/MSRVTT-v2/, data/msvd/MSVD/: captions
    data/yttemporal180m/, data/yttemporal1b/            segments of MERLOT and MERLOT Reserve
    data/vcr/, data/tvqa/, data/vist/, data/epic_kitchens/  images, segments and questions of theirs
    pretrained_models/merlot/, reserve/                 tokenizers of single bytes
    data/feat/feat_<corpus>_s3d/<id>.npy                made-up features of 512 numbers a second
    bert-base-uncased/                                  a BERT of 12 layers, 24 wide, with random weights

Each second's features follow from the words of the text that describes it, so a model can learn them. The numbers
that come out of it say that the pipeline works, and nothing about the systems.
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.utils.errors import DataError
from mmpt.utils.files import read_json, write_json
from mmpt_cli.run_folders import exit_code
from scripts.text_token_extractor import dedup, pretokenization
from scripts.tiny_data.bert import write_bert
from scripts.tiny_data.concepts import World
from scripts.tiny_data.frame_files import frame_words, write_frames
from scripts.tiny_data.own_files import write_own
from scripts.tiny_data.question_files import write_systems
from scripts.tiny_data.retrieval_files import vocabulary, write_didemo, write_how2, write_msrvtt, write_youcook
from scripts.tiny_data.step_files import write_coin, write_crosstask
from scripts.video_feature_extractor import shard_feature

__all__ = ["Counts", "generate", "main"]

BERT_NAME = "bert-base-uncased"


@dataclass(frozen=True)
class Counts:
    """Numbers of videos: so few that an epoch of most published recipes is one batch.

    ``crosstask_tested`` are those of the primary task that is tested: all beyond ``dataset.n_train`` (30).
    """

    how2_train: int = 8
    how2_val: int = 4
    msrvtt_train: int = 10
    msrvtt_test: int = 16
    youcook_train: int = 12
    youcook_val: int = 6
    didemo_test: int = 8
    coin_train: int = 9
    coin_test: int = 6
    crosstask_tested: int = 35
    crosstask_primary: int = 6
    crosstask_related: int = 4
    crosstask_val: int = 2
    own_train: int = 10
    own_valid: int = 2
    own_test: int = 6
    framed: int = 6  # of each corpus of VIOLET and LAVENDER, for each split


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other data (default 0)")
    arguments = parser.parse_args(argv)

    def write() -> int:
        generate(arguments.output, arguments.seed)
        print(f"wrote tiny data to {arguments.output}; run projects from inside that folder")
        return 0

    return exit_code(write)


def generate(output: Path, seed: int = 0, counts: Counts | None = None) -> None:
    """Write the data; what an earlier call of the same settings wrote stays as it is.

    Raises:
        DataError: if the folder holds other data.
    """
    counts = counts or Counts()
    settings = {"seed": seed, **asdict(counts)}
    marker = output / "tiny_data.json"
    if marker.exists():
        if read_json(marker) != settings:
            raise DataError(f"{output} holds tiny data of other settings; remove it or choose another --output")
        return
    if (output / "data").exists() or (output / BERT_NAME).exists():
        raise DataError(f"{output} holds data/ or {BERT_NAME}/ that are not of this script; choose another --output")
    data, world = output / "data", World(seed)
    write_bert(output / BERT_NAME, vocabulary() | frame_words(), seed)
    write_how2(data, world, counts.how2_train, counts.how2_val)
    write_msrvtt(data, world, counts.msrvtt_train, counts.msrvtt_test)
    write_youcook(data, world, counts.youcook_train, counts.youcook_val)
    write_didemo(data, world, counts.didemo_test)
    write_coin(data, world, counts.coin_train, counts.coin_test)
    of_tasks = (counts.crosstask_tested, counts.crosstask_primary, counts.crosstask_related)
    write_crosstask(data, world, of_tasks, counts.crosstask_val)
    write_own(data, world, counts.own_train, counts.own_valid, counts.own_test)
    write_frames(data, world, counts.framed)
    write_systems(output, seed)
    make_shards(output)
    write_json(marker, settings)


def make_shards(output: Path) -> None:
    """Make shards of the narrated videos' features and captions with the scripts that real data go through.

    Raises:
        DataError: if one of them fails, with what it printed.
    """
    how2, features = output / "data" / "how2", output / "data" / "feat" / "feat_how2_s3d"
    shards = features.with_name("feat_how2_s3d_shard_small")
    lists = [f"--split={split}={how2}/how2_s3d_{split}.lst" for split in ("train", "val")]
    _quietly(dedup.main, ["--how2dir", str(how2)])
    _quietly(shard_feature.main, ["--fdir", str(features), "--sdir", str(shards), "--shard-size", "10", *lists])
    prefix = f"{shards}/raw_caption_dedup.{BERT_NAME}."
    flags = ["--captions", str(how2 / "raw_caption_dedup.json"), "--tokenizer", str(output / BERT_NAME)]
    _quietly(pretokenization.main, [*flags, "--vfeat-dir", str(shards), "--output", prefix, "--workers", "1"])


def _quietly(command: Callable[[list[str]], int], arguments: list[str]) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = command(arguments)
    if code:
        raise DataError(f"{command.__module__} {' '.join(arguments)} failed:\n{said.getvalue()}")


if __name__ == "__main__":
    sys.exit(main())
