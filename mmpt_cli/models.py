"""What the commands that use a model share: the arguments that name one, and its loading."""

import argparse
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpt.api.pipeline import VideoTextPipeline

__all__ = ["add_model_arguments", "load", "loading_options"]

_SOURCES = "run folder, YAML of a job, folder of save_pretrained, checkpoint file, or Hugging Face hub id"


def add_model_arguments(parser: argparse.ArgumentParser, *, required: bool = True, what: str = _SOURCES) -> None:
    """Add ``--model`` and what goes with it; :func:`load` reads them.

    Args:
        parser: of the command.
        required: whether the command can do nothing without a model.
        what: the model is, for the help.
    """
    group = parser.add_argument_group("model")
    add = group.add_argument
    add("--model", required=required, metavar="SOURCE", help=what)
    add("--checkpoint", metavar="FILE", help="other weights than those that the source names")
    add("--s3d-weights", metavar="FILE", help="local copy of s3d_howto100m.pth, for models of S3D features")
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto (a GPU if there is one; default)")
    add("-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="set a config key; may be repeated")


def load(options: argparse.Namespace) -> "VideoTextPipeline":
    """Load the model that the arguments name.

    Raises:
        MMPTError: as :meth:`mmpt.api.pipeline.VideoTextPipeline.from_pretrained`.
    """
    from mmpt.api.pipeline import VideoTextPipeline

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")  # on stderr
    return VideoTextPipeline.from_pretrained(options.model, **loading_options(options))


def loading_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return what goes with a source into :meth:`mmpt.api.pipeline.VideoTextPipeline.from_pretrained`."""
    return {
        "checkpoint": options.checkpoint,
        "device": options.device,
        "s3d_weights": options.s3d_weights,
        "overrides": options.override,
    }
