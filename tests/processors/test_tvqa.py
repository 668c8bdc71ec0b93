"""TVQA: texts with subtitles and with sound, the sounds, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.datasets.mmdataset import MMDataset
from mmpt.modules.reserve_tokens import AUDIOSPAN, MASK, START
from mmpt.processors.subword_texts import SubwordTextProcessor
from mmpt.processors.tvqa import TVQAAligner, TVQAMetaProcessor, WholeSegmentsVideoProcessor, sound_blocks
from mmpt.utils.errors import ConfigError, DataError
from tests.processors.downstream_data import section


def dataset(config: dict[str, Any]) -> MMDataset:
    parts = (TVQAMetaProcessor, WholeSegmentsVideoProcessor, SubwordTextProcessor, TVQAAligner)
    return MMDataset(*(part(config) for part in parts))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "q.jsonl").read_text().splitlines()]


def test_an_item(tmp_path: Path) -> None:
    """The second question's clip has six windows."""
    questions = dataset(section(tmp_path, "tvqa", lang_seq_len=192))
    item, line, encode = questions[1], lines_of(tmp_path)[1], questions.aligner.subwords.encode
    asked = [*line["query"], *encode("answer: "), *line["choices"][4], MASK]
    subtitles = [one for window in line["subtitles"][:6] for one in window]
    places = [0] * len(asked) + [1 + number for number in range(6) for _ in line["subtitles"][number]]
    told = len(asked) + len(subtitles)
    assert item["caps"][0, 4].tolist() == [*asked, *subtitles, *[0] * (192 - told)]
    assert item["segments"][0, 4].tolist() == [*places, *[-1] * (192 - told)]
    assert item["caps"][1, 4].tolist()[: len(asked) + 108] == [*asked, *[AUDIOSPAN] * 108]
    assert item["segments"][1, 4].tolist()[len(asked) :: 18][:7] == [1, 2, 3, 4, 5, 6, -1]
    assert item["vmasks"].tolist() == [True] * 6 + [False] and not item["vfeats"][6].any()
    assert item["audio_clips"].shape == (21, 60, 65) and not item["audio_clips"][18:].any()
    assert (item["audio_clips"][:18, :, 64] == 1).all()
    stored = questions.video_processor(line["segments"]).spectrogram(2)[:180].astype(np.float32)
    assert np.array_equal(item["audio_clips"][6:9, :, :64].reshape(180, 64), stored)
    assert item["answers"] == line["answer"] and item["video_id"] == line["id"]


def test_a_span_stands_before_the_query(tmp_path: Path) -> None:
    config = section(tmp_path, "tvqa", 1, lang_seq_len=256)
    line = lines_of(tmp_path)[0] | {"span": "10 to 35", "query": "what?"}
    (tmp_path / "q.jsonl").write_text(json.dumps(line))
    questions = dataset(config)
    encode = questions.aligner.subwords.encode
    begin = [*encode("10 to 35"), START, *encode("what?"), *encode("answer: "), *line["choices"][0], MASK]
    assert questions[0]["caps"][1, 0].tolist()[: len(begin)] == begin


def test_sound_is_whole_where_room_is_short(tmp_path: Path) -> None:
    """All 126 sounds are read; the beginning of the question gives way, and is counted."""
    questions = dataset(section(tmp_path, "tvqa", 1, lang_seq_len=140))
    row = questions[0]["caps"][1, 0].tolist()
    assert row[14:] == [AUDIOSPAN] * 126 and row[13] == MASK
    assert questions.aligner.cut.cut > 0


def test_blocks_have_no_gaps_and_training_shifts_them() -> None:
    rng = np.random.default_rng(0)
    spectrogram = rng.random((180, 64)).astype(np.float32)
    blocks = sound_blocks(spectrogram)
    assert np.array_equal(blocks[..., :64].reshape(180, 64), spectrogram) and (blocks[..., 64] == 1).all()
    shifts = set()
    for seed in range(60):
        shifted = sound_blocks(spectrogram, np.random.default_rng(seed))[..., :64].reshape(180, 64)
        found = [shift for shift in range(-4, 5) if np.allclose(shifted[4 + shift : 176 + shift], spectrogram[4:176])]
        assert len(found) == 1
        shifts.update(found)
    assert shifts == set(range(-4, 5))


def test_training_needs_answers_and_tests_do_not(tmp_path: Path) -> None:
    config = section(tmp_path, "tvqa", lang_seq_len=192)
    lines = [line | {"answer": None} for line in lines_of(tmp_path)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert dataset(config)[0]["answers"] == -1
    with pytest.raises(DataError, match="4 without an answer"):
        dataset({**config, "split": "train"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"choices": [[1]] * 4}, "choices: expected 5 texts, found 4"),
        ({"answer": 5}, "not the index of one of 5 choices"),
        ({"subtitles": ["a"] * 6}, "subtitles: expected 7 texts"),
        ({"frames": 8}, "frames: 8 is not 1 to 7"),
        ({"segments": "absent"}, "1 without segments"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    config = section(tmp_path, "tvqa")
    lines = lines_of(tmp_path)
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [lines[0] | change, *lines[1:]]))
    with pytest.raises(DataError, match=told):
        TVQAMetaProcessor(config)
    with pytest.raises(ConfigError, match="no room for the sound"):
        TVQAAligner({**config, "lang_seq_len": 100})
