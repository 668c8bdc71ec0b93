"""MERLOT's pre-training (Zellers et al. 2021, arXiv:2106.02636): frames and the words spoken while they are shown.

A record is N chunks, each a frame and a text, of one or more videos. A language-only encoder reads all texts of the
record: its states are what frames are compared with, and its attention says which words are masked. Then groups of
chunks pass the joint encoder, which tells masked words, and for pairs of moments which comes first.

Shapes: B records, N chunks, S pixels of a side, X text positions of a chunk, n chunks of a group, R = B * N / n groups,
L = n * X text positions of a group, M masked positions of a group, H hidden, V vocabulary.
"""

from typing import Any, ClassVar

import torch
from omegaconf import DictConfig
from torch import Tensor

from mmpt.models.base import Contrast, masked_mean
from mmpt.models.merlot_base import MERLOTBase, hide_absent
from mmpt.models.merlot_options import (
    EPS,
    MERLOTPretrainingOptions,
    MERLOTSequenceOptions,
    tiny_merlot_config,
)
from mmpt.modules.attention_masking import MaskedText, attention_scores, mask_text_by_attention
from mmpt.modules.bert import BertConfig
from mmpt.modules.lm_head import LMHead
from mmpt.modules.merlot_heads import ORDERS, MLPHead, TextPositions, order_targets, order_weights, unit
from mmpt.modules.merlot_tokens import PADDING
from mmpt.modules.truncated_init import initialise_truncated
from mmpt.modules.valid_states import places_at
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_section

__all__ = ["MERLOTPretraining"]

_NOISE = ("mask_gumbel", "mask_left", "mask_right", "mask_choice", "mask_words")


class MERLOTPretraining(MERLOTBase):
    """MERLOT with the heads of its three objectives; compares frames with texts, and orders stories, without training.

    Raises:
        ConfigError: if a key has a wrong value; names it.
    """

    capabilities = frozenset({"retrieval", "masked_modeling"})
    # Of training on a question answering task.
    allow_unexpected: ClassVar[tuple[str, ...]] = ("answer_cls.*", "rationale_cls.*")
    config_options: ClassVar[dict[str, type]] = {"dataset": MERLOTSequenceOptions, "model": MERLOTPretrainingOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.sequence: Any = read_section(config, "dataset", MERLOTSequenceOptions)
        self._check_sequence()
        options, hidden = self.options, self.options.hidden_size
        self.language_text = TextPositions(options.max_text_positions, hidden, EPS, options.dropout)
        words = BertConfig(
            hidden_size=hidden,
            vocab_size=options.vocab_size,
            layer_norm_eps=EPS,
            initializer_range=options.initializer_range,
        )
        self.lm_head = LMHead(words, self.word_embeddings, bias=True)
        self.text_head = MLPHead(hidden, hidden, hidden, EPS)
        self.image_head = MLPHead(hidden, hidden, hidden, EPS)
        self.text_image_order = MLPHead(2 * hidden, hidden, ORDERS, EPS)
        self.image_image_order = MLPHead(2 * hidden, hidden, ORDERS, EPS)
        heads = (self.lm_head.transform, self.text_head, self.image_head, self.text_image_order, self.image_image_order)
        for part in (self.language_text, *heads):
            initialise_truncated(part, options.initializer_range)

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d model of groups of two chunks, for tests."""
        return tiny_merlot_config(cls.__name__)

    def encode_video(self, vfeats: Tensor, vmasks: Tensor | None = None) -> Tensor:
        """Encode videos to unit vectors (B, H), to compare with those of texts: the mean of their frames' vectors.

        Args:
            vfeats: uint8 or floats in [0, 1], (B, T, 3, S, S).
            vmasks: (B, T), true where a frame is real; all are by default.
        """
        vfeats, mask = hide_absent(vfeats, vmasks)
        vectors = unit(self.image_head(self.encode_images(vfeats).target)).unflatten(0, mask.shape)
        return unit(masked_mean(vectors, mask))

    def encode_text(self, caps: Tensor, cmasks: Tensor | None = None) -> Tensor:
        """Encode texts int64 (B, X), START first, to unit vectors (B, H).

        ``cmasks`` (B, X) is true where a position is real, by default where there is no padding.
        """
        valid = caps != PADDING if cmasks is None else cmasks.bool()
        first = places_at(0, len(caps), caps, caps.shape[1])
        words = self._embed_words(self.language_text, caps)
        return unit(self.text_head(self.contextualise(words, valid, places=first).last_hidden_state))

    def forward(self, **batch: Any) -> dict[str, Any]:
        """Compute what the loss needs of a batch of records (:meth:`learn`), or compare videos with texts.

        A batch with ``caps``, ``cmasks``, ``vfeats`` and ``vmasks`` gives ``pooled_video`` and ``pooled_text`` (B, H).
        """
        if "tokens" in batch:
            return self.learn(**batch)
        return {
            "pooled_video": self.encode_video(batch["vfeats"], batch.get("vmasks")),
            "pooled_text": self.encode_text(batch["caps"], batch.get("cmasks")),
        }

    def learn(
        self,
        tokens: Tensor,
        vfeats: Tensor,
        video_src_ids: Tensor,
        shuffled_idx_img: Tensor | None = None,
        masked_ids: Tensor | None = None,
        masked_idx: Tensor | None = None,
        **noise: Any,
    ) -> dict[str, Any]:
        """Mask the texts of records, and compute what the three objectives need.

        Args:
            tokens: int64 (B, N, X), nothing masked; a chunk begins with START or NEXTCAPTION_START.
            vfeats: uint8 or floats in [0, 1], (B, N, 3, S, S).
            video_src_ids: int64 (B, N), equal for chunks of one video.
            shuffled_idx_img: int64 (B, N), index of each image in its group; by default its place.
            masked_ids: int64 (B, N, X), with ``masked_idx`` int64 (R, M): texts that are masked already, and where.
            noise: of :func:`mmpt.modules.attention_masking.masking_noise`, each (B, groups of a record, ..), else.

        Returns:
            ``image_vectors`` and ``text_vectors``, unit, float32 (B * N, H); ``word_logits`` (R * M, V), put off in
            training, with ``word_targets``, 0 where nothing is to be told; ``text_image_logits`` and, where the data
            hide places of images, ``image_image_logits``, (R, n, n, 4), with ``order_targets`` and ``order_weights``
            (R, n, n).

        Raises:
            DataError: if a record is not whole groups, or there is neither noise nor a masked text.
        """
        shape, size = tokens.shape, self._group_size(tokens)
        encoded = self.encode_images(vfeats)
        starts, scores = self.read_record(tokens, need_scores=masked_ids is None)
        texts = tokens.reshape(-1, size * shape[2])
        if masked_ids is None or masked_idx is None:
            masked = self._mask(texts, scores, noise)
        else:
            masked = MaskedText(masked_ids.reshape(texts.shape), masked_idx, texts.gather(1, masked_idx))
        index = torch.arange(size, device=tokens.device).expand(len(texts), size)
        if shuffled_idx_img is not None:
            index = shuffled_idx_img.reshape(index.shape)
        begins = places_at(0, size, tokens, shape[2]).expand(len(texts), size)
        positions = torch.cat([begins, masked.positions], dim=1)
        images, states = self.join_at(self.embed_images(encoded, index), masked.tokens, positions)
        moments, told = states[:, :size], states[:, size:]
        outputs = {
            "image_vectors": unit(self.image_head(encoded.target)),
            "text_vectors": unit(self.text_head(starts)),
            "word_logits": self.lm_head.tell(told.flatten(0, 1)),
            "word_targets": masked.targets.flatten(),
            "text_image_logits": self.text_image_order.pairs(moments, images),
            "order_targets": order_targets(video_src_ids.reshape(index.shape)),
            "order_weights": order_weights(index, self.sequence.shuffle_offset),
        }
        if self.sequence.image_shuffle_prob > 0:
            outputs["image_image_logits"] = self.image_image_order.pairs(images, images)
        return outputs

    def read_record(self, tokens: Tensor, need_scores: bool) -> tuple[Tensor, Tensor | None]:
        """Run the language-only encoder over the texts of records, int64 (B, N, X).

        Returns:
            The state of each chunk's first token (B * N, H), and how much each position is attended to (B * N, X).
        """
        chunks = self.options.langonly_num_chunks_in_group or tokens.shape[1]
        if tokens.shape[1] % chunks:
            raise ConfigError(
                f"model.langonly_num_chunks_in_group: {chunks} does not divide the {tokens.shape[1]} chunks of a record"
            )
        rows = tokens.reshape(-1, chunks * tokens.shape[2])
        valid = rows != PADDING
        begins = places_at(0, rows.numel() // tokens.shape[2], tokens, tokens.shape[2])
        words = self._embed_words(self.language_text, rows)
        output = self.contextualise(words, valid, need_attention=need_scores, places=begins)
        scores = None
        if output.attentions is not None:
            with torch.no_grad():
                scores = attention_scores(output.attentions, valid).reshape(-1, tokens.shape[2])
        return output.last_hidden_state, scores

    def order_logits(self, vfeats: Tensor, tokens: Tensor, image_index: Tensor) -> Tensor:
        """Classify every pair of a caption and an image of a story (section 4.3): (B, N, N, 4), captions first.

        Args:
            vfeats: uint8 or floats in [0, 1], (B, N, 3, S, S).
            tokens: int64 (B, N, X), captions in order, START first.
            image_index: int64 (B, N), such as ``shuffle_offset`` and more, in a random order.

        Raises:
            ConfigError: if the model has no embedding of an index.
        """
        self._check_index(int(image_index.max()))
        images = self.embed_images(self.encode_images(vfeats), image_index)
        begins = places_at(0, tokens.shape[1], tokens, tokens.shape[2]).expand(len(tokens), -1)
        summaries, moments = self.join_at(images, tokens.flatten(1), begins)
        return self.text_image_order.pairs(moments, summaries)

    @staticmethod
    def contrasted(outputs: dict[str, Tensor]) -> dict[str, Contrast]:
        """Return what :meth:`learn` compares: texts that look for frames, and frames for texts, (B * N, H) each."""
        texts, images = outputs["text_vectors"], outputs["image_vectors"]
        return {"text_to_image": Contrast(texts, images), "image_to_text": Contrast(images, texts)}

    def _mask(self, texts: Tensor, scores: Tensor | None, noise: dict[str, Any]) -> MaskedText:
        absent = [name for name in _NOISE if name not in noise]
        if absent or scores is None:
            raise DataError(
                f"a batch of records has no {', '.join(absent)}: dataset.aligner must be one that makes MERLOT's noise"
            )
        drawn = {name: noise[name].flatten(0, 1) for name in _NOISE}
        return mask_text_by_attention(texts, scores.reshape(texts.shape), **drawn)

    def _group_size(self, tokens: Tensor) -> int:
        size: int = self.sequence.chunks_in_group
        if tokens.shape[1] % size:
            raise DataError(
                f"a record has {tokens.shape[1]} chunks, not whole groups of dataset.chunks_in_group: {size}"
            )
        return size

    def _check_sequence(self) -> None:
        given = self.sequence
        for key, least in (("chunks_in_group", 1), ("shuffle_offset", 0)):
            if getattr(given, key) < least:
                raise ConfigError(f"dataset.{key}: must be at least {least}, not {getattr(given, key)}")
        if not 0 <= given.image_shuffle_prob <= 1:
            raise ConfigError(f"dataset.image_shuffle_prob: {given.image_shuffle_prob} is not in [0, 1]")
        if given.image_shuffle_prob > 0:
            if given.shuffle_offset < given.chunks_in_group:
                raise ConfigError(
                    f"dataset.shuffle_offset: {given.shuffle_offset} is an index that images in their places have, "
                    f"dataset.chunks_in_group being {given.chunks_in_group}"
                )
            self._check_index(given.shuffle_offset + given.chunks_in_group - 1)
        language = self.options.langonly_num_chunks_in_group
        if language is not None and (language < 1 or language % given.chunks_in_group):
            raise ConfigError(
                f"model.langonly_num_chunks_in_group: {language} is not whole groups of dataset.chunks_in_group: "
                f"{given.chunks_in_group}"
            )
