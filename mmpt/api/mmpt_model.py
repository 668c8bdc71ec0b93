"""MMPTModel: a trained model together with what makes its video input: S3D, or the transform of raw frames.

Shapes: B batch, T seconds of video or frames, M = ``dataset.max_video_len``, D feature width, L text positions, H
hidden, S pixels of a side.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpt.api.job_files import find_checkpoint, read_job
from mmpt.api.loading import Place, load_model, reads_frames
from mmpt.api.provenance import S3D_WEIGHTS
from mmpt.api.raw_frames import frame_input, prepare_frames
from mmpt.modules.feature_encoders import S3DEncoder, frames_to_video
from mmpt.modules.s3d import load_s3d
from mmpt.modules.s3d_inference import S3DInference
from mmpt.processors.base import AlignerOptions
from mmpt.utils.checkpoint import LoadReport
from mmpt.utils.errors import CheckpointError, ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.options import read_section

__all__ = ["S3D_WEIGHTS", "MMPTModel"]

# Seconds that S3D takes at a time; as many more would only need more memory.
_SECONDS_AT_A_TIME = 8


class MMPTModel(nn.Module):
    """A model of videos and texts, and what makes its video input.

    VideoCLIP and VLM read features, which S3D makes of seconds; the other systems read a few frames. Inputs may be on
    any device; they are moved to the model's. S3D is frozen: it stays in eval mode.

    Args:
        config: the config of a job.
        model: the model that it names; attribute ``model``.
        video_encoder: S3D or S3DInference, or None where features or frames are given; attribute ``video_encoder``.
        l2_normalize: scale features to unit length, as extraction does for the features of training. The published
            snippet left that out, and gave the model inputs that it was not trained on; False computes its numbers.
    """

    def __init__(
        self, config: Any, model: nn.Module, video_encoder: nn.Module | None, l2_normalize: bool = True
    ) -> None:
        super().__init__()
        self.max_video_len: int = read_section(config, "dataset", AlignerOptions).max_video_len
        self.reads_frames: bool = getattr(model, "reads_frames", False)
        if self.reads_frames:
            self.frame_input = frame_input(config, model)
            self.num_frames = self.frame_input.frames
        self.model: Any = model
        self.video_encoder = video_encoder
        self.l2_normalize = l2_normalize
        #: What stands before each text where a call gives nothing else: LAVENDER's, as the job says.
        self.pretext: dict[str, Tensor] = {}
        #: What was loaded from the checkpoint and what was not, by :meth:`from_pretrained`.
        self.load_report: LoadReport | None = None

    @classmethod
    def from_pretrained(
        cls,
        config: str | os.PathLike[str],
        checkpoint: str | os.PathLike[str] = "checkpoint_best.pt",
        *,
        s3d_weights: str | os.PathLike[str] | None = S3D_WEIGHTS,
        l2_normalize: bool = True,
        overrides: Sequence[str] = (),
    ) -> tuple["MMPTModel", Any, Any]:
        """Build the model of a job and load its weights, strictly but for the keys that its class declares.

        Args:
            config: YAML of a job, ``projects/retri/videoclip/how2.yaml``. Where it does not exist, its project
                (``projects/retri/videoclip.yaml``) is expanded in memory.
            checkpoint: a file with its folder, or a name alone, which is looked up in ``eval.save_path``, then in
                ``fairseq.checkpoint.save_dir``, then beside ``fairseq.common_eval.path``.
            s3d_weights: local file of S3D's weights, or None to work on extracted features alone; systems that read
                frames need none.
            l2_normalize: as in the class.
            overrides: ``key.sub=value`` settings, as ``-o`` of the launcher.

        Returns:
            The model, in eval mode on the CPU; its tokenizer, for MERLOT and MERLOT Reserve that of
            ``dataset.tokenizer``, else of ``dataset.bert_name``; and an aligner, which lays out token ids: for frames
            that of the job, else :class:`~mmpt.processors.base.Aligner`.

        Raises:
            ConfigError: if the config is wrong or neither it nor its project exists.
            CheckpointError: if weights are missing or do not fit.
        """
        settings = read_job(Path(config), overrides)
        place = Place(settings, find_checkpoint(settings, Path(checkpoint), str(config)))
        frames = reads_frames(settings)
        video_encoder = None if s3d_weights is None or frames else _load_video_encoder(s3d_weights)
        loaded = load_model(place)
        built = cls(loaded.config, loaded.model, video_encoder, l2_normalize)
        built.load_report = loaded.report
        if hasattr(loaded.aligner, "pretext"):
            built.pretext = loaded.aligner.pretext()
        return built.eval(), loaded.tokenizer, loaded.aligner

    def train(self, mode: bool = True) -> "MMPTModel":
        """Set the mode of the model; S3D stays in eval mode, or a batch would change its statistics."""
        super().train(mode)
        if self.video_encoder is not None:
            self.video_encoder.eval()
        return self

    def forward(
        self,
        video_frames: Tensor,
        caps: Tensor,
        cmasks: Tensor,
        return_score: bool = False,
        vmasks: Tensor | None = None,
        **pretext: Tensor,
    ) -> dict[str, Tensor]:
        """Compare videos with texts.

        Args:
            video_frames: (B, T, 30, height, width, 3) RGB, uint8 or float in [0, 1]: T seconds of 30 frames each.
                224 x 224 is what S3D was trained on. Systems that read frames take (B, T, height, width, 3) too, and
                of all frames use as many as they were trained on, evenly spread.
            caps: int64 (B, L), of ``aligner._build_text_seq``.
            cmasks: (B, L).
            return_score: whether to return scores in place of the model's outputs.
            vmasks: (B, T), true where a second or frame is real, for videos of different lengths; all are by default.
            pretext: LAVENDER: ``prompts`` or ``task_ids`` of the aligner's items; by default what the job sets.

        Returns:
            ``score`` (B,), the dot product of each video with its text; or what the model returns, ``pooled_video``
            and ``pooled_text`` (B, H) for a model that compares. VIOLET and LAVENDER fuse each pair to its score, which
            is all they return.

        Raises:
            DataError: if an input has a wrong shape or range, or a video more than ``max_video_len`` seconds.
            ConfigError: if there is no S3D, or scores are asked for of a model without them.
        """
        vfeats, vmasks = self.encode_frames(video_frames, vmasks)
        if self.reads_frames and "retrieval" not in self.model.capabilities:
            if "fusion" not in self.model.capabilities:
                raise ConfigError(f"model.model_cls: {type(self.model).__name__} does not compare a video with a text")
            self.model.check_texts(caps)
            text = self.encode_text(caps, cmasks, **pretext)
            if len(text.values) != len(vfeats):
                raise DataError(f"{len(vfeats)} videos and {len(text.values)} texts have no pairwise scores")
            return {"score": self.model.score_aligned(text, self.model.encode_video(vfeats, vmasks))}
        outputs = self.model(caps=caps.to(vfeats.device), cmasks=cmasks.to(vfeats.device), vfeats=vfeats, vmasks=vmasks)
        if not return_score:
            return outputs
        if not {"pooled_video", "pooled_text"} <= set(outputs):
            raise ConfigError(f"model.model_cls: {type(self.model).__name__} gives {', '.join(outputs)}, and no score")
        video, text = outputs["pooled_video"], outputs["pooled_text"]
        if len(video) != len(text):
            raise DataError(f"{len(video)} videos and {len(text)} texts have no pairwise scores: give equally many")
        return {"score": (video * text).sum(-1)}

    def encode_frames(self, video_frames: Tensor, vmasks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Make the video input: frames and masks as in :meth:`forward`.

        Returns:
            ``vfeats`` float32 (B, M, D), zeros where there is no second, and ``vmasks`` bool (B, M); of systems that
            read frames, uint8 (B, N, 3, height, width) and bool (B, N), N and the sizes those of the job.

        Raises:
            DataError, ConfigError: as :meth:`forward`.
        """
        if self.reads_frames:
            vfeats, masks = prepare_frames(video_frames, vmasks, self.frame_input)
            return vfeats.to(self._device), masks.to(self._device)
        if self.video_encoder is None:
            raise ConfigError("this model was built without S3D (s3d_weights=None): use encode_video on features")
        self._check_frames(video_frames)
        shape = video_frames.shape[:2]
        given = torch.ones(shape, dtype=torch.bool) if vmasks is None else vmasks.bool()
        if given.shape != shape:
            raise DataError(f"vmasks has shape {tuple(given.shape)}, expected {tuple(shape)}: one value per second")
        seconds = video_frames[given.to(video_frames.device)]
        if not len(seconds):
            raise DataError("there is no second of video to encode")
        encoded = torch.cat([self._encode_seconds(part) for part in seconds.split(_SECONDS_AT_A_TIME)])
        masks = F.pad(given.to(encoded.device), (0, self.max_video_len - shape[1]))
        vfeats = encoded.new_zeros(*masks.shape, encoded.shape[1])
        vfeats[masks] = encoded
        return vfeats, masks

    def encode_video(self, vfeats: Tensor, vmasks: Tensor) -> Any:
        """Encode extracted features (B, up to M, D), masks (B, up to M), to (B, H), without a text.

        Systems that read frames take what :meth:`encode_frames` returns; VIOLET and LAVENDER give
        :class:`~mmpt.models.cross_modal.States`.

        Raises:
            ConfigError: if the model sees video and text only together; names the key that separates them.
        """
        device = self._device
        vfeats = vfeats.to(device)
        return self.model.encode_video(vfeats if self.reads_frames else vfeats.float(), vmasks.to(device))

    def encode_text(self, caps: Tensor, cmasks: Tensor, **pretext: Tensor) -> Any:
        """Encode texts (B, L), with masks, to (B, H), without a video; ``pretext`` as in :meth:`forward`.

        Raises:
            ConfigError: as :meth:`encode_video`.
        """
        device = self._device
        pretext = pretext or {name: one.expand(len(caps), *one.shape) for name, one in self.pretext.items()}
        pretext = {name: value.to(device) for name, value in pretext.items()}
        return self.model.encode_text(caps.to(device), cmasks.to(device), **pretext)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _encode_seconds(self, frames: Tensor) -> Tensor:
        assert self.video_encoder is not None
        with torch.no_grad():
            features = self.video_encoder(frames_to_video(frames.to(self._device)))["video_embedding"].float()
        return F.normalize(features, dim=1) if self.l2_normalize else features

    def _check_frames(self, frames: Tensor) -> None:
        fps = S3DEncoder.fps
        if frames.ndim != 6 or frames.shape[2] != fps or frames.shape[5] != 3:
            raise DataError(
                f"video_frames has shape {tuple(frames.shape)}, expected (batch, seconds, {fps}, height, width, 3): "
                f"{fps} frames a second"
            )
        if frames.shape[1] > self.max_video_len:
            raise DataError(
                f"video_frames has {frames.shape[1]} seconds, but the model takes dataset.max_video_len: "
                f"{self.max_video_len}. Cut the video into parts"
            )


def _load_video_encoder(weights: str | os.PathLike[str]) -> nn.Module:
    if not resolve_path(weights).is_file():
        raise CheckpointError(
            f"{weights}: no such file. Frames need a local copy of S3D's weights (pretrained_models/README.md): name "
            "it with s3d_weights=FILE. Extracted features do not: s3d_weights=None"
        )
    return S3DInference(load_s3d(weights))
