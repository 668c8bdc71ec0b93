"""TVQA for MERLOT: the layout of its texts, which frames, and from lines to predictions."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mmpt.modules.merlot_tokens import END, START
from mmpt.processors.merlot_tvqa import MERLOTTVQAAligner
from mmpt.utils.errors import ConfigError
from mmpt.utils.files import write_json
from scripts.tiny_data.subword_files import write_merlot_tokenizer
from tests.evaluators.downstream_tests import build, evaluated
from tests.processors.downstream_data import section

SIZES = {"image_size": [32, 64], "max_text_len": 60, "num_frames": 6}
PARTS = {
    "meta_processor": "TVQAMetaProcessor",
    "video_processor": "WholeSegmentsVideoProcessor",
    "text_processor": "SubwordTextProcessor",
    "aligner": "MERLOTTVQAAligner",
}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """The clips have seven, six, five and seven windows."""
    own = section(tmp_path, "tvqa")
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"query": "who is it", "choices": [f"man {n}" for n in range(5)]}
        del line["tokenizer"]  # these are texts
        line["subtitles"] = ["hello", "", "you there", "", "", "", "late"]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for key in ("image_grid", "lang_seq_len"):
        del own[key]
    return {**own, "tokenizer": str(write_merlot_tokenizer(tmp_path / "bpe")), **SIZES, **PARTS}


def test_an_item(config: dict[str, Any]) -> None:
    data = build("MERLOTAnswering", config)[0].test_data
    assert data is not None
    encode = data.aligner.subwords.encode
    begin = [START, *encode(" who is it"), *encode(" man 3")]
    for row, said in ((0, [" hello", " you there", " late"]), (2, [" hello", " you there"])):
        ids = [*begin, *(one for text in said for one in encode(text)), END]
        assert data[row]["caps"][3].tolist() == [*ids, *[0] * (60 - len(ids))]
    assert data[0]["vmasks"].all() and data[2]["vmasks"].tolist() == [True] * 5 + [False]


def test_subtitles_give_way(config: dict[str, Any]) -> None:
    data = build("MERLOTAnswering", {**config, "max_text_len": 20})[0].test_data
    assert data is not None
    encode, row = data.aligner.subwords.encode, data[0]["caps"][0].tolist()
    told = [*encode(" who is it"), *encode(" man 0"), *encode(" hello"), *encode(" you there")]
    assert row == [START, *told[:18], END]
    for changes in ({"max_text_len": 7}, {"num_frames": 0}):
        with pytest.raises(ConfigError):
            MERLOTTVQAAligner({**config, **changes})


def test_from_lines_to_predictions(config: dict[str, Any], tmp_path: Path) -> None:
    task, model = build("MERLOTAnswering", config)
    other = tmp_path / "prediction_test_public.json"
    write_json(other, {"7": 3})
    own = {"other_prediction": str(other)}
    assert evaluated(task, model, tmp_path / "eval", "TVQAPredictor", "TVQAMetric", **own)["count"] == 4
    with zipfile.ZipFile(tmp_path / "eval/submission.zip") as archive:
        assert json.loads(archive.read("meta.json"))["model_name"] == "MERLOT"
