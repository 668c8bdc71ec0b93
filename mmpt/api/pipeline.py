"""A trained model on one's own videos and texts, whatever system it is of.

::

    from mmpt.api import VideoTextPipeline

    pipeline = VideoTextPipeline.from_pretrained("runs/demo")
    pipeline.similarity(["a red star falls"], ["one.mp4", "two.mp4"])     # (1, 2)
    pipeline.classify("one.mp4", ["red star", "blue circle"])
    pipeline.segment("long.mp4", ["pour water", "stir"]).spans()

Shapes: N videos, M texts, L labels, T parts of a video, H hidden.
"""

import os
from collections.abc import Sequence
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmpt.api.capability import calls_of, require_call, system_of
from mmpt.api.checks import check_texts
from mmpt.api.classifying import classify, found_videos
from mmpt.api.encoding import encode_clips, encode_images, encode_texts, encode_videos, similarity
from mmpt.api.hub import push
from mmpt.api.loading import Loaded, find_model, load_model
from mmpt.api.outputs import Answer, ClipVectors, Hit, Timeline
from mmpt.api.pipeline_parts import reader_of, saved_encoder, vector_width
from mmpt.api.provenance import provenance_of
from mmpt.api.saving import fingerprint_of, save_folder
from mmpt.api.scoring import Comparer
from mmpt.api.segmenting import timeline_of
from mmpt.api.text_input import TextReader
from mmpt.api.video_input import FeatureReader
from mmpt.api.video_sources import Video, source_of
from mmpt.utils.devices import pick_device

__all__ = ["Video", "VideoTextPipeline"]

FilePath = str | os.PathLike[str]
Texts = str | Sequence[str]
Videos: TypeAlias = "Video | Sequence[Video]"


class VideoTextPipeline:
    """A model, its tokenizer, and what makes its video input; all calls run in eval mode without gradients.

    Attributes:
        model: the network.
        config: the settings of the job that it is of.
        source: what it was loaded from, as the user named it; ``folder``: that folder, if it was one.
        saved: whether it is of a folder of :meth:`save_pretrained`; ``facts``: what its card says.
        load_report: which weights were loaded, kept from the model, and left aside.
        system: one of :data:`mmpt.api.capability.SYSTEMS`.
        calls: which of :data:`mmpt.api.capability.CALLS` it answers.
        dim: H, the width of its vectors; None where it has none.
    """

    def __init__(self, loaded: Loaded, source: str, encoder_weights: FilePath | None = None) -> None:
        self.model: nn.Module = loaded.model
        self.config: DictConfig = loaded.config
        self.tokenizer, self.aligner = loaded.tokenizer, loaded.aligner
        self.source, self.load_report = source, loaded.report
        self.folder, self.saved, self.facts = loaded.place.folder, loaded.place.saved, loaded.place.facts
        self.system: str = system_of(self.model)
        self.calls: frozenset[str] = calls_of(self.model)
        self.dim: int | None = vector_width(self.model) if "encode_video" in self.calls else None
        #: What made the features that it was trained on; None where that is not known, or it reads frames.
        self.provenance = None if getattr(self.model, "reads_frames", False) else provenance_of(self.config)
        self.encoder_weights = encoder_weights
        self.reader = reader_of(self.config, self.model, self.provenance, encoder_weights, not self.saved)
        self.comparer = Comparer(self.model, TextReader(self.config, self.model, self.tokenizer, self.aligner))

    @classmethod
    def from_pretrained(
        cls,
        source: FilePath,
        *,
        checkpoint: FilePath | None = None,
        device: str | torch.device | None = None,
        s3d_weights: FilePath | None = None,
        overrides: Sequence[str] = (),
        revision: str | None = None,
    ) -> Self:
        """Load a model.

        Args:
            source: the YAML of a job or test (its project is expanded where it does not exist), a run folder, a
                checkpoint in one, a folder of :meth:`save_pretrained`, or the Hugging Face hub id of one.
            checkpoint: another file of weights: by path, or by name in the folder.
            device: by default a GPU if there is one.
            s3d_weights: the weights of S3D for models of its features, by default where the published snippet has
                them; needed for files and frames, not for features. Of features of a Hugging Face model, its folder, or
                its hub id where only a saved folder names it, which may be anyone's.
            overrides: ``key.sub=value`` settings, as ``-o`` of the launcher.
            revision: branch, tag or commit of a hub id.

        Raises:
            CheckpointError: if there is no such model, or its weights do not fit.
            ConfigError: if its settings are wrong.
        """
        place = find_model(source, checkpoint, overrides, revision)
        weights = s3d_weights if s3d_weights is not None else saved_encoder(place)
        pipeline = cls(load_model(place), str(source), weights)
        return pipeline.to(pick_device(device))

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.comparer.device

    def to(self, device: str | torch.device) -> Self:
        """Move the model to a device and return the pipeline."""
        self.model.to(pick_device(device))
        if isinstance(self.reader, FeatureReader):
            self.reader.reset()
        return self

    def fingerprint(self) -> str:
        """Return a hash of weights and settings that vectors depend on: equal ones give comparable vectors."""
        return fingerprint_of(self)

    def video_inputs(self, video: Video, fps: float | None = None) -> tuple[Tensor, Tensor]:
        """Return what the model reads of one video, on its device: ``vfeats`` and ``vmasks``.

        Features (W, M, D) of the W windows of a video, one if it is no longer than ``max_video_len`` seconds; frames
        uint8 (1, N, 3, height, width).
        """
        return self.comparer.moved(self.reader.whole(source_of(video, fps)))

    def encode_video(
        self, videos: Videos, *, fps: float | None = None, batch_size: int = 8, progress: bool = False
    ) -> np.ndarray:
        """Encode videos: float32 (N, H); (H,) for a single video.

        Models of features see a video of more than ``max_video_len`` seconds in windows of equal length, whose
        directions and lengths are averaged; models of frames as many as their job takes, evenly spread. MERLOT Reserve
        sees frames, without the sound.

        Args:
            videos: paths, clips, frames or features.
            fps: the rate of what comes as frames.
            batch_size: windows that the model takes at a time.
            progress: show a bar: of the videos, or of a single long one how much is read.

        Raises:
            MissingCapabilityError: if the model has no vectors.
            DataError: if a video cannot be read; names it.
        """
        return encode_videos(self, videos, fps, batch_size, progress)

    def encode_clips(
        self,
        video: Video,
        clip_seconds: float,
        stride_seconds: float | None = None,
        *,
        fps: float | None = None,
        batch_size: int = 32,
    ) -> ClipVectors:
        """Encode the T parts of ``clip_seconds`` of a video, decoded once; the last may be shorter.

        Models of features have parts of whole seconds. Times are from the start of the video or clip.
        """
        return encode_clips(self, video, clip_seconds, stride_seconds, fps, batch_size)

    def encode_image(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Encode pictures (height, width, 3) uint8 as videos of a second that stand still: float32 (N, H); (H,) of one.

        Raises:
            DataError: if a picture is of another shape; names its place.
        """
        return encode_images(self, images)

    def encode_text(self, texts: Texts, *, batch_size: int = 64) -> np.ndarray:
        """Encode texts: float32 (M, H); (H,) for a single text.

        Raises:
            MissingCapabilityError: if the model has no vectors.
            DataError: if a text is empty; names its place.
        """
        return encode_texts(self, texts, batch_size)

    def similarity(
        self, texts: Texts, videos: Videos, *, fps: float | None = None, batch_size: int = 8, progress: bool = False
    ) -> np.ndarray:
        """Score every text against every video: float32 (M, N).

        Dot products of vectors, as tests of retrieval compare them (MERLOT's: cosines); VIOLET and LAVENDER fuse pairs.
        """
        return similarity(self, texts, videos, fps, batch_size, progress)

    def classify(
        self,
        videos: Videos,
        labels: Sequence[str],
        *,
        templates: Sequence[str] = ("{}",),
        top: int | None = None,
        fps: float | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> Any:
        """Rank labels for each video: lists of :class:`~mmpt.api.outputs.Label`; one list for a single video.

        A label is put into every template; the vectors of its texts are averaged, or where there are none its scores.
        Probabilities are the softmax of scores over ``loss.temperature`` of the job (1 where it has none).
        """
        return classify(self, videos, labels, templates, top, fps, batch_size=batch_size, progress=progress)

    def retrieve(
        self,
        queries: Texts,
        videos: Videos,
        *,
        top: int = 10,
        fps: float | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> list[list[Hit]] | list[Hit]:
        """Find the videos that fit each text best; ``videos`` may be vectors (N, H) of :meth:`encode_video`."""
        require_call(self, "retrieve")
        given, single = check_texts(queries, "query")
        hits = found_videos(self, given, videos, top, fps, batch_size=batch_size, progress=progress)
        return hits[0] if single else hits

    def segment(
        self,
        video: Video,
        labels: Sequence[str] | None = None,
        *,
        templates: Sequence[str] = ("{}",),
        window_seconds: float | None = None,
        stride_seconds: float | None = None,
        background: float | None = None,
        fps: float | None = None,
        progress: bool = False,
    ) -> Timeline:
        """Score labels over a video, part by part.

        A model with a head of classes tells those it was trained on (``labels``: which of them, beside the background;
        None: all). VideoCLIP and VLM compare the states of seconds with the labels, as their zero-shot tests do.
        Others, and these where ``window_seconds`` is given, score parts of ``stride_seconds`` (1) by windows around
        them, by default of 4 seconds. An argument that a model does not use is refused.
        """
        require_call(self, "segment")
        source = source_of(video, fps)
        source.progress = source.progress or progress
        return timeline_of(self, source, labels, templates, (window_seconds, stride_seconds), background)

    def answer(
        self,
        video: Video,
        question: str,
        options: Sequence[str] | None = None,
        *,
        answers: Sequence[str] | None = None,
        top: int | None = None,
        fps: float | None = None,
    ) -> list[Answer]:
        """Answer a question, best answer first: among ``options``, or open-ended among ``answers`` or all it knows.

        ``top``: how many come back, by default all options, or the best 5 of an open question.
        """
        from mmpt.api.answering import answer

        return answer(self, video, question, options, answers=answers, top=top, fps=fps)

    def caption(self, videos: Videos, *, fps: float | None = None, progress: bool = False, **decoding: Any) -> Any:
        """Write a caption: a string, or a list of them for several videos."""
        from mmpt.api.captioning import caption

        return caption(self, videos, fps=fps, progress=progress, **decoding)

    def save_pretrained(
        self,
        folder: FilePath,
        *,
        licence: str | None = None,
        metrics: dict[str, Any] | None = None,
        include_video_encoder: bool = False,
    ) -> None:
        """Write ``model.safetensors``, ``config.yaml``, the tokenizer's files and a model card into a folder.

        It loads again from anywhere, without the run, and replaces a folder of an earlier call as a whole. ``metrics``
        maps tests to numbers; by default the card has those of the ``metrics.json`` files in the run folder. Copies of
        a saved folder keep what its card says, where it is not given anew, and its weights of S3D.
        """
        save_folder(self, folder, licence, metrics, include_video_encoder)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None, **saving: Any) -> str:
        """Upload what :meth:`save_pretrained` writes, with its options; return the address."""
        return push(self, repo_id, private, token, saving)
