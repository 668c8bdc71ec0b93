"""From videos and their transcripts to a segment store: frames, words and sound; resumable, counted.

Output: a segment store (:mod:`mmpt.store.segment_store`), and ``manifest.json`` beside it
(:mod:`mmpt.store.extraction_manifest`). The command is ``scripts/segment_extractor/extract_segments.py``.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt.store.decode import DecodeReport, decoder_version
from mmpt.store.decode_pool import Piece
from mmpt.store.extraction_job import ExtractionSummary, UnfitVideoError
from mmpt.store.extraction_manifest import Manifest
from mmpt.store.merlot_chunks import END_MARGIN, MOST_TOKENS
from mmpt.store.reserve_segments import SpeedUp
from mmpt.store.segment_making import PictureSize, SegmentRules, make_record
from mmpt.store.segment_store import ALWAYS
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.store.spectrogram import SEGMENT_SECONDS
from mmpt.store.store_job import StoreJob, run_store_job
from mmpt.store.transcript_source import TranscriptSource, open_transcripts
from mmpt.store.video_list import VideoItem
from mmpt.utils.errors import DataError
from mmpt.utils.files import file_sha256
from mmpt.utils.subwords import Subwords, load_subwords, subwords_files

__all__ = ["KINDS", "SegmentExtractionOptions", "extract_segments"]

#: The published sizes of the frames of each kind.
KINDS = {"merlot": PictureSize(384, 512, 95), "reserve": PictureSize(288, 512, 75)}

VIDEOS_PER_SHARD = 512  # a video of ten minutes is some megabytes


@dataclass(frozen=True)
class SegmentExtractionOptions:
    """How to cut videos into segments, and how to store them.

    ``kind``: ``merlot``, chunks of up to 31 tokens of speech with a frame each, or ``reserve``, windows of 5 seconds
    with frame, words and sound. ``tokenizer``: path of the tokenizer of that kind (``dataset.tokenizer``).
    ``raw_transcript``: store the words as recognised too, where transcripts come with denoised ones (merlot).
    ``speed_up``: play windows with few words 2 or 3 times faster (reserve;
    :class:`mmpt.store.reserve_segments.SpeedUp`), as published: so little speech is easy to guess, and longer stretches
    hold more of it; off, so that all segments have one length. ``no_sound``: no spectrograms (reserve).
    ``missing_as_speechless``: take a video without a transcript as one in which nothing is said, instead of counting it
    as failed. ``most_tokens``: of a chunk (merlot), beside its start; a sentence that ends with three quarters of them
    closes it. ``seconds``: of the chunks of a speechless video (merlot). ``end_margin``: seconds at the end of a video
    that are left out, because many files end earlier than they say. ``short_side``, ``long_side``, ``quality``: limits
    of the frames' pixels and quality of their JPEGs; None: as published. ``videos_per_shard``: a killed run loses at
    most so many. ``force``: also extract again what is there. ``workers`` and ``timeout_seconds``: see
    :class:`mmpt.store.decode_pool.PoolOptions`.

    Raises:
        DataError: if a value is out of range, or does not go with the kind; names it.
    """

    kind: str
    tokenizer: str
    raw_transcript: bool = False
    speed_up: bool = False
    no_sound: bool = False
    missing_as_speechless: bool = False
    most_tokens: int = MOST_TOKENS
    seconds: float = SEGMENT_SECONDS
    end_margin: float = END_MARGIN
    short_side: int | None = None
    long_side: int | None = None
    quality: int | None = None
    videos_per_shard: int = VIDEOS_PER_SHARD
    force: bool = False
    workers: int = 1
    timeout_seconds: float = 600.0

    def __post_init__(self) -> None:
        merlot = self.kind == "merlot"
        for name, value, fits in (
            ("kind", self.kind, self.kind in KINDS),
            ("raw_transcript", self.raw_transcript, merlot or not self.raw_transcript),
            ("speed_up", self.speed_up, not (merlot and self.speed_up)),
            ("no_sound", self.no_sound, not (merlot and self.no_sound)),
            ("seconds", self.seconds, self.seconds > 0 and (merlot or self.seconds == SEGMENT_SECONDS)),
            ("most_tokens", self.most_tokens, self.most_tokens >= 1 and (merlot or self.most_tokens == MOST_TOKENS)),
            ("end_margin", self.end_margin, self.end_margin >= 0),
            ("short_side", self.short_side, self.short_side is None or self.short_side >= 1),
            ("long_side", self.long_side, self.long_side is None or self.long_side >= 1),
            ("quality", self.quality, self.quality is None or 1 <= self.quality <= 95),
            ("videos_per_shard", self.videos_per_shard, self.videos_per_shard >= 1),
        ):
            if not fits:
                raise DataError(f"--{name.replace('_', '-')} {value}: not a usable value for --kind {self.kind}")

    def rules(self) -> SegmentRules:
        """Return how each video is cut."""
        published = KINDS[self.kind]
        size = PictureSize(
            self.short_side or published.short, self.long_side or published.long, self.quality or published.quality
        )
        return SegmentRules(
            kind=self.kind,
            size=size,
            spectrograms="spectrograms" in self.fields(),
            most_tokens=self.most_tokens,
            seconds=self.seconds,
            end_margin=self.end_margin,
            speed_up=SpeedUp() if self.speed_up else None,
        )

    def fields(self) -> frozenset[str]:
        """Return what each segment of the store has."""
        if self.kind == "merlot":
            return ALWAYS | ({"raw_tokens"} if self.raw_transcript else frozenset())
        return ALWAYS | {"token_times"} | (frozenset() if self.no_sound else {"spectrograms"})

    def provenance(self) -> dict[str, Any]:
        """Return what the segments depend on, as the manifest and the shards record it."""
        from PIL import __version__ as pillow

        rules = self.rules()
        return {
            "tool": "extract_segments",
            "kind": self.kind,
            "fields": sorted(self.fields()),
            "tokenizer": {file.name: file_sha256(file) for file in subwords_files(self.tokenizer)},
            "speed_up": self.speed_up,
            "most_tokens": self.most_tokens,
            "seconds": self.seconds,
            "end_margin": self.end_margin,
            "frames": rules.size._asdict(),
            "decoder": f"{decoder_version()}; Pillow {pillow}",
        }


def extract_segments(
    items: Sequence[VideoItem],
    transcripts: str | os.PathLike[str] | None,
    folder: str | os.PathLike[str],
    options: SegmentExtractionOptions,
    progress: bool = False,
) -> ExtractionSummary:
    """Extract segments of videos into a segment store, going on where an earlier run stopped.

    A video that is in a complete shard, and whose file and transcript have not changed, is skipped, unless
    ``options.force``; so is one whose file or transcript is no longer there. What cannot be decoded, or not in time,
    has no transcript or another video's, or is too short for a segment, counts as failed. The segments of a video never
    depend on workers or order; the order of the videos in the store does.

    Args:
        items: the videos.
        transcripts: folder or file of what is said in them (:func:`mmpt.store.transcript_source.open_transcripts`);
            None: nothing is.
        folder: of the store.
        options: how they are cut.
        progress: whether to show a bar.

    Raises:
        DataError: if the folder was made with other settings, another run is writing into it, or there are no
            transcripts at that path.
        ConfigError: if there is no tokenizer, or one of the other kind.
        StorageError: if the disk is full, the folder may not be written, or many decoders hang.
        MissingExtraError: if PyAV is not installed.
    """
    subwords = load_subwords(options.tokenizer)
    if subwords.kind != options.kind:
        raise DataError(f"--tokenizer {options.tokenizer}: is of the kind {subwords.kind}, not {options.kind}")
    if transcripts is None and options.missing_as_speechless:
        raise DataError("--missing-as-speechless: of no effect without --transcripts; leave it out")
    source = None if transcripts is None else open_transcripts(transcripts)
    provenance = {**options.provenance(), "speech": source is not None}
    job = functools.partial(_SegmentJob, folder, options, provenance, subwords, source)
    return run_store_job(folder, job, items, options, progress)


class _SegmentJob(StoreJob):
    """Makes the record of each video in the decoding threads, and adds it to a shard."""

    writer: SegmentStoreWriter

    def __init__(
        self,
        folder: str | os.PathLike[str],
        options: SegmentExtractionOptions,
        provenance: dict[str, Any],
        subwords: Subwords,
        source: TranscriptSource | None,
    ) -> None:
        super().__init__(Manifest(folder, provenance), "segments")
        self.options, self.rules = options, options.rules()
        self.subwords, self.source = subwords, source
        fields = options.fields()
        self.writer = SegmentStoreWriter(folder, fields, provenance, options.videos_per_shard, self.record)

    def decode(self, item: VideoItem, report: DecodeReport) -> Iterator[tuple[SegmentRecord | None, float]]:
        """Yield the record of a video, in a worker's thread."""
        spoken = None
        if self.source is not None and (item.video_id in self.source or not self.options.missing_as_speechless):
            spoken = self.source[item.video_id]
        yield from make_record(item, spoken, self.rules, self.subwords, report)

    def is_current(self, item: VideoItem, entry: dict[str, Any]) -> bool:
        stamp = self._stamp(item)
        if stamp is None and entry.get("transcript") is not None:
            return self.stays(item, "transcript")
        return bool(entry.get("transcript") == stamp)

    def take(self, piece: Piece) -> None:
        self.taken[piece.item.video_id] = piece.content

    def finish(self, piece: Piece, entry: dict[str, Any]) -> None:
        video_id = piece.item.video_id
        record = self.taken.pop(video_id)
        self.entries[video_id] = {**entry, "segments": len(record.images), "transcript": self._stamp(piece.item)}
        try:
            self.writer.add(video_id, record)
        except DataError as error:
            self.entries.pop(video_id, None)
            raise UnfitVideoError(str(error)) from error

    def _stamp(self, item: VideoItem) -> str | None:
        return None if self.source is None else self.source.stamp(item.video_id)
