"""Words of the demo corpus: what a narrator says, how speech recognition cuts it, and clean captions.

Narration talks about a segment while it is seen, or a little early or late, with filler and stutter.
Retrieval captions describe a whole clip precisely, and say many things in words that the narrator
rarely uses: that is what fine-tuning has to learn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scripts.demo_corpus.scenes import Segment
from scripts.demo_corpus.splits import Triple

__all__ = [
    "CaptionLine",
    "caption_words",
    "describe",
    "describe_step",
    "narrate",
    "progressive",
    "read_step",
    "recognise",
]
__all__ += ["plain", "synonyms"]

# For each meaning: the narrator's words, and words that belong to the retrieval captions.
_COLOURS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "red": (("red",), ("crimson",)),
    "orange": (("orange",), ()),
    "yellow": (("yellow",), ()),
    "green": (("green",), ("emerald",)),
    "blue": (("blue",), ()),
    "purple": (("purple",), ("violet",)),
    "pink": (("pink",), ()),
    "white": (("white",), ("snowy",)),
}
_SHAPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "circle": (("circle",), ("disc", "ball")),
    "square": (("square",), ("box",)),
    "triangle": (("triangle",), ("pyramid",)),
    "star": (("star",), ()),
    "ring": (("ring",), ("hoop",)),
    "cross": (("cross",), ("plus sign",)),
}
# Actions as (third person, progressive), so that they fit after a subject and after "is".
_ACTIONS: dict[str, tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]] = {
    "bounce": (
        (("bounces", "bouncing"), ("bounces up and down", "bouncing up and down")),
        (("hops", "hopping"), ("leaps", "leaping")),
    ),
    "spin": (
        (("spins", "spinning"), ("spins on the spot", "spinning on the spot")),
        (("rotates", "rotating"), ("twirls", "twirling")),
    ),
    "slide_left": (
        (("slides left", "sliding left"), ("slides to the left", "sliding to the left")),
        (("drifts leftward", "drifting leftward"), ("travels leftward", "travelling leftward")),
    ),
    "slide_right": (
        (("slides right", "sliding right"), ("slides to the right", "sliding to the right")),
        (("drifts rightward", "drifting rightward"), ("travels rightward", "travelling rightward")),
    ),
    "loop": (
        (("loops", "looping"), ("goes round and round", "going round and round")),
        (("orbits", "orbiting"), ("whirls about", "whirling about")),
    ),
    "zigzag": (
        (("zigzags", "zigzagging"), ("goes in a zigzag", "going in a zigzag")),
        (("swerves", "swerving"), ("darts across", "darting across")),
    ),
    "grow": (
        (("grows", "growing"), ("gets bigger", "getting bigger")),
        (("expands", "expanding"), ("swells", "swelling")),
    ),
    "shrink": (
        (("shrinks", "shrinking"), ("gets smaller", "getting smaller")),
        (("contracts", "contracting"), ("dwindles", "dwindling")),
    ),
    "blink": (
        (("blinks", "blinking"), ("flashes on and off", "flashing on and off")),
        (("flickers", "flickering"), ("comes and goes", "coming and going")),
    ),
}
_NARRATION = (
    "so now the {c} {s} {a}",
    "here we see a {c} {s} and it is {ing}",
    "look at the {c} {s} it is {ing}",
    "and then the {c} {s} {a}",
    "you can see a {c} {s} that {a}",
    "next comes the {c} one a {s} {ing}",
    "the {s} is {c} and it {a}",
    "watch how this {c} {s} {a}",
    "okay there is a {c} {s} that is {ing}",
)
_PARTIAL = ("see how it {a}", "the {s} is still {ing}", "i like this {c} {s}", "it keeps {ing}", "a {c} {s} again")
_IDLE = (
    "okay so let me just check the next one",
    "do not forget to subscribe to the channel",
    "all right let us go on with this",
    "i made this one a few days ago",
)
_FILLER = ("um", "uh", "okay", "so", "you know", "well")
_CAPTIONS = (
    "a {c} {s} {a}",
    "a {c} {s} is {ing}",
    "the {c} {s} is {ing}",
    "there is a {c} {s} that {a}",
    "you see a {c} {s} and it is {ing}",
    "a {s} that is {c} {a}",
)
_STEP_SENTENCE = "the {c} {s} is {ing}"


@dataclass(frozen=True)
class CaptionLine:
    """Hold one line of recognised speech; times in seconds."""

    start: float
    end: float
    text: str


def synonyms() -> set[str]:
    """Return the words that belong to the retrieval captions and that the narrator rarely uses."""
    phrases = [word for table in (_COLOURS, _SHAPES) for _, rare in table.values() for word in rare]
    phrases += [form for _, rare in _ACTIONS.values() for forms in rare for form in forms]
    return {word for phrase in phrases for word in phrase.split()}


def caption_words() -> set[str]:
    """Return every word that a caption may have."""
    phrases = [word for table in (_COLOURS, _SHAPES) for words in table.values() for part in words for word in part]
    phrases += [form for words in _ACTIONS.values() for part in words for forms in part for form in forms]
    phrases += [template.format(c="", s="", a="", ing="") for template in _CAPTIONS]
    return {word for phrase in phrases for word in phrase.split()}


def _choose(options: tuple[tuple, tuple], rare: float, rng: np.random.Generator):  # type: ignore[no-untyped-def, type-arg]
    usual, unusual = options
    pool = unusual if unusual and rng.random() < rare else usual
    return pool[int(rng.integers(len(pool)))]


def _fill(template: str, triple: Triple, rare: float, rng: np.random.Generator) -> str:
    finite, progressive = _choose(_ACTIONS[triple.action], rare, rng)
    return template.format(
        c=_choose(_COLOURS[triple.colour], rare, rng),
        s=_choose(_SHAPES[triple.shape], rare, rng),
        a=finite,
        ing=progressive,
    )


def describe(triple: Triple, rng: np.random.Generator, rare: float = 0.3) -> str:
    """Return one clean caption; each part uses a retrieval word with probability ``rare``."""
    return _fill(_CAPTIONS[int(rng.integers(len(_CAPTIONS)))], triple, rare, rng)


def describe_step(triple: Triple, rng: np.random.Generator) -> str:
    """Return a plain sentence about a step, in the narrator's usual words."""
    return _fill(_STEP_SENTENCE, triple, 0.0, rng)


def read_step(sentence: str) -> Triple | None:
    """Return the triple that a sentence about a step names, in any of the narrator's words; None if it names none."""
    words = f" {sentence} "
    actions = {form: action for action, (usual, _) in _ACTIONS.items() for forms in usual for form in forms}
    found = [
        [meaning for word, meaning in sorted(names.items(), key=lambda item: -len(item[0])) if f" {word} " in words]
        for names in ({name: name for name in _COLOURS}, {name: name for name in _SHAPES}, actions)
    ]
    return Triple(*(meanings[0] for meanings in found)) if all(found) else None


def progressive(action: str) -> str:
    """Return the narrator's first word or words for an action, as after "is"."""
    return _ACTIONS[action][0][0][1]


def plain(triple: Triple) -> str:
    """Return the plainest sentence about a triple, always the same."""
    return _STEP_SENTENCE.format(c=triple.colour, s=triple.shape, ing=progressive(triple.action))


def _utterance(triple: Triple, seconds: float, rng: np.random.Generator) -> list[str]:
    """Return the words said about one segment: usually its description, filler, at times a remark."""
    if rng.random() < 0.04:
        return _IDLE[int(rng.integers(len(_IDLE)))].split()
    words = _fill(_NARRATION[int(rng.integers(len(_NARRATION)))], triple, 0.03, rng).split()
    if len(words) < 2.2 * seconds:
        words += _fill(_PARTIAL[int(rng.integers(len(_PARTIAL)))], triple, 0.03, rng).split()
    if rng.random() < 0.35:
        position = int(rng.integers(len(words)))
        words[position:position] = _FILLER[int(rng.integers(len(_FILLER)))].split()
    if rng.random() < 0.15:
        position = int(rng.integers(len(words)))
        words.insert(position, words[position])
    return words


def narrate(segments: Sequence[Segment], rng: np.random.Generator) -> list[list[tuple[float, float, str]]]:
    """Return, for each segment, the timed words ``(start, end, word)`` said about it (seconds).

    One segment in eight is described early by up to 1.5 seconds, one in six late by up to 2.2;
    nobody speaks before the video begins, after it ends, or two sentences at once.
    """
    spoken: list[list[tuple[float, float, str]]] = []
    free, duration = 0.0, segments[-1].end
    for segment in segments:
        luck = rng.random()
        early, late = luck < 0.12, 0.12 <= luck < 0.3
        shift = rng.uniform(-1.5, -0.6) if early else rng.uniform(0.8, 2.2) if late else rng.uniform(-0.2, 0.4)
        words = _utterance(segment.triple, segment.end - segment.start, rng)
        clock = max(free, segment.start + float(shift))
        pace = float(rng.uniform(0.28, 0.38))
        timed = [(clock + i * pace, clock + (i + 1) * pace, word) for i, word in enumerate(words)]
        timed = [(start, end, word) for start, end, word in timed if end <= duration]
        free = timed[-1][1] if timed else free
        spoken.append(timed)
    return spoken


def recognise(spoken: Sequence[Sequence[tuple[float, float, str]]], rng: np.random.Generator) -> list[CaptionLine]:
    """Cut timed words into the rolling lines of automatic captions.

    Most lines begin with the words of the line before (the window rolls on), some are shown a
    second time unchanged, as in the automatic subtitles of video sites.
    """
    lines: list[CaptionLine] = []
    previous: list[tuple[float, float, str]] = []
    for sentence in spoken:
        position = 0
        while position < len(sentence):
            size = int(rng.integers(3, 7))
            chunk = list(sentence[position : position + size])
            position += size
            shown = previous + chunk if previous and rng.random() < 0.45 else chunk
            text = " ".join(word for _, _, word in shown)
            lines.append(CaptionLine(round(shown[0][0], 2), round(chunk[-1][1], 2), text))
            if rng.random() < 0.2:
                repeat = " ".join(word for _, _, word in chunk)
                lines.append(CaptionLine(round(chunk[0][0], 2), round(chunk[-1][1] + 0.01, 2), repeat))
            previous = chunk
    return lines
