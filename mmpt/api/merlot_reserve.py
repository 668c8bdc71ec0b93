"""A released MERLOT Reserve (arXiv:2201.02639) on one's own videos, by the published calls.

::

    model = PretrainedMerlotReserve.from_pretrained("large_resadapt", tokenizer="lowercase_encoder.json")
    segments = video_to_segments("video.mp4")[:8]
    segments[0]["text"] = "in this video i'll be<|MASK|>"
    video = model.preprocess_video(segments)
    states = model.embed_video(**video)[video["tokens"] == MASK]
    probabilities = (100 * states @ model.get_label_space(["cooking", "dancing"]).T).softmax(-1)

Weights and tokenizer are local files; nothing is fetched. Shapes: B batch, S segments, P frames, (h, w) grid of
patches, V = h * w / 4, L tokens, H hidden.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from omegaconf import OmegaConf
from torch import Tensor

from mmpt.api.reserve_files import find_weights, read_weights
from mmpt.api.reserve_preprocess import load_tokenizer, preprocess_video
from mmpt.models.reserve import ReservePretraining
from mmpt.models.reserve_weights import published_names
from mmpt.modules.reserve_sequence import JointInputs, prepare_multimodal_inputs
from mmpt.modules.reserve_targets import unit_rows
from mmpt.modules.reserve_tokens import PAD, SOUNDS, SPAN_LENGTH
from mmpt.utils.checkpoint import load_into
from mmpt.utils.devices import pick_device
from mmpt.utils.errors import DataError

__all__ = ["GRIDS", "PretrainedMerlotReserve"]

logger = logging.getLogger(__name__)

#: Grids that weights were released for: (12, 20) before, the others after resolution adaptation.
GRIDS = ((12, 20), (18, 32), (24, 24))
_MOST_FRAMES = 8
#: Options that are encoded at a time.
_SPANS_AT_ONCE = 512


class PretrainedMerlotReserve:
    """A model in eval mode and its tokenizer; all calls run without gradients and give float32 on its device.

    "Unit" vectors have length 1: dot products of them are cosines.
    """

    def __init__(self, model: ReservePretraining, image_grid_size: tuple[int, int], tokenizer: Any = None) -> None:
        self.model = model.eval()
        self.image_grid_size = image_grid_size
        self.tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        model_name: str | os.PathLike[str],
        image_grid_size: tuple[int, int] = (18, 32),
        cache_dir: str | os.PathLike[str] | None = None,
        *,
        tokenizer: Any = None,
        device: str | torch.device | None = None,
        size_per_head: int | None = None,
    ) -> Self:
        """Read a model from a local file; its sizes are those of the weights.

        Args:
            model_name: a published Flax file, or .pt or .safetensors of this toolkit; the folder or the YAML of a
                training; or, with ``cache_dir``, the name of a file in it: ``base`` and ``large`` are ``base_resadapt``
                and ``large_resadapt``, but for the grid (12, 20).
            image_grid_size: rows and columns of patches of 16 pixels, both even.
            cache_dir: the folder in which a name is looked for. Nothing is fetched: the published host is gone.
            tokenizer: the path of ``lowercase_encoder.json``, for calls that take text.
            device: by default a GPU if there is one.
            size_per_head: dimensions of a head, of weights that nothing else tells of: neither a config beside them,
                nor the shapes of a published file, nor all other sizes of a published model.

        Raises:
            CheckpointError: if the file is missing, damaged, no pre-trained MERLOT Reserve, or of heads that nobody
                tells.
            ConfigError: if the grid's sides are odd, or a YAML is wrong.
        """
        file, config = find_weights(model_name, image_grid_size, cache_dir)
        state, sizes = read_weights(file, config, size_per_head)
        if tuple(image_grid_size) not in GRIDS:
            logger.warning("image_grid_size: no weights were released for %s, but for %s", image_grid_size, GRIDS)
        built = OmegaConf.create({"dataset": {"image_grid": list(image_grid_size)}, "model": sizes})
        with torch.device("meta"):  # the weights are read, so none are drawn
            model = ReservePretraining(built)
        model.to_empty(device="cpu")
        load_into(model, published_names(state), allow_unexpected=("proj.*",), source=str(file))
        return cls(model.to(pick_device(device)), (image_grid_size[0], image_grid_size[1]), tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.contrastive_scales.device

    def preprocess_video(self, video_segments: Sequence[Mapping[str, Any]], verbose: bool = False) -> dict[str, Any]:
        """Prepare segments as :func:`~mmpt.api.reserve_preprocess.preprocess_video`, for this grid and tokenizer."""
        return preprocess_video(video_segments, self.image_grid_size, verbose, self.tokenizer)

    def get_label_space(self, options: Sequence[str]) -> Tensor:
        """Encode texts as text spans of at most 15 tokens: unit vectors (N, H).

        Raises:
            DataError: without a tokenizer, or if an option has no words.
        """
        tokenizer = load_tokenizer(self.tokenizer)
        rows = torch.full((len(options), SPAN_LENGTH), PAD, dtype=torch.long)
        for row, option in zip(rows, options, strict=True):
            words = torch.tensor(tokenizer.encode(option)[:SPAN_LENGTH], dtype=torch.long)
            if not len(words):
                raise DataError(f"the option {option!r} has no words")
            row[: len(words)] = words
        return torch.cat([self.embed_text_spans_only(part) for part in rows.split(_SPANS_AT_ONCE)])

    @torch.no_grad()
    def embed_text_spans_only(self, text_spans: Tensor) -> Tensor:
        """Encode text spans, ids (B, at most 15), padded with 0: unit vectors (B, H)."""
        return self.model.encode_text(self._ids(text_spans))

    @torch.no_grad()
    def embed_audio_only(self, audio_clips: Tensor) -> Tensor:
        """Encode sounds (.., 60, 65): unit vectors (.., H)."""
        clips = self._numbers(audio_clips)
        return unit_rows(self.model.audio_encoder(clips.flatten(0, -3)).cls).view(*clips.shape[:-2], -1)

    @torch.no_grad()
    def get_imgseq_only(self, imgs: Tensor) -> Tensor:
        """Encode frames, patches (.., h * w, 768), to their pooled tokens (.., V, H)."""
        patches = self._numbers(imgs)
        pooled = self.model.vision_encoder(patches.flatten(0, -3), self.image_grid_size).pooled
        return pooled.view(*patches.shape[:-2], *pooled.shape[1:])

    @torch.no_grad()
    def get_audioseq_only(self, audio_clips: Tensor) -> Tensor:
        """Encode sounds (.., 60, 65) to their pooled tokens (N, 6, H), N being all of them."""
        return self.model.audio_encoder(self._numbers(audio_clips).flatten(0, -3)).pooled

    def embed_video(self, images: Tensor, audio_clips: Tensor | None, tokens: Tensor, subseg_idxs: Tensor) -> Tensor:
        """Read a video: unit vectors (L, H) of its tokens.

        Args:
            images: patches of its frames, (S, h * w, 768).
            audio_clips: (3 S, 60, 65); None: no sound is encoded, where all segments are text.
            tokens: ids (L,), padded with 0. AUDIOSPAN stands in runs of six.
            subseg_idxs: int (L,): three to a segment, -1 at padding; those of AUDIOSPAN name the sound.
        """
        clips = None if audio_clips is None else audio_clips[None]
        return self.batch_embed_video(images[None], clips, tokens[None], subseg_idxs[None])[0]

    def batch_embed_video(
        self, images: Tensor, audio_clips: Tensor | None, tokens: Tensor, subseg_idxs: Tensor
    ) -> Tensor:
        """Read B videos, as :meth:`embed_video` with a leading dimension: (B, L, H)."""
        frames = self.get_imgseq_only(images)
        if audio_clips is None:
            return self._embed(frames, None, tokens, subseg_idxs)
        sounds = self.get_audioseq_only(audio_clips).unflatten(0, audio_clips.shape[:2])
        return self._embed(frames, sounds, tokens, subseg_idxs, subseg_idxs)

    def embed_singleimg_with_multiimg_prompt(
        self, images_prompt: Tensor, images: Tensor, tokens: Tensor, subseg_idxs: Tensor
    ) -> Tensor:
        """Read frames behind frames that are encoded already: unit vectors (L, H).

        Args:
            images_prompt: (P, V, H) of :meth:`get_imgseq_only`.
            images: patches (S, h * w, 768); at most 8 frames in all.
            tokens: ids (L,); subseg_idxs count from the first frame of the prompt.
            subseg_idxs: int (L,).

        Raises:
            DataError: if there are more than 8 frames.
        """
        frames = torch.cat([self._numbers(images_prompt), self.get_imgseq_only(images)])
        if len(frames) > _MOST_FRAMES:
            raise DataError(f"{len(frames)} frames: the model was trained with at most {_MOST_FRAMES}")
        return self.embed_preencoded_noaudio(frames, tokens, subseg_idxs)

    def embed_preencoded_noaudio(self, images_enc: Tensor, tokens: Tensor, subseg_idxs: Tensor) -> Tensor:
        """Read frames (S, V, H) that are encoded already, without sound: unit vectors (L, H)."""
        return self._embed(images_enc[None], None, tokens[None], subseg_idxs[None])[0]

    def embed_preencoded_audio(
        self, images_enc: Tensor, audio_enc: Tensor, tokens: Tensor, subseg_idxs: Tensor, audio_pointers: Tensor
    ) -> Tensor:
        """Read frames (S, V, H) and sounds (A, 6, H) that are encoded already: unit vectors (L, H).

        ``audio_pointers``, int (L,), name the sound of each AUDIOSPAN.
        """
        return self._embed(images_enc[None], audio_enc[None], tokens[None], subseg_idxs[None], audio_pointers[None])[0]

    @torch.no_grad()
    def prepare_multimodal_inputs(
        self,
        tokens: Tensor,
        token_segment_idx: Tensor | None = None,
        token_embs: Tensor | None = None,
        vision_input: Tensor | None = None,
        audio_spans: Tensor | None = None,
        audio_pointers: Tensor | None = None,
        padding_len: int | None = None,
        video_src_idx: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Assemble joint sequences: ``x`` (B, P, H), ``rotary_coords`` (B, P, 4), ``attention_mask`` bool (B, P, P).

        Args:
            tokens: ids (B, L).
            token_segment_idx: int (B, L), the segment of each, -1 for none; None: 0.
            token_embs: (B, L, H), by default those of the tokens.
            vision_input: pooled tokens of frames, segment after segment, (B, S * V, H) or (B, S, V, H).
            audio_spans: (B, A, 6, H), with ``audio_pointers`` int (B, L).
            audio_pointers: which sound an AUDIOSPAN is of.
            padding_len: P.
            video_src_idx: int (B, S): positions see only those of the same video.
        """
        inputs = self._inputs(
            tokens, token_segment_idx, token_embs, vision_input, audio_spans, audio_pointers, padding_len, video_src_idx
        )
        return {"x": inputs.x, "rotary_coords": inputs.coordinates, "attention_mask": inputs.mask}

    def _inputs(
        self,
        tokens: Tensor,
        segments: Tensor | None,
        embeddings: Tensor | None,
        vision: Tensor | None,
        audio: Tensor | None,
        pointers: Tensor | None,
        length: int | None = None,
        sources: Tensor | None = None,
    ) -> JointInputs:
        ids = self._ids(tokens)
        rows, columns = (side // self.model.options.pooling for side in self.image_grid_size)
        if vision is not None:
            vision = self._numbers(vision)
            vision = vision if vision.dim() == 4 else vision.unflatten(1, (-1, rows * columns))
        return prepare_multimodal_inputs(
            ids,
            None if segments is None else self._ids(segments),
            self.model.token_encoder(ids) if embeddings is None else self._numbers(embeddings),
            vision=vision,
            vision_grid=(rows, columns),
            audio=None if audio is None else self._numbers(audio),
            audio_pointers=None if pointers is None else self._ids(pointers),
            padding_length=length,
            sources=None if sources is None else self._ids(sources),
        )

    @torch.no_grad()
    def _embed(
        self,
        images_enc: Tensor,
        audio_enc: Tensor | None,
        tokens: Tensor,
        subseg_idxs: Tensor,
        audio_pointers: Tensor | None = None,
    ) -> Tensor:
        segments = torch.div(subseg_idxs, SOUNDS, rounding_mode="floor")
        inputs = self._inputs(tokens, segments, None, images_enc, audio_enc, audio_pointers)
        return unit_rows(self.model.head(self.model.join(inputs)[:, : tokens.shape[1]]))

    def _ids(self, values: Tensor) -> Tensor:
        return torch.as_tensor(values).to(self.device, torch.long)

    def _numbers(self, values: Tensor) -> Tensor:
        return torch.as_tensor(values).to(self.device, self.model.contrastive_scales.dtype)
