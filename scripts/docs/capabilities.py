"""Write docs/capabilities.md, which system has which call of a pipeline, from the table of models.

python scripts/docs/capabilities.py            # writes the page
python scripts/docs/capabilities.py --check    # exit code 1 where the page is not what this writes
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.api.capability import CALLS, ROWS, SYSTEMS, rows_with
from mmpt.utils.files import REPOSITORY, atomic_open

__all__ = ["PAGE", "main", "page"]

PAGE = "docs/capabilities.md"
_HEAD = """# Which system has which call

Made by `python scripts/docs/capabilities.py` from `mmpt/api/capability.py`; edit that. A call is one of the
[pipeline](python.md): `choose` is `answer` with options, and `index` is what [searching](search.md) needs. A model
answers what it was trained for: a cell names the class to take. `pipeline.calls` says what a loaded model has; asking
for another call is a `MissingCapabilityError` that names the systems of its column.

"""
#: How a kind of model chooses among options, and how it answers freely.
_ANSWERS = (
    ("with vectors, or that fuses pairs", "the option whose text, behind the question, fits the video best", "–"),
    (
        "VIOLET, MERLOT",
        "each option is read together with the question",
        "among the answers of its training; `answers=` restricts them",
    ),
    (
        "LAVENDER",
        "all options stand in one text; the answer is a number",
        "one word piece; `[MASK]` in a sentence is filled in",
    ),
    (
        "MERLOT Reserve",
        "as TVQA or VCR: each option with the question, the frames and the sound",
        "`answers=` says what a gap, `<\\|MASK\\|>`, is compared with; it stands behind the question if nowhere else",
    ),
)
_QUESTIONS = """
## How questions are answered

| model | among `options` | open-ended |
|---|---|---|
{rows}

Texts are laid out by the aligners of the tests. Probabilities are the softmax of the scores that were compared. A
question that does not fit is cut at its end, so that the options stay whole. Open-ended VIOLET and MERLOT know their
answers from the text file of their training (`dataset.train_path`); `save_pretrained` keeps them in the folder.
`caption` takes the keys of `gen_param`: `pipeline.caption(video, num_beams=5, no_repeat_ngram_size=3)`.
"""
_SEEN = """
## What is seen of a video

| model | of a file |
|---|---|
| VideoCLIP, VLM | the features of every second, by the training's encoder; in windows of `max_video_len` seconds |
| VIOLET, LAVENDER | `num_frames` frames, from where `mmpt extract frames` takes as many |
| MERLOT | `num_chunks` frames, in the middle of as many equal parts |
| MERLOT Reserve | a frame for each segment of its joint encoder. Vectors, scores and timelines are of frames alone: \
what [a mask beside them](merlot_reserve.md#the-vector-of-a-video) says. \
Sound is heard only where a question is answered; `model.encode_video` takes `audio_clips` |

A window or a clip is seen as a video of its own.
"""
_MODELS = """
## Models

The class is `model.model_cls` of a job; the config is one that makes a checkpoint of it, or that tests one.

"""


def _link(example: str) -> str:
    return f"[{Path(example).stem}](../{example})"


def page() -> str:
    """Return the page."""
    cells = {call: rows_with(call) for call in CALLS}
    lines = [f"| | {' | '.join(f'`{call}`' for call in CALLS)} |", "|---" * (len(CALLS) + 1) + "|"]
    for system in SYSTEMS:
        found = [cells[call].get(system) for call in CALLS]
        lines.append(f"| {system} | {' | '.join(f'`{row.model_cls}`' if row else '–' for row in found)} |")
    models = ["| system | class | config | calls |", "|---|---|---|---|"]
    for system in SYSTEMS:
        for row in ROWS:
            if row.system == system:
                calls = ", ".join(f"`{call}`" for call in CALLS if call in row.calls)
                models.append(f"| {system} | `{row.model_cls}` | {_link(row.example)} | {calls} |")
    questions = _QUESTIONS.format(rows="\n".join(f"| {' | '.join(row)} |" for row in _ANSWERS))
    return _HEAD + "\n".join(lines) + "\n" + questions + _SEEN + _MODELS + "\n".join(models) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the page is up to date")
    options = parser.parse_args(arguments)
    target, content = REPOSITORY / PAGE, page()
    if options.check:
        same = target.is_file() and target.read_text(encoding="utf-8") == content
        print(f"{PAGE}: {'up to date' if same else 'not what python scripts/docs/capabilities.py writes'}")
        return 0 if same else 1
    with atomic_open(target) as file:
        file.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
