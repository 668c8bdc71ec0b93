"""The flags that ``fairseq-train`` understands, read from fairseq itself."""

import argparse
import functools

from fairseq import options
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.registry import REGISTRIES

import mmpt.optim.fairseq_compact_adam
import mmpt.optim.fairseq_warmup_decay  # noqa: F401  both, and warmup_linear with the latter, register their flags

__all__ = ["training_flags"]


@functools.cache
def training_flags() -> dict[str, bool]:
    """Return flag name, with underscores -> whether it is a bare flag that takes no value.

    The flags of fairseq's generation are among them: test jobs keep theirs in the same section.
    Covers the flags of every optimizer, learning-rate schedule and other registered component,
    which fairseq adds to its command line only once they are chosen.
    """
    parsers = [options.get_training_parser(), options.get_generation_parser()]
    for registry in REGISTRIES.values():
        for cls in registry["registry"].values():
            parser = argparse.ArgumentParser(add_help=False)
            data = getattr(cls, "__dataclass", None)
            if data is not None:
                gen_parser_from_dataclass(parser, data())
            elif hasattr(cls, "add_args"):
                cls.add_args(parser)
            parsers.append(parser)
    flags: dict[str, bool] = {}
    for parser in parsers:
        for action in parser._actions:
            for option in action.option_strings:
                if option.startswith("--"):
                    flags.setdefault(option[2:].replace("-", "_"), action.nargs == 0)
    return flags
