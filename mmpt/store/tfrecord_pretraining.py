"""The published pre-training records of MERLOT and MERLOT Reserve, taken into a segment store.

A record is sixteen chunks (MERLOT) or segments (Reserve) ``c00/..`` ``c15/..``, of one video or of several in groups.
Each group becomes an entry of its own: a video's groups lie in different records, which are shuffled over the files,
and the records do not say how many there are.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpt.store.extraction_job import NO_MANIFEST, ExtractionSummary
from mmpt.store.group_names import IMPORT_TOOL, EntryNames
from mmpt.store.images import decode_image
from mmpt.store.segment_store import MELS, SPECTROGRAM_FRAMES
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.store.tfrecords import Example, read_examples
from mmpt.utils.errors import DataError
from mmpt.utils.files import sole_writer
from mmpt.utils.shardedtensor import ShardedTensorWriter

__all__ = [
    "PRETRAINING_LAYOUTS",
    "VIDEOS_PER_SHARD",
    "Group",
    "import_segments",
    "merlot_groups",
    "random_texts",
    "read_spectrogram",
    "reserve_groups",
]

logger = logging.getLogger(__name__)

VIDEOS_PER_SHARD = 512  # up to sixteen segments each, some hundred megabytes


class Group(NamedTuple):
    """Consecutive segments of one video: the ``name`` that an entry of them gets if no other has it, and the record.

    ``read`` decodes the record; it raises DataError if it cannot.
    """

    name: str
    read: Callable[[], SegmentRecord]


def import_segments(
    files: Sequence[str | Path],
    folder: str | Path,
    layout: str,
    check: bool = True,
    force: bool = False,
    progress: bool = True,
    random_text: str | Path | None = None,
    videos_per_shard: int = VIDEOS_PER_SHARD,
) -> ExtractionSummary:
    """Read the records of files into a segment store; entries that are there already are left as they are.

    The names of entries depend on the order of the files: give the same files in the same order to go on.

    Args:
        files: TFRecords, gzipped or not.
        folder: of the store.
        layout: ``merlot`` or ``reserve``.
        check: verify each record's checksum.
        force: write entries again that are there.
        progress: show a bar.
        random_text: of ``reserve``, also write the text that belongs to no video, token ids, as a ShardedTensor of
            this prefix (``dataset.random_text_path``), anew.
        videos_per_shard: entries of a shard; a killed run loses at most so many.

    Returns:
        Counts; ``failures`` are the groups that could not be used, with the reason.

    Raises:
        DataError: if there is no such layout, a file is damaged (names file and record), or the store was made with
            other settings.
    """
    from tqdm import tqdm

    if layout not in PRETRAINING_LAYOUTS:
        raise DataError(f"--layout {layout}: none of {', '.join(PRETRAINING_LAYOUTS)}")
    read, fields = PRETRAINING_LAYOUTS[layout]
    began, names = time.perf_counter(), EntryNames()
    summary = ExtractionSummary("segments", skipped_because="", full_list=NO_MANIFEST)
    producer = {"tool": IMPORT_TOOL, "layout": layout}
    with ExitStack() as stack:
        stack.enter_context(sole_writer(Path(folder) / ".lock"))
        writer = stack.enter_context(SegmentStoreWriter(folder, fields, producer, videos_per_shard, settings=producer))
        texts = ShardedTensorWriter(random_text, np.int32, (), producer) if random_text is not None else None
        if texts is not None:
            stack.enter_context(texts)
        for example in tqdm(read_examples(files, check), desc=layout, unit="record", disable=not progress):
            try:
                groups = list(read(example))
                if texts is not None:
                    for text in random_texts(example):
                        texts.append(text)
            except DataError as error:
                summary.failures.append((example.place, str(error)))
                logger.info("%s: %s", example.place, error)
                continue
            for group in groups:
                name = names.unique(group.name)
                if name in writer.stored and not force:
                    summary.skipped += 1
                    continue
                try:
                    record = group.read()
                    writer.add(name, record)
                except DataError as error:
                    summary.failures.append((example.place, str(error)))
                    logger.info("%s: %s", example.place, error)
                    continue
                summary.done += 1
                summary.frames += len(record.images)
    summary.wall_seconds = time.perf_counter() - began
    return summary


def merlot_groups(example: Example) -> Iterator[Group]:
    """Yield the videos of a record of MERLOT (specification A4.1); a chunk with ``is_eoc`` ends one.

    A chunk's only time is ``mean_time``, which stands for its start, its end and the time of its frame.

    Raises:
        DataError: if a key is missing or of another kind, or an image is none; names the record.
    """
    for chunks in _grouped(example, _merlot_source):
        first = chunks[0]
        video = example.text(f"{first}/youtube_id")
        name = f"{video}_{int(example.number(f'{first}/chunk_num', 0)):05d}"
        yield Group(name, partial(_merlot_record, example, chunks, video))


def _merlot_record(example: Example, chunks: Sequence[str], video: str) -> SegmentRecord:
    seconds = np.array([example.number(f"{chunk}/mean_time") for chunk in chunks], np.float64)
    return SegmentRecord(
        images=[example.image(f"{chunk}/image/encoded") for chunk in chunks],
        times=np.stack([seconds, seconds], axis=1),
        mid=seconds,
        speed=np.ones(len(chunks), np.float32),
        tokens=[_ids(example, f"{chunk}/tokenized_cleaned_asr") for chunk in chunks],
        raw_tokens=[_ids(example, f"{chunk}/tokenized_raw_asr") for chunk in chunks],
        meta={"youtube_id": video},
    )


def reserve_groups(example: Example) -> Iterator[Group]:
    """Yield the videos of a record of Reserve (specification B4.1), told apart by ``video_src_index`` or ``.._idx``.

    Raises:
        DataError: as :func:`merlot_groups`, and if words and their times are not as many.
    """
    for segments in _grouped(example, _reserve_source):
        first = segments[0]
        video = example.text(f"{first}/youtube_id")
        start = float(example.number(f"{first}/start_time"))
        if not math.isfinite(start):
            raise DataError(f"{example.place}: '{first}/start_time': {start} is no time in seconds")
        yield Group(f"{video}_{round(start):05d}", partial(_reserve_record, example, segments, video))


def _reserve_record(example: Example, segments: Sequence[str], video: str) -> SegmentRecord:
    times = np.array(
        [[example.number(f"{one}/start_time"), example.number(f"{one}/end_time")] for one in segments], np.float64
    )
    tokens = [_ids(example, f"{one}/tok_ids") for one in segments]
    token_times = [_token_times(example, one, len(ids)) for one, ids in zip(segments, tokens, strict=True)]
    return SegmentRecord(
        images=[example.image(f"{one}/image/encoded") for one in segments],
        times=times,
        mid=times.mean(axis=1),
        speed=np.array([example.number(f"{one}/playback_speed", 1) for one in segments], np.float32),
        tokens=tokens,
        token_times=token_times,
        spectrograms=[_reserve_spectrogram(example, one) for one in segments],
        meta={"youtube_id": video, **_reserve_meta(example, segments)},
    )


def random_texts(example: Example) -> list[np.ndarray]:
    """Return the texts of a record of Reserve that belong to no video, token ids int32 (tokens,) each."""
    names = (name for name in sorted(example) if name.endswith("/random_text"))
    return [ids for name in names if len(ids := _ids(example, name))]


#: What reads a record of each layout, and the fields of its segments.
PRETRAINING_LAYOUTS: dict[str, tuple[Callable[[Example], Iterator[Group]], frozenset[str]]] = {
    "merlot": (merlot_groups, frozenset({"images", "tokens", "raw_tokens"})),
    "reserve": (reserve_groups, frozenset({"images", "tokens", "token_times", "spectrograms"})),
}


def read_spectrogram(content: bytes, magic_number: float, shape: tuple[int, int], place: str) -> np.ndarray:
    """Return the float16 values of a spectrogram that was stored as a grey JPEG of its values times ``magic_number``.

    Args:
        content: bytes of the JPEG.
        magic_number: what the values were multiplied by.
        shape: rows and columns that it must have.
        place: for errors.

    Raises:
        DataError: if the JPEG is damaged or of another shape, or the number is not positive; names the place.
    """
    try:
        pixels = decode_image(content)[..., 0]
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    if pixels.shape != shape or not 0 < magic_number < np.inf:
        raise DataError(f"{place}: {pixels.shape} pixels and magic_number {magic_number}, expected {shape} and above 0")
    return (pixels.astype(np.float32) / np.float32(magic_number)).astype(np.float16)


def _grouped(example: Example, source: Callable[[Example, str, str], bool]) -> Iterator[list[str]]:
    """Yield the prefixes ``cNN`` of the segments of each video; ``source`` says whether one begins another video."""
    number, group = 0, list[str]()
    while f"{(name := f'c{number:02d}')}/image/encoded" in example:
        if group and source(example, name, group[-1]):
            yield group
            group = []
        group.append(name)
        number += 1
    if not group:
        raise DataError(f"{example.place}: holds no segment: no feature 'c00/image/encoded'")
    yield group


def _merlot_source(example: Example, chunk: str, last: str) -> bool:
    ended = bool(example.number(f"{last}/is_eoc", 0))
    return ended or example.text(f"{chunk}/youtube_id") != example.text(f"{last}/youtube_id")


def _reserve_source(example: Example, segment: str, last: str) -> bool:
    for key in ("video_src_index", "video_src_idx"):
        if f"{segment}/{key}" in example and f"{last}/{key}" in example:
            if example.number(f"{segment}/{key}") != example.number(f"{last}/{key}"):
                return True
            break
    return example.text(f"{segment}/youtube_id") != example.text(f"{last}/youtube_id")


def _ids(example: Example, name: str) -> np.ndarray:
    ids = example.numbers(name)
    if len(ids) and (ids.dtype.kind != "i" or ids.min() < 0 or ids.max() > np.iinfo(np.int32).max):
        raise DataError(f"{example.place}: {name!r}: holds no token ids")
    return ids.astype(np.int32)


def _token_times(example: Example, segment: str, count: int) -> np.ndarray:
    ends = [example.numbers(f"{segment}/tok_{end}_times").astype(np.float32) for end in ("start", "end")]
    if {len(one) for one in ends} != {count}:
        raise DataError(f"{example.place}: {segment}: {count} words, and {[len(one) for one in ends]} of their times")
    return np.stack(ends, axis=1)


def _reserve_spectrogram(example: Example, segment: str) -> np.ndarray:
    magic, place = example.number(f"{segment}/spectrogram/magic_number"), f"{example.place}: {segment}/spectrogram"
    return read_spectrogram(
        example.bytes_of(f"{segment}/spectrogram/encoded"), magic, (MELS, SPECTROGRAM_FRAMES), place
    ).T


def _reserve_meta(example: Example, segments: Sequence[str]) -> dict[str, Any]:
    """Return what the first segment that has it says of the video: ids of title, description, tags, and the JSON."""
    found: dict[str, Any] = {}
    for segment in segments:
        for key in ("title", "description", "tags"):
            name = f"{segment}/{key}"
            if f"{key}_ids" not in found and name in example and len(ids := _ids(example, name)):
                found[f"{key}_ids"] = ids.tolist()
        if "meta" in found or f"{segment}/meta" not in example or not (raw := example.bytes_of(f"{segment}/meta")):
            continue
        try:
            found["meta"] = json.loads(raw)
        except ValueError as error:
            raise DataError(f"{example.place}: '{segment}/meta': not JSON ({error})") from error
    of_video = found.pop("meta", None)
    return {**(of_video if isinstance(of_video, dict) else {}), **found}
