"""Captions of videos, written by the models that were trained to."""

from typing import Any

import torch
from omegaconf import OmegaConf

from mmpt.api.capability import require_call
from mmpt.api.video_input import each_source
from mmpt.api.video_sources import Source, as_list
from mmpt.models.lavender import LAVENDER
from mmpt.modules.decoding import DecodingOptions, read_decoding_options
from mmpt.processors.lavender_captioning import LAVENDERCaptioningAligner
from mmpt.utils.errors import DataError
from mmpt.utils.seeds import item_generator

__all__ = ["caption"]


def caption(
    pipeline: Any, videos: Any, *, fps: float | None = None, progress: bool = False, **decoding: Any
) -> str | list[str]:
    """Write a caption about each video; see :meth:`~mmpt.api.VideoTextPipeline.caption`.

    Args:
        pipeline: of a loaded model.
        videos: one or several, as any call of a pipeline takes them.
        fps: of frames.
        progress: show a bar.
        decoding: keys of :class:`~mmpt.modules.decoding_options.DecodingOptions`, over those of the job's
            ``gen_param``.

    Returns:
        A text, or one for each of several videos. VLM writes about the first ``max_video_len`` seconds, as it was
        trained to.

    Raises:
        MissingCapabilityError: if the model writes no text.
        ConfigError: if a key is unknown (names the nearest), or has a wrong value.
        DataError: if there is no video.
    """
    require_call(pipeline, "caption")
    options = read_decoding_options({**(OmegaConf.select(pipeline.config, "gen_param") or {}), **decoding})
    given, single = as_list(videos)
    if not given:
        raise DataError("there is no video")
    sources = each_source(given, fps, progress)
    texts = [_write(pipeline, source, options, row) for row, source in enumerate(sources)]
    return texts[0] if single else texts


def _write(pipeline: Any, source: Source, options: DecodingOptions, row: int) -> str:
    """Write about one video: what is drawn depends on the seed and its place alone."""
    rows = pipeline.reader.whole(source)
    vfeats, vmasks = (part[:1].to(pipeline.device) for part in rows)
    rngs = [item_generator(options.seed, 0, row)]
    ids = pipeline.model.generate(vfeats, vmasks, options, rngs, **_pretext(pipeline))[0]
    text: str = pipeline.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
    return text.strip()


def _pretext(pipeline: Any) -> dict[str, torch.Tensor]:
    """Return what stands before the text of a caption, as the job says (LAVENDER)."""
    if not isinstance(pipeline.model, LAVENDER):
        return {}
    pretext = LAVENDERCaptioningAligner(pipeline.config.dataset).pretext()
    return {name: value[None].to(pipeline.device) for name, value in pretext.items()}
