"""How a tested model came about: zero-shot or fine-tuned, as the run of its checkpoint says."""

import logging
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpt.utils.files import resolve_path

__all__ = ["FINE_TUNED", "UNKNOWN", "ZERO_SHOT", "setting_of"]

logger = logging.getLogger(__name__)

ZERO_SHOT = "zero-shot"
FINE_TUNED = "fine-tuned"
UNKNOWN = "-"


def setting_of(config: Any) -> str:
    """Return the setting of a test: ``eval.setting``, or else what the training of its checkpoint was.

    A run folder holds the resolved settings of its training as ``config.yaml``. A training that began from
    a checkpoint of another run (``fairseq.checkpoint.restore_file``) is fine-tuning; the test of any other
    is zero-shot. Without that file the answer is "-".
    """
    options = OmegaConf.create(config)
    given = OmegaConf.select(options, "eval.setting")
    if given:
        return str(given)
    checkpoint = OmegaConf.select(options, "fairseq.common_eval.path")
    if not checkpoint:
        return UNKNOWN
    folder = resolve_path(str(checkpoint)).parent
    settings = folder / "config.yaml"
    try:
        training = OmegaConf.load(settings)
        restored = OmegaConf.select(training, "fairseq.checkpoint.restore_file")
        trained = OmegaConf.select(training, "fairseq") is not None
    except FileNotFoundError:
        return UNKNOWN
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        logger.warning("%s: cannot be read (%s); set eval.setting", settings, error)
        return UNKNOWN
    if not trained:
        return UNKNOWN
    # a bare name is fairseq's own way to resume the run in its save_dir; so is a file of the same folder
    resumed = restored and ("/" not in str(restored) or resolve_path(str(restored)).parent == folder)
    return FINE_TUNED if restored and not resumed else ZERO_SHOT
