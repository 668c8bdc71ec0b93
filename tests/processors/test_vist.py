"""Stories: from the published records to the model's input."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmpt.datasets.mmdataset import MMDataset
from mmpt.modules.merlot_tokens import START
from mmpt.processors.frame_base import FrameVideoProcessor
from mmpt.processors.segment_images import fit_corners
from mmpt.processors.subword_texts import SubwordTextProcessor
from mmpt.processors.vist import StoryAligner, StoryMetaProcessor
from mmpt.store.images import decode_image
from mmpt.utils.errors import ConfigError, DataError
from tests.processors.downstream_data import section


def dataset(config: dict) -> MMDataset:
    parts = (StoryMetaProcessor, FrameVideoProcessor, SubwordTextProcessor, StoryAligner)
    return MMDataset(*(part(config) for part in parts))


def test_a_story(tmp_path: Path) -> None:
    stories = dataset(section(tmp_path, "vist"))
    item = stories[1]
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert len(stories) == 4 and item["video_id"] == "story1"
    assert item["vfeats"].shape == (5, 3, 32, 64)
    for row, sentence in zip(item["tokens"].tolist(), lines[1]["sentences"], strict=True):
        assert row == [START, *sentence, *[0] * (39 - len(sentence))]
    stored = stories.video_processor("story1")[3]
    expected = np.round(fit_corners(decode_image(stored), 32, 64).numpy() * 255)
    assert np.abs(item["vfeats"][3].numpy() - expected).max() <= 1


def test_images_hide_their_places_the_same_in_every_test(tmp_path: Path) -> None:
    stories = dataset(section(tmp_path, "vist", order_draws=3))
    draws = stories[0]["image_index"]
    assert draws.shape == (3, 5)
    assert all(sorted(draw) == [64, 65, 66, 67, 68] for draw in draws.tolist())
    assert stories[0]["image_index"].equal(draws)
    assert not stories[1]["image_index"].equal(draws)


def test_texts_are_encoded_without_a_leading_space(tmp_path: Path) -> None:
    config = section(tmp_path, "vist", max_text_len=4)
    line = {"id": "s", "images": "story0", "sentences": [" the sea ", "a", "b", "c", "d"]}
    (tmp_path / "q.jsonl").write_text(json.dumps(line))
    stories = dataset(config)
    item = stories[0]
    assert item["sentences"][0] == " the sea "
    assert item["tokens"][0].tolist() == [START, *stories.aligner.subwords.encode("the sea")[:3]]
    assert stories.aligner.cut.cut == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: expected an object"),
        ('{"images": "story0", "sentences": []}', "no key 'id'"),
        ('{"id": "x", "images": "story0", "sentences": ["a"]}', "story x: not 5 sentences"),
        ('{"id": "x", "images": "story0", "sentences": ["a", "b", "c", "d", 5]}', "sentence 4: expected a text"),
        ('{"id": "x", "images": "story0", "sentences": ["a", "b", "c", "d", [-1]]}', "negative"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    config = section(tmp_path, "vist", 1)
    with (tmp_path / "q.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=told):
        StoryMetaProcessor(config)


def test_stories_without_images_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = section(tmp_path, "vist", max_missing=0.5)
    line = {"id": "lost", "images": "nowhere", "sentences": ["a"] * 5}
    with (tmp_path / "q.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert len(StoryMetaProcessor(config)) == 4
    assert "1 without images (for example lost)" in caplog.text
    with pytest.raises(DataError, match="max_missing"):
        StoryMetaProcessor({**config, "max_missing": 0.1})


def test_what_a_config_cannot_say(tmp_path: Path) -> None:
    config = section(tmp_path, "vist", 1)
    for changes, told in (
        ({"tokenizer": None}, "dataset.tokenizer: not set"),
        ({"image_size": [30, 64]}, "dataset.image_size"),
        ({"max_text_len": 1}, "dataset.max_text_len"),
        ({"order_draws": 0}, "dataset.order_draws"),
    ):
        with pytest.raises(ConfigError, match=told):
            StoryAligner({**config, **changes})
    with pytest.raises(ConfigError, match="frame_path"):
        StoryMetaProcessor({**config, "frame_path": None})
