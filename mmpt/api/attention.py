"""How much a model that fuses frames and text attends to what: for pictures.

Shapes: N frames, (h, w) patches of each, W words.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmpt.api.questions import open_batch
from mmpt.api.text_input import Tokens
from mmpt.api.video_sources import source_of
from mmpt.models.cross_modal import CrossModalModel
from mmpt.models.merlot_base import MERLOTBase
from mmpt.models.merlot_open_ended import MERLOTOpenEnded
from mmpt.modules.image_encoder import POOL
from mmpt.modules.lite_resnet import STRIDE
from mmpt.utils.errors import MMPTError
from mmpt.utils.subwords import Subwords

if TYPE_CHECKING:
    from mmpt.api.pipeline import Video, VideoTextPipeline

__all__ = ["Attention", "attention_of", "pieces_of"]


@dataclass(frozen=True)
class Attention:
    """What is attended to, summed over layers and queries, the mean over heads.

    Attributes:
        frames: uint8 (N, height, width, 3), as the model sees them.
        patches: float32 (N, h, w), of each patch of a frame.
        words: W pieces of words, special ones too.
        weights: float32 (W,), of each.
    """

    frames: np.ndarray
    patches: np.ndarray
    words: list[str]
    weights: np.ndarray


@torch.inference_mode()
def attention_of(pipeline: "VideoTextPipeline", video: "Video", text: str, *, fps: float | None = None) -> Attention:
    """Return the attention that the frames of a video and the words of a text receive, read together.

    A patch is what stands as one position in the encoder of both: 32 pixels a side.

    Raises:
        MMPTError: if the model is not one of VIOLET, LAVENDER or MERLOT.
        ConfigError: if it is one of MERLOT that reads a text among options alone.
        DataError: if the video cannot be read, or the text has no words.
    """
    model = pipeline.model
    if not isinstance(model, CrossModalModel | MERLOTBase):
        raise MMPTError(
            f"{pipeline.source}: {type(model).__name__} (of {pipeline.system}) has no attention over patches of frames "
            "and words to show; VIOLET, LAVENDER and MERLOT have"
        )
    if isinstance(model, MERLOTBase):
        vfeats, vmasks, caps, cmasks = _merlot_inputs(pipeline, video, text, fps)
        states, words_of, side = model.embed_video(vfeats, vmasks), model.embed_text(caps, cmasks), STRIDE * POOL
    else:
        vfeats, vmasks = pipeline.video_inputs(video, fps)
        caps, cmasks, pretext = _on_device(pipeline, text)
        states, words_of = model.encode_video(vfeats, vmasks), model.encode_text(caps, cmasks, **pretext)
        side = model.enc_img.swin.options.stride
    received = model.attention_received(states, words_of)[0].float().cpu()
    count, (height, width) = int(vmasks.sum()), vfeats.shape[-2:]
    grid = (-(-height // side), -(-width // side))
    # before the patches of a frame stands what sums it up
    of_frames = received[: states.values.shape[1]].view(vfeats.shape[1], -1)[:count, 1:]
    real = cmasks[0].bool().cpu()
    words, of_text = pieces_of(pipeline, caps[0].cpu()[real]), received[-caps.shape[1] :][real]
    frames = vfeats[0, :count].permute(0, 2, 3, 1).cpu().numpy()
    return Attention(frames, of_frames.view(count, *grid).numpy(), words, of_text.numpy())


def _on_device(pipeline: "VideoTextPipeline", text: str) -> Tokens:
    caps, cmasks, pretext = pipeline.comparer.texts([text])
    device = pipeline.device
    return Tokens(caps.to(device), cmasks.to(device), {name: value.to(device) for name, value in pretext.items()})


def _merlot_inputs(
    pipeline: "VideoTextPipeline", video: "Video", text: str, fps: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ``vfeats``, ``vmasks``, ``caps`` and ``cmasks`` of one row; to a model of questions the text is one."""
    if isinstance(pipeline.model, MERLOTOpenEnded):
        batch = open_batch(pipeline, source_of(video, fps), text)
        return batch["vfeats"], batch["vmasks"], batch["caps"], batch["cmasks"]
    return (*pipeline.video_inputs(video, fps), *_on_device(pipeline, text)[:2])


def pieces_of(pipeline: "VideoTextPipeline", ids: Iterable[int]) -> list[str]:
    """Return the pieces of words of ids, as its tokenizer writes them: one of BERT's kind marks what goes on a word."""
    if isinstance(pipeline.tokenizer, Subwords):
        return [pipeline.tokenizer.decode([one]).strip() for one in ids]
    return [str(piece) for piece in pipeline.tokenizer.convert_ids_to_tokens([int(one) for one in ids])]
