"""What MERLOT's models (Zellers et al. 2021, arXiv:2106.02636) share: images and text in one joint encoder.

A joint sequence is ``image 1 .. image T, text``. An image is its summary and its pooled places; all see each other.

Shapes: B batch, T images, S pixels of a side, P positions of an image, X text positions, H hidden.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.models.base import VideoTextModel
from mmpt.models.cross_modal import States
from mmpt.models.merlot_options import EPS, MERLOTOptions
from mmpt.models.merlot_weights import from_published
from mmpt.modules.image_encoder import EncodedImages, ImageEncoder, ImageTokens
from mmpt.modules.merlot_heads import TextPositions
from mmpt.modules.transformer import EncoderOutput, TransformerEncoder
from mmpt.modules.truncated_init import initialise_truncated
from mmpt.modules.valid_states import places_at, valid_states
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_section

__all__ = ["JointStates", "MERLOTBase", "hide_absent"]


class JointStates(NamedTuple):
    """States of a joint sequence: ``images`` (B, T, P, H) and ``text`` (B, X, H)."""

    images: Tensor
    text: Tensor


class MERLOTBase(VideoTextModel):
    """MERLOT up to the states of the joint encoder.

    Raises:
        ConfigError: if a key has a wrong value; names it.
    """

    reads_frames = True
    config_options: ClassVar[dict[str, type]] = {"model": MERLOTOptions}

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.options: Any = read_section(config, "model", self.config_options["model"])
        options: MERLOTOptions = self.options
        options.check()
        hidden = options.hidden_size
        self.vision = ImageEncoder(options.transformer(options.vision_layers), options.resnet_layers)
        self.image_tokens = ImageTokens(hidden, options.max_image_positions, EPS)
        self.word_embeddings = nn.Embedding(options.vocab_size, hidden)
        self.joint_text = TextPositions(options.max_text_positions, hidden, EPS, options.dropout)
        self.encoder = TransformerEncoder(options.transformer(options.num_layers))
        self.norm = nn.LayerNorm(hidden, eps=EPS)
        initialise_truncated(self, options.initializer_range)

    def published_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring the weights of a published TensorFlow checkpoint to the names and layouts of this model."""
        return from_published(state)

    def encode_images(self, frames: Tensor) -> EncodedImages:
        """Encode frames (.., 3, S, S), uint8 or floats in [0, 1], each by itself: B * T rows, in order."""
        return self.vision(frames.flatten(0, -4))

    def embed_images(self, encoded: EncodedImages, index: Tensor) -> Tensor:
        """Return the images of joint sequences, (B, T, P, H), from B * T encoded ones and their index, int64 (B, T)."""
        return self.image_tokens(encoded, index.flatten()).unflatten(0, index.shape)

    def embed_video(self, vfeats: Tensor, vmasks: Tensor | None = None) -> States:
        """Embed the frames of videos for the joint encoder; frame t has index t.

        Args:
            vfeats: uint8 or floats in [0, 1], (B, T, 3, S, S).
            vmasks: (B, T), true where a frame is real; all are by default.

        Returns:
            States (B, T * P, H); those of absent frames are masked.
        """
        vfeats, mask = hide_absent(vfeats, vmasks)
        self._check_index(vfeats.shape[1] - 1)
        index = torch.arange(vfeats.shape[1], device=vfeats.device).expand(mask.shape)
        tokens = self.embed_images(self.encode_images(vfeats), index)
        return States(tokens.flatten(1, 2), mask.repeat_interleave(tokens.shape[2], dim=1))

    def embed_text(self, tokens: Tensor, mask: Tensor) -> States:
        """Embed token ids int64 (B, X), true in ``mask`` where they are real, for the joint encoder."""
        return States(self._embed_words(self.joint_text, tokens), mask.bool())

    def fuse(self, video: States, text: States) -> Tensor:
        """Encode row i of the video together with row i of the text: (B, Lv + X, H), the text last."""
        values = torch.cat([video.values, text.values.to(video.values.dtype)], dim=1)
        return self.contextualise(values, torch.cat([video.mask, text.mask], dim=1)).last_hidden_state

    def join(self, images: Tensor, tokens: Tensor) -> JointStates:
        """Encode images (B, T, P, H) of :meth:`embed_images` together with texts int64 (B, X), padded by 0."""
        values = images.flatten(1, 2)
        seen = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        states = self.fuse(States(values, seen), self.embed_text(tokens, tokens != 0))
        return JointStates(states[:, : values.shape[1]].unflatten(1, images.shape[1:3]), states[:, values.shape[1] :])

    def join_at(self, images: Tensor, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Do what :meth:`join` does, for some states alone.

        Args:
            images: (B, T, P, H).
            tokens: int64 (B, X).
            positions: int64 (B, K), of the text.

        Returns:
            The states of the images' summaries (B, T, H), and of the text at the positions (B, K, H), where those of
            padding are arbitrary but finite.
        """
        rows, count, size = images.shape[:3]
        text = self.embed_text(tokens, tokens != 0)
        values = torch.cat([images.flatten(1, 2), text.values.to(images.dtype)], dim=1)
        mask = F.pad(text.mask, (count * size, 0), value=True)
        summaries = torch.arange(count, device=tokens.device).mul(size).expand(rows, -1)
        wanted = torch.cat([summaries, positions + count * size], dim=1)
        places = wanted + places_at(0, rows, tokens, values.shape[1])[:, None]
        states = self.contextualise(values, mask, places=places.flatten()).last_hidden_state
        told = states.unflatten(0, wanted.shape)
        return told[:, :count], told[:, count:]

    def contextualise(
        self, values: Tensor, mask: Tensor, need_attention: bool = False, places: Tensor | None = None
    ) -> EncoderOutput:
        """Run the encoder that joint sequences and texts alone share, and its norm, over (B, L, H).

        With ``places``, int64 (n,) of the B * L positions, the states are those alone, (n, H).
        """
        if need_attention:
            output = self.encoder(values, mask, need_attention=True, rows=places)
        else:
            output = EncoderOutput(valid_states(self.encoder, values, mask, places))
        return output._replace(last_hidden_state=self.norm(output.last_hidden_state))

    def _embed_words(self, positions: TextPositions, tokens: Tensor) -> Tensor:
        known = positions.position_embeddings.num_embeddings
        if tokens.shape[1] > known:
            raise DataError(
                f"a text has {tokens.shape[1]} positions, but the model has embeddings of {known} "
                "(model.max_text_positions): set dataset.max_text_len or the number of chunks lower"
            )
        # not on a GPU, which would have to be waited for
        if tokens.device.type == "cpu" and tokens.numel() and int(tokens.max()) >= self.options.vocab_size:
            raise DataError(
                f"token id {int(tokens.max())}, but the model has embeddings of model.vocab_size: "
                f"{self.options.vocab_size}; dataset.tokenizer must be that of the model"
            )
        return positions(self.word_embeddings(tokens))

    def _check_index(self, greatest: int) -> None:
        if greatest >= self.options.max_image_positions:
            raise ConfigError(
                f"model.max_image_positions: {self.options.max_image_positions}, but there is an image of index "
                f"{greatest}"
            )


def hide_absent(vfeats: Tensor, vmasks: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return frames (B, T, 3, S, S), black where ``vmasks`` (B, T) is false, and the mask as bool."""
    if vfeats.dim() != 5:
        raise DataError(f"frames have shape {tuple(vfeats.shape)}, expected (batch, frames, 3, height, width)")
    if vmasks is None:
        return vfeats, torch.ones(vfeats.shape[:2], dtype=torch.bool, device=vfeats.device)
    mask = vmasks.bool()
    return vfeats.masked_fill(~mask[:, :, None, None, None], 0), mask
