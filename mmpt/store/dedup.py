"""Remove what speech recognition says twice: words that end one clip and begin the next.

Rolling captions repeat the tail of the line before. The walk over the clips of a video is that of the
VideoCLIP data preparation, but overlaps are counted in whole words and the longest one is taken:
comparing characters joins "you cut" and "the onion" at the letter t and eats it.
"""

import zlib
from collections import Counter

import numpy as np

from mmpt.store.transcripts import Transcript
from mmpt.utils.seeds import DEFAULT_SEED, item_generator

__all__ = ["CaptionDedup", "deduplicate", "longest_overlap"]

_SAID_AGAIN = "clips that end the clip before (its end is extended)"
_SAID_ON = "clips that repeat the clip before and go on (it is replaced)"
_OVERLAP = "clips whose first words end the clip before (cut out of one of the two)"


def longest_overlap(before: list[str], after: list[str]) -> int:
    """Return the largest n for which the last n words of ``before`` are the first n of ``after``."""
    if not after or after[0] not in before:  # nearly always, and found out without a loop
        return 0
    for count in range(min(len(before), len(after)), 0, -1):
        if before[-count] == after[0] and before[-count:] == after[:count]:
            return count
    return 0


def deduplicate(transcript: Transcript, rng: np.random.Generator, counts: Counter[str] | None = None) -> Transcript:
    """Return the clips of one video, in time order, without the words that neighbours share.

    Each clip is compared with the one kept before it:

    * it is the end of that one: only the end time of the kept clip grows;
    * it begins with that one: it takes its place, with the times of both;
    * its first words are that one's last: they stay in one of the two, chosen by ``rng`` with equal chance;
    * otherwise it is kept as it is.

    No word is lost that is not there twice, and starts stay in order.
    """
    counts = Counter() if counts is None else counts
    kept: list[tuple[float, float, list[str]]] = []
    for start, end, text in zip(transcript.start, transcript.end, transcript.text, strict=True):
        words = text.split()
        if not words:
            continue
        if not kept:
            kept.append((start, end, words))
            continue
        old_start, old_end, old_words = kept[-1]
        overlap = longest_overlap(old_words, words)
        wide = (min(old_start, start), max(old_end, end))
        if overlap == len(words):
            counts[_SAID_AGAIN] += 1
            kept[-1] = (*wide, old_words)
        elif overlap == len(old_words):
            counts[_SAID_ON] += 1
            kept[-1] = (*wide, words)
        elif overlap == 0:
            kept.append((start, end, words))
        else:
            counts[_OVERLAP] += 1
            if rng.random() < 0.5:
                words = words[overlap:]
            else:
                kept[-1] = (old_start, old_end, old_words[:-overlap])
            kept.append((start, end, words))
    return Transcript([clip[0] for clip in kept], [clip[1] for clip in kept], [" ".join(clip[2]) for clip in kept])


class CaptionDedup:
    """De-duplicate videos; a video's result depends on its id and the seed alone, not on the order of videos.

    ``counts`` adds up what was done.
    """

    def __init__(self, seed: int = DEFAULT_SEED) -> None:
        self.seed = seed
        self.counts: Counter[str] = Counter()

    def __call__(self, video_id: str, transcript: Transcript) -> Transcript:
        """Return the de-duplicated transcript of one video."""
        result = deduplicate(transcript, item_generator(self.seed, 0, zlib.crc32(video_id.encode())), self.counts)
        for name, clips in (("before", transcript), ("after", result)):
            self.counts[f"clips {name}"] += len(clips)
            self.counts[f"words {name}"] += sum(text.count(" ") + 1 for text in clips.text)
        return result
