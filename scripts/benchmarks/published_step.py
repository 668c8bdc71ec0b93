"""A training step as the published code computes it, and ours: of one model, so that the losses can be compared.

    step = naive_step(violet("tiny"), VIOLETLoss(), violet_as_published)     # or our_step(violet("tiny"), VIOLETLoss())
    step(random_clips("tiny", 4))

With dropout at 0 the losses are equal to rounding, update after update.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.models.cross_modal import CrossModalModel
from mmpt.models.lavender import LAVENDER
from mmpt.models.violet import VIOLETPretraining
from mmpt.modules.bert import BertModel
from mmpt.modules.dropout import Dropout
from mmpt.modules.masking import IGNORED
from mmpt.modules.masking_visual import hide_squares
from mmpt.modules.pairing import in_batch_negatives
from mmpt.modules.transformer import EncoderOutput, TransformerEncoder
from mmpt.modules.vocabulary_loss import VocabularyScores

__all__ = ["as_published", "lavender_as_published", "naive_step", "our_step", "violet_as_published"]

Step = Callable[[Mapping[str, Any]], Tensor]
#: What a loss needs, from a model and a batch.
Outputs = Callable[..., Mapping[str, Any]]
_encode = TransformerEncoder.forward


def our_step(model: nn.Module, loss: Callable[..., Tensor]) -> Step:
    """Return MMPT's training step as it is by default, with Adam whose step is one kernel for all weights."""
    return _step(model, loss, True, contextlib.nullcontext)


def naive_step(model: nn.Module, loss: Callable[..., Tensor], outputs: Outputs | None = None) -> Step:
    """Return the step of the published code: :func:`as_published`, and Adam tensor by tensor, operation by operation.

    ``outputs`` are what the loss needs of the batch, where the published code computes more than ``model`` does.
    """
    return _step(model, loss, False, as_published, outputs)


@contextlib.contextmanager
def as_published() -> Iterator[None]:
    """Compute all padding, all states of the last layer, and all scores of attention as tensors of their own.

    BERTs of features (VideoCLIP, VLM) have a mask of rows by columns for each layer. Dropout and matrix
    products are torch's own; what an activation gives and all scores of words are kept for the backward pass.
    """
    with (
        mock.patch.object(F, "scaled_dot_product_attention", _attend),
        mock.patch.object(TransformerEncoder, "forward", _encode_all),
        mock.patch.object(BertModel, "pack", _masks_of_layers),
        mock.patch.object(Dropout, "forward", nn.Dropout.forward),
        mock.patch.object(VocabularyScores, "cross_entropy", _whole_cross_entropy),
        mock.patch("mmpt.modules.linear._keeps_little", lambda *_: False),
        mock.patch("mmpt.modules.linear.onednn_is_faster", lambda: False),
        mock.patch("mmpt.modules.swin_windows.window_attention", _attend_in_windows),
        mock.patch("mmpt.models.cross_modal.valid_states", _padded_states),
        mock.patch("mmpt.models.merlot_base.valid_states", _padded_states),
    ):
        yield


def _step(
    model: nn.Module,
    loss: Callable[..., Tensor],
    fused: bool,
    way: Callable[[], contextlib.AbstractContextManager[None]],
    outputs: Outputs | None = None,
) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-5, betas=(0.9, 0.98), fused=fused, foreach=False)

    def step(batch: Mapping[str, Any]) -> Tensor:
        with way():
            value = loss(**{**batch, **(model(**batch) if outputs is None else outputs(model, **batch))})
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()

    return step


def _attend(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    scores = scores if attn_mask is None else scores + attn_mask
    return F.dropout(scores.softmax(-1), dropout_p) @ value


def _attend_in_windows(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return _attend(query, key, value, bias)


def _encode_all(encoder: TransformerEncoder, *inputs: Any, rows: Tensor | None = None, **options: Any) -> EncoderOutput:
    output = _encode(encoder, *inputs, **options)
    return output if rows is None else output._replace(last_hidden_state=output[0].flatten(0, -2)[rows])


def _masks_of_layers(bert: BertModel, masks: Tensor | Sequence[Tensor] | None, whole: bool = False) -> Any:
    if not isinstance(masks, Tensor) or masks.dim() != 2:
        return masks
    mask = masks[:, None].expand(-1, masks.shape[1], -1)
    return [mask.clone() for _ in bert.encoder.layer]


def _padded_states(encoder: TransformerEncoder, values: Tensor, mask: Tensor, places: Tensor | None = None) -> Tensor:
    return encoder(values, mask, rows=places).last_hidden_state


def _whole_cross_entropy(told: VocabularyScores, targets: Tensor) -> Tensor:
    scores = told.scores()
    told._best = scores.detach().argmax(1)
    return F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum")


def _fuse_texts(
    model: CrossModalModel, vfeats: Tensor, vmasks: Tensor, caps: Tensor, cmasks: Tensor, texts: int
) -> tuple[Tensor, int]:
    """Fuse each video with its own text and with others; return all states (B, O, Lv + X, H), and Lv."""
    video, text = model.encode_video(vfeats, vmasks), model.encode_text(caps, cmasks)
    own, others = torch.arange(len(caps)), in_batch_negatives(len(caps), texts)
    rows = torch.cat([own[:, None], others], dim=1)
    fused = model.fuse(video.rows(own.repeat_interleave(rows.shape[1])), text.rows(rows.flatten())).last_hidden_state
    return fused.unflatten(0, rows.shape), video.values.shape[1]


def violet_as_published(
    model: VIOLETPretraining,
    caps: Tensor,
    cmasks: Tensor,
    vfeats: Tensor,
    vmasks: Tensor,
    visual_codes: Tensor,
    masked_words: Tensor,
    masked_squares: Tensor,
) -> dict[str, Tensor]:
    """Return what the loss needs, with scores over both vocabularies of all positions, masked or not."""
    masked_squares = masked_squares & vmasks[:, :, None, None]
    words = caps.masked_fill(masked_words, model.special_ids.mask)
    texts = model.options.matching_texts
    fused, length = _fuse_texts(model, hide_squares(vfeats, masked_squares), vmasks, words, cmasks, texts)
    squares = fused[:, 0, :length].unflatten(1, (vfeats.shape[1], -1))[:, :, 1:]
    return {
        "text_logits": model.fc_mtm["predictions"](fused[:, 0, length:]).flatten(0, 1),
        "text_targets": caps.masked_fill(~masked_words, IGNORED).flatten(),
        "code_logits": model.fc_mvm(squares).flatten(0, 2),
        "code_targets": visual_codes.masked_fill(~masked_squares, IGNORED).flatten(),
        "matching_scores": model.fc(fused[:, :, length])[..., 0],
    }


def lavender_as_published(
    model: LAVENDER, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, text_label: Tensor, objective: str
) -> dict[str, Tensor]:
    """Return what the loss needs in pre-training, with scores over the vocabulary of all words, masked or not."""
    fused, length = _fuse_texts(model, vfeats, vmasks, caps, cmasks, model.options.matching_texts)
    true, false = model.word_ids(["true", "false"], "a verdict")
    label = torch.full(fused.shape[:2], false)
    label[:, 0] = true
    return {
        "logits": model.head(fused[:, 0, length:])[text_label != IGNORED],
        "match_logits": model.head(fused[:, :, -1]).flatten(0, 1),
        "match_label": label.flatten(),
    }
