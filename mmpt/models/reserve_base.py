"""What MERLOT Reserve's models share (arXiv:2201.02639): the encoders, the word table and the joint transformer.

Shapes: B batch, T frames (one per segment), (H, W) pixels of a frame, V pooled tokens of a frame, A sounds, K tokens of
a sound, X text positions, D hidden.
"""

import math
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmpt.models.base import VideoTextModel, starts_from_pretrained
from mmpt.models.reserve_options import ReserveOptions, ReserveSequence, check_reserve, tiny_reserve_config
from mmpt.models.reserve_weights import published_names
from mmpt.modules.linear import Linear
from mmpt.modules.reserve_sequence import JointInputs, prepare_multimodal_inputs
from mmpt.modules.reserve_targets import unit_rows
from mmpt.modules.reserve_tokens import AUDIO_TOKENS, AUDIOSPAN, MASK, PAD, PATCH, SOUNDS
from mmpt.modules.reserve_towers import (
    AttentionPool,
    AudioEncoder,
    Encoded,
    SpanEncoder,
    Tower,
    VisionEncoder,
    patches_of,
    tower_options,
)
from mmpt.modules.truncated_init import truncated_normal
from mmpt.utils.checkpoint import load_checkpoint
from mmpt.utils.errors import DataError
from mmpt.utils.options import read_section

__all__ = ["ReserveModel"]

#: Standard deviation of a truncated normal distribution (at two deviations) of unit scale.
_TRUNCATED = 0.87962566103423978


class ReserveModel(VideoTextModel):
    """The encoders and the joint transformer, without an objective.

    A subclass says in ``with_audio`` and ``with_contrast`` (span encoder, head, temperatures) what it has.

    Raises:
        ConfigError: if a key has a wrong value; names it.
        CheckpointError: if the weights that ``model.init`` names are absent or unfit.
    """

    reads_frames = True
    with_audio: ClassVar[bool] = True
    with_contrast: ClassVar[bool] = True
    config_options: ClassVar[dict[str, type]] = {"dataset": ReserveSequence, "model": ReserveOptions}

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.sequence: Any = read_section(config, "dataset", self.config_options["dataset"])
        self.options: Any = read_section(config, "model", self.config_options["model"])
        options: Any = self.options
        check_reserve(self.sequence, options)
        size = self.hidden_size = options.hidden_size

        def layers(count: int) -> Any:
            return tower_options(size, count, options.size_per_head, options.gradient_checkpointing)

        self.vision_encoder = VisionEncoder(layers(options.vision_layers), options.pooling)
        if self.with_audio:
            self.audio_encoder = AudioEncoder(layers(options.audio_layers))
        self.token_encoder = nn.Embedding(options.vocab_size, size)
        self.joint_transformer = Tower(layers(options.joint_layers), with_cls=False)
        if self.with_contrast:
            self.span_encoder = SpanEncoder(layers(options.span_layers))
        self.add_heads()
        self.initialise()
        if starts_from_pretrained(config, options.init):
            load_checkpoint(self, options.init, allow_missing=self.new_heads)

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 64-d model of small frames, for tests."""
        return tiny_reserve_config(cls.__name__)

    def add_heads(self) -> None:
        """Add what stands above the joint transformer, before the weights are drawn or loaded."""
        if self.with_contrast:
            self.head = Linear(self.hidden_size, self.hidden_size)
            #: Logarithms of the scales of the three objectives: frames, sounds, text spans.
            self.contrastive_scales = nn.Parameter(torch.ones(3))

    def initialise(self) -> None:
        """Draw all weights as published (effective rule: specification B1.6), from torch's generator."""
        widest = self.options.initializer_range
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                fan_in = module.weight[0].numel()
                scale = min(18 / fan_in, widest) / math.sqrt(2)
                truncated_normal(module.weight, scale)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, Tower) and module.with_cls:
                nn.init.normal_(module.cls, std=0.02)
        for module in self.modules():
            if isinstance(module, AttentionPool):
                for part in (module.query, module.key, module.value, module.out):
                    scale = 1 / (_TRUNCATED * math.sqrt(self.hidden_size))
                    truncated_normal(part.weight, scale)
        if self.hidden_size <= 768:
            nn.init.normal_(self.token_encoder.weight, std=widest)
        else:
            nn.init.xavier_uniform_(self.token_encoder.weight)

    def published_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring the weights of a published Flax file to the names of this model; others stay as they are."""
        return published_names(state)

    def encode_frames(self, vfeats: Tensor) -> Encoded:
        """Encode frames (.., 3, H, W), uint8 or float in [0, 1], each for itself: ``cls`` (N, D), ``pooled`` (N, V, D).

        Raises:
            DataError: if the sides are not multiples of 16 pixels.
        """
        frames = vfeats.flatten(0, -4)
        return self.vision_encoder(patches_of(frames), (frames.shape[-2] // PATCH, frames.shape[-1] // PATCH))

    def pooled_grid(self, vfeats: Tensor) -> tuple[int, int]:
        """Return the rows and columns of a frame's pooled tokens."""
        side = PATCH * self.options.pooling
        return vfeats.shape[-2] // side, vfeats.shape[-1] // side

    def joint_inputs(self, tokens: Tensor, segments: Tensor | None, **parts: Any) -> JointInputs:
        """Assemble joint sequences of tokens (B, X); ``parts`` as of :func:`prepare_multimodal_inputs`."""
        return prepare_multimodal_inputs(tokens, segments, self.token_encoder(tokens), **parts)

    def join(self, inputs: JointInputs, places: Tensor | None = None) -> Tensor:
        """Run the joint transformer: states (B, P, D) after its last norm.

        With ``places``, int64 (n,) of the B * P positions, those alone: (n, D).
        """
        return self.joint_transformer(*inputs, places=places)[1]

    def encode_text(self, caps: Tensor, cmasks: Tensor | None = None) -> Tensor:
        """Encode short texts, int64 (B, X) with masks, as text spans: unit vectors (B, D).

        The model was made for spans of at most 15 ids without START or END.
        """
        tokens = caps if cmasks is None else caps.masked_fill(~cmasks.bool(), PAD)
        return unit_rows(self.span_encoder(self.token_encoder(tokens), tokens != PAD))

    def encode_video(self, vfeats: Tensor, vmasks: Tensor | None = None, audio_clips: Tensor | None = None) -> Tensor:
        """Encode videos to what a MASK beside their frames (and sounds) says, unit vectors (B, D).

        The text is a lone MASK in segment 0. With ``audio_clips`` the sounds of the segments follow it.

        Args:
            vfeats: uint8 or float in [0, 1], (B, T, 3, H, W), frame t in segment t.
            vmasks: (B, T), true where a frame is real; those of the others are not seen, nor their sounds heard.
            audio_clips: (B, 3 T, 60, 65); None: no sound is encoded at all.

        Raises:
            DataError: if there are not three sounds for each frame.
        """
        batch, count = vfeats.shape[:2]
        seen = vfeats.new_ones((batch, count), dtype=torch.bool) if vmasks is None else vmasks.bool()
        vfeats = vfeats.masked_fill(~seen[:, :, None, None, None], 0)
        tokens = torch.full((batch, 1), MASK, dtype=torch.long, device=vfeats.device)
        segments, pointers, audio = torch.zeros_like(tokens), torch.full_like(tokens, -1), None
        if audio_clips is not None:
            if audio_clips.shape[:2] != (batch, SOUNDS * count):
                raise DataError(
                    f"audio_clips {tuple(audio_clips.shape)}: expected {SOUNDS} for each of {batch} x {count} frames"
                )
            audio = self.audio_encoder(audio_clips.flatten(0, 1)).pooled.unflatten(0, (batch, -1))
            sounds = torch.arange(SOUNDS * count, device=tokens.device).repeat_interleave(AUDIO_TOKENS)
            heard = seen[:, sounds // SOUNDS]
            tokens = torch.cat([tokens, torch.where(heard, AUDIOSPAN, PAD)], dim=1)
            segments = torch.cat([segments, torch.where(heard, sounds // SOUNDS, -1)], dim=1)
            pointers = torch.cat([pointers, torch.where(heard, sounds, -1)], dim=1)
        inputs = self.joint_inputs(
            tokens,
            segments,
            vision=self.encode_frames(vfeats).pooled.unflatten(0, (batch, count)),
            vision_grid=self.pooled_grid(vfeats),
            vision_mask=seen,
            audio=audio,
            audio_pointers=pointers,
        )
        return unit_rows(self.head(self.join(inputs)[:, 0]))
