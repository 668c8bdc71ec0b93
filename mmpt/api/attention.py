"""How much a model that fuses frames and text attends to what: for pictures.

Shapes: N frames, (h, w) patches of each, W words.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmpt.models.cross_modal import CrossModalModel
from mmpt.utils.errors import MMPTError

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

    Raises:
        MMPTError: if the model is not one of VIOLET or LAVENDER.
        DataError: if the video cannot be read, or the text has no words.
    """
    model = pipeline.model
    if not isinstance(model, CrossModalModel):
        raise MMPTError(
            f"{pipeline.source}: {type(model).__name__} (of {pipeline.system}) has no attention over patches of frames "
            "and words to show; VIOLET and LAVENDER have"
        )
    vfeats, vmasks = pipeline.video_inputs(video, fps)
    tokens = pipeline.comparer.texts([text])
    caps, cmasks = tokens.caps.to(pipeline.device), tokens.cmasks.to(pipeline.device)
    pretext = {name: value.to(pipeline.device) for name, value in tokens.pretext.items()}
    states = model.encode_video(vfeats, vmasks)
    received = model.attention_received(states, model.encode_text(caps, cmasks, **pretext))[0].float().cpu()
    count, (height, width) = int(vmasks.sum()), vfeats.shape[-2:]
    stride = model.enc_img.swin.options.stride
    grid = (-(-height // stride), -(-width // stride))
    of_frames = received[: states.values.shape[1]].view(vfeats.shape[1], -1)[:count, 1:]
    words = pieces_of(pipeline, tokens.caps[0][tokens.cmasks[0]])
    of_text = received[-caps.shape[1] :][tokens.cmasks[0]]
    frames = vfeats[0, :count].permute(0, 2, 3, 1).cpu().numpy()
    return Attention(frames, of_frames.view(count, *grid).numpy(), words, of_text.numpy())


def pieces_of(pipeline: "VideoTextPipeline", ids: Iterable[int]) -> list[str]:
    """Return the pieces of words of ids, as its tokenizer of BERT's kind writes them."""
    return [str(piece) for piece in pipeline.tokenizer.convert_ids_to_tokens([int(one) for one in ids])]
