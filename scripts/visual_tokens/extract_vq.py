"""Make the visual tokens that VIOLET is pre-trained on from a frame store.

    python scripts/visual_tokens/extract_vq.py --frames data/webvid/frames --out data/webvid/vq \\
        --weights pretrained_models/encoder.pkl

``--weights`` is the encoder of DALL-E's discrete VAE (8192 codes): the published ``encoder.pkl``, of which the tensors
alone are read and nothing is executed, or its state dict as .pt or .safetensors. Without it, ``--fit-codebook K``
finds K typical patches in the store's own frames, which serve as codes; they are kept in ``<out>/codebook.safetensors``
(give that file as ``--weights`` for further data sets), and ``model.visual_codes`` is then K.

Writes shards ``<out>/tokens_<number>`` (``dataset.vq_path``). A second run goes on where the first stopped. Exit code 1
if more than --max-failed of the videos failed, 2 for any other error, 130 if interrupted.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.modules.dvae import DVAEEncoder
from mmpt.modules.patch_codebook import PatchCodebook
from mmpt.modules.visual_tokenizer import load_visual_tokenizer
from mmpt.processors.visual_token_extraction import LOCK, TokenOptions, codebook_of_frames, extract_tokens
from mmpt.store.frame_store import FrameStore, open_frames
from mmpt.utils.errors import DataError
from mmpt.utils.files import sole_writer
from mmpt.utils.weight_files import save_safetensors
from mmpt_cli.extraction import check_arguments, exit_code, report

__all__ = ["main"]

CODEBOOK = "codebook.safetensors"


def _parser() -> argparse.ArgumentParser:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--frames", required=True, help="the frame store (dataset.frame_path of a project)")
    add("--out", required=True, help="folder for the tokens (dataset.vq_path)")
    made = parser.add_mutually_exclusive_group(required=True)
    made.add_argument("--weights", help="encoder of the discrete VAE, or a codebook")
    made.add_argument("--fit-codebook", type=int, metavar="K", help="fit a codebook of K patches to the frames")
    add("--image-size", type=int, default=224, help="side of the model's frames (dataset.image_size; default 224)")
    add("--batch-size", type=int, default=64, help="frames in the network at a time (default 64)")
    add("--shard-size", type=int, default=16384, help="videos per shard (default 16384)")
    add("--workers", type=int, default=2, help="threads that decode (default 2)")
    add("--device", default="cpu", help="where the network runs, cpu or cuda (default cpu)")
    add("--max-failed", type=float, default=0.1, metavar="FRACTION", help="share of the videos that may fail before"
        " the command does (default 0.1)")  # fmt: skip
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def _tokenizer(
    options: argparse.Namespace, frames: FrameStore, extraction: TokenOptions
) -> DVAEEncoder | PatchCodebook:
    """Read the weights, or fit a codebook once and keep it beside the tokens."""
    if options.weights is not None:
        return load_visual_tokenizer(options.weights)
    if options.fit_codebook < 1:
        raise DataError(f"--fit-codebook {options.fit_codebook}: expected a number of codes")
    kept = Path(options.out) / CODEBOOK
    with sole_writer(kept.with_name(LOCK)):  # two runs with a codebook each would mix their codes
        if not kept.exists():
            save_safetensors(kept, codebook_of_frames(frames, options.fit_codebook, extraction).state_dict())
    found = load_visual_tokenizer(kept)
    if found.num_codes != options.fit_codebook:
        raise DataError(f"{kept}: holds {found.num_codes} codes, --fit-codebook says {options.fit_codebook}: delete it")
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for too many failures, 2 for any other error, 130 if interrupted."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    check_arguments(options)
    if min(options.batch_size, options.shard_size, options.workers) < 1:
        raise DataError("--batch-size, --shard-size and --workers must be at least 1")
    extraction = TokenOptions(
        options.image_size, options.batch_size, options.shard_size, options.workers, options.device
    )
    frames = open_frames(options.frames)
    tokenizer = _tokenizer(options, frames, extraction)
    summary = extract_tokens(frames, tokenizer, options.out, extraction, progress=not options.quiet)
    return report(summary, options.max_failed)


if __name__ == "__main__":
    sys.exit(main())
