"""Write a published or trained checkpoint as safetensors, under this toolkit's names."""

import argparse
import json
import sys
from collections.abc import Sequence

from mmpt.utils.errors import ConfigError
from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import exit_code

__all__ = ["build_parser", "main"]

#: Bytes of a file that is not read at once.
_LARGE = 500_000_000
_EXAMPLE = """\
examples:
  mmpt convert pretrained_models/videoclip/checkpoint_best.pt videoclip.safetensors
  mmpt convert pretrained_models/merlot/checkpoint_4segments/model.ckpt merlot.safetensors
  mmpt convert pretrained_models/reserve/base reserve.safetensors --dtype bfloat16 --json
  mmpt convert ckpt_violet_pretrain.pt violet.safetensors --model-config projects/mvm/violet/violet_pretrain.yaml
  mmpt convert ckpt_violet_pretrain.pt violet/ --model-config projects/mvm/violet/violet_pretrain.yaml --licence mit

Reads fairseq's checkpoints, flat state dicts (.pt, .pth, .bin), safetensors, TensorFlow's and Flax's; nothing in them
is executed. With --model-config the weights must fit that model; what may be missing or left aside is reported. An
output that does not end in .safetensors is then a folder, with settings, tokenizer and model card, that any command
takes as --model.
Exit codes: 0 done, 2 the message says what is wrong, 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(prog="mmpt convert", description=__doc__, epilog=_EXAMPLE)
    parser.add_argument("source", metavar="SOURCE", help="the checkpoint; of TensorFlow's its prefix, as model.ckpt")
    parser.add_argument("output", metavar="OUT", help="the .safetensors file to write, or a folder")
    parser.add_argument("--model-config", metavar="YAML", help="check against, and write as, the model of this job")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="set a key of it")
    parser.add_argument("--licence", metavar="NAME", help="of the weights, for the model card of a folder")
    parser.add_argument("--weights", default="model", choices=("model", "ema"), help="which weights (default model)")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="of floats (default float32)"
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: _run(options), as_json=options.json)


def _announce(source: str) -> None:
    """Say on stderr what is read, where that takes a while."""
    from mmpt.utils.weight_files import checkpoint_file

    file = checkpoint_file(source)
    if file.is_file() and file.stat().st_size > _LARGE:
        print(f"reading {source} ({file.stat().st_size / 1e9:.1f} GB)", file=sys.stderr)


def _run(options: argparse.Namespace) -> int:
    from mmpt.api.conversion import convert, convert_to_folder

    config = options.model_config
    to_folder = not options.output.endswith(".safetensors")
    if to_folder and config is None:
        raise ConfigError(
            f"{options.output}: to write a folder give --model-config YAML; the name of a file must end in .safetensors"
        )
    if not to_folder and options.licence is not None:
        raise ConfigError("--licence: is of the model card of a folder; a .safetensors file has none")
    _announce(options.source)
    if to_folder:
        if options.dtype != "float32" or options.weights != "model":
            raise ConfigError(
                "--dtype and --weights are of a .safetensors file; a folder holds the model as it is loaded"
            )
        done = convert_to_folder(
            options.source,
            options.output,
            config,
            overrides=options.override,
            licence=options.licence,
            force=options.force,
        )
    else:
        done = convert(
            options.source,
            options.output,
            model_config=config,
            overrides=options.override,
            weights=options.weights,
            dtype=options.dtype,
            force=options.force,
        )
    if options.json:
        print(json.dumps(done.as_dict(), indent=2))
        return 0
    kinds = ", ".join(f"{count} of {kind}" for kind, count in sorted(done.dtypes.items()))
    print(f"wrote {done.output}: {done.tensors} tensors ({kinds}), {done.parameters:,} numbers; layout {done.layout}")
    if done.model is not None:
        print(f"fits {done.model}; {len(done.missing)} kept from the model, {len(done.unexpected)} left aside")
        for what, names in (("kept", done.missing), ("left aside", done.unexpected)):
            print("".join(f"  {what}: {name}\n" for name in names), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
