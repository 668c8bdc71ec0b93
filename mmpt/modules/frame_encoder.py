"""The video side of VIOLET (arXiv:2111.12681, section 3.1) and LAVENDER (arXiv:2206.07160): tokens of sparse frames.

Shapes: B batch, T frames, S pixels of a side, P = 1 + rows * columns positions of a frame, H hidden.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmpt.modules.linear import Linear
from mmpt.modules.video_swin import SwinOptions, VideoSwin
from mmpt.utils.errors import DataError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "FrameEncoder"]

#: Of RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class FrameEncoder(nn.Module):
    """Video Swin, a ``[CLS]`` before the patches of every frame, and embeddings of place and frame.

    Args:
        swin: sizes.
        hidden_size: H; where it is not Swin's width, a linear layer ``fc`` stands between.
        max_frames: rows of the table of frames.
        max_patches: the greatest number of rows, and of columns, of a frame's patches.
        frame_order: whether there is LAVENDER's ``emb_odr``, of a task that its published training does not use.
        mean: of the pixels of each colour, taken from them.
        std: what they are divided by then.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        swin: SwinOptions,
        hidden_size: int,
        max_frames: int = 6,
        max_patches: int = 14,
        frame_order: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.swin = VideoSwin(swin)
        if swin.dim != hidden_size:
            self.fc = Linear(swin.dim, hidden_size)
        self.emb_cls = _table(1, 1, hidden_size)
        self.emb_pos = _table(1, 1 + max_patches**2, hidden_size)
        self.emb_len = _table(max_frames, 1, hidden_size)
        if frame_order:
            self.emb_odr = _table(1, 1, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        for name, values in (("pixel_mean", mean), ("pixel_std", std)):
            self.register_buffer(name, torch.tensor(list(values)).view(3, 1, 1), persistent=False)

    def positions(self, height: int, width: int) -> int:
        """Return P of frames of that many pixels."""
        stride = self.swin.options.stride
        return 1 + -(-height // stride) * -(-width // stride)

    def normalise(self, frames: Tensor) -> Tensor:
        """Bring frames (.., 3, S, S), uint8 or of floats in [0, 1], to what Swin was trained on."""
        pixels = frames.float() / 255 if frames.dtype == torch.uint8 else frames
        return ((pixels - self.pixel_mean) / self.pixel_std).to(self.emb_cls.dtype)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode frames (B, T, 3, S, S), uint8 or of floats in [0, 1], to (B, T * P, H).

        Position t * P is the ``[CLS]`` of frame t; its patches follow row by row.

        Raises:
            DataError: if there are more frames or patches than the tables have rows.
        """
        if frames.dim() != 5 or frames.shape[2] != 3:
            raise DataError(f"frames have shape {tuple(frames.shape)}, expected (batch, frames, 3, height, width)")
        self._check(frames.shape[1], self.positions(*frames.shape[-2:]))
        patches = self.swin(self.normalise(frames)).flatten(2, 3)
        if hasattr(self, "fc"):
            patches = self.fc(patches)
        tokens = torch.cat([self.emb_cls.to(patches.dtype).expand(*patches.shape[:2], 1, -1), patches], dim=2)
        tokens = tokens + self.emb_pos[:, :, : tokens.shape[2]] + self.emb_len[:, : tokens.shape[1]]
        return self.norm(tokens).flatten(1, 2)

    def _check(self, frames: int, positions: int) -> None:
        if frames > self.emb_len.shape[1]:
            raise DataError(
                f"a video has {frames} frames, but the model has embeddings of {self.emb_len.shape[1]} "
                "(model.max_frames): set dataset.num_frames lower, or model.max_frames higher"
            )
        if positions > self.emb_pos.shape[2]:
            raise DataError(
                f"a frame has {positions - 1} patches, but the model has embeddings of {self.emb_pos.shape[2] - 1} "
                "(model.max_patches a side): set dataset.image_size lower, or model.max_patches higher"
            )


def _table(frames: int, positions: int, size: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(1, frames, positions, size))
