"""How text is generated: the keys of the section ``gen_param``, under the names of Hugging Face's ``generate``."""

import dataclasses
import math
from typing import Any

from mmpt.utils.errors import ConfigError, nearest
from mmpt.utils.options import read_options
from mmpt.utils.seeds import DEFAULT_SEED

__all__ = ["DecodingOptions", "read_decoding_options"]


@dataclasses.dataclass
class DecodingOptions:
    """Keys of the section ``gen_param``.

    Attributes:
        num_beams: 1 is greedy (or sampling), more is beam search.
        do_sample: draw every token; needs ``num_beams: 1``.
        temperature: divides the scores that are drawn from.
        top_k: draw from the so many likeliest words; 0 from all.
        top_p: draw from the likeliest words that have this probability together (Holtzman et al. 2020).
        length_penalty: above 0 favours long texts, below 0 short ones; 0 compares plain probabilities.
        early_stopping: end a beam search at ``num_beams`` finished hypotheses; else when nothing can get better.
        no_repeat_ngram_size: no sequence of so many words occurs twice in a text; 0 allows all.
        min_length: least number of words, the end not counted.
        seed: of the draws.
    """

    num_beams: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    length_penalty: float = 1.0
    early_stopping: bool = False
    no_repeat_ngram_size: int = 0
    min_length: int = 0
    seed: int = DEFAULT_SEED

    def __post_init__(self) -> None:
        wrong = {
            "num_beams": self.num_beams < 1 and "must be at least 1",
            "do_sample": self.do_sample and self.num_beams > 1 and "draws single texts: set num_beams: 1, not",
            "temperature": not 0 < self.temperature < math.inf and "must be positive",
            "top_k": self.top_k < 0 and "must not be negative",
            "top_p": not 0 < self.top_p <= 1 and "must be above 0 and at most 1",
            "length_penalty": not math.isfinite(self.length_penalty) and "must be a finite number",
            "no_repeat_ngram_size": self.no_repeat_ngram_size < 0 and "must not be negative",
            "min_length": self.min_length < 0 and "must not be negative",
        }
        for name, problem in wrong.items():
            if problem:
                value = self.num_beams if name == "do_sample" else getattr(self, name)
                raise ConfigError(f"gen_param.{name}: {problem}{' ' if name == 'do_sample' else ', not '}{value}")


def read_decoding_options(section: Any) -> DecodingOptions:
    """Read a section ``gen_param``, or a mapping of its keys; None gives the defaults.

    Raises:
        ConfigError: if a key is unknown (names the nearest) or a value is wrong.
    """
    known = [field.name for field in dataclasses.fields(DecodingOptions)]
    for key in section or ():
        if key not in known:
            raise ConfigError(f"gen_param.{key}: unknown key.{nearest(str(key), known)}")
    return read_options(section, DecodingOptions)
