"""How text is generated: the keys of the section ``gen_param``, under the names of Hugging Face's ``generate``."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from mmpt.utils.errors import ConfigError, nearest
from mmpt.utils.options import read_options
from mmpt.utils.seeds import DEFAULT_SEED

__all__ = ["DecodingOptions", "read_decoding_options"]

_LENGTH = "not supported: set model.max_decode_length"
#: Arguments of ``generate`` that this section does not take. Their names are near those of others, of which none means
#: the same: no other key is suggested.
_NAMES = """
    bad_words_ids begin_suppress_tokens bos_token_id constraints decoder_start_token_id diversity_penalty dola_layers
    encoder_no_repeat_ngram_size encoder_repetition_penalty eos_token_id epsilon_cutoff eta_cutoff
    exponential_decay_length_penalty force_words_ids forced_bos_token_id forced_decoder_ids forced_eos_token_id
    guidance_scale logits_processor low_memory max_time min_p num_assistant_tokens num_beam_groups num_return_sequences
    output_attentions output_hidden_states output_logits output_scores pad_token_id penalty_alpha
    prefix_allowed_tokens_fn prompt_lookup_num_tokens remove_invalid_values renormalize_logits return_dict_in_generate
    sequence_bias stop_strings stopping_criteria suppress_tokens token_healing typical_p watermarking_config
"""
_REFUSED = dict.fromkeys(_NAMES.split(), "not supported")
_REFUSED |= {
    "max_length": _LENGTH,
    "max_new_tokens": _LENGTH,
    "min_new_tokens": "not supported: set gen_param.min_length, which counts words",
    "use_cache": "not supported: what was computed is always kept",
}


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
        early_stopping: when a beam search ends that has ``num_beams`` finished hypotheses. false, as published: when
            the likeliest continuation, scored at its present length, is no better than the worst of them; true: at
            once; never: when no longer text can be better than the best of them, as many as there are.
        repetition_penalty: divides positive scores, and multiplies negative ones, of words that the text has already
            (Keskar et al. 2019, arXiv:1909.05858); 1 changes nothing. The prompt does not count.
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
    early_stopping: bool | str = False
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    min_length: int = 0
    seed: int = DEFAULT_SEED

    #: Keys that are known and refused, with what to say.
    refused: ClassVar[Mapping[str, str]] = _REFUSED

    def __post_init__(self) -> None:
        wrong = {
            "num_beams": self.num_beams < 1 and "must be at least 1",
            "do_sample": self.do_sample and self.num_beams > 1 and "draws single texts: set num_beams: 1, not",
            "temperature": not 0 < self.temperature < math.inf and "must be positive",
            "top_k": self.top_k < 0 and "must not be negative",
            "top_p": not 0 < self.top_p <= 1 and "must be above 0 and at most 1",
            "length_penalty": not math.isfinite(self.length_penalty) and "must be a finite number",
            "early_stopping": self.early_stopping not in (True, False, "never") and "must be true, false or never",
            "repetition_penalty": not 0 < self.repetition_penalty < math.inf and "must be positive",
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
        ConfigError: if a key is unknown (names the nearest) or not supported, or a value is wrong.
    """
    known = [field.name for field in dataclasses.fields(DecodingOptions)]
    for key in section or ():
        if key in DecodingOptions.refused:
            supported = ", ".join(known)
            raise ConfigError(f"gen_param.{key}: {DecodingOptions.refused[key]}. Keys are {supported}")
        if key not in known:
            raise ConfigError(f"gen_param.{key}: unknown key.{nearest(str(key), known)}")
    return read_options(section, DecodingOptions, "gen_param")
