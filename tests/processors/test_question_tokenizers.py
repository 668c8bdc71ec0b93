"""Questions that hold the ids of one system are not read as those of the other."""

from pathlib import Path
from typing import Any

import pytest

from mmpt.processors.tvqa import TVQAMetaProcessor
from mmpt.processors.vcr import VCRMetaProcessor
from mmpt.processors.vist import StoryMetaProcessor
from mmpt.utils.errors import DataError
from scripts.tiny_data.subword_files import write_merlot_tokenizer, write_reserve_tokenizer
from tests.processors.downstream_data import section


@pytest.mark.parametrize(
    ("layout", "meta"),
    [
        ("vist", StoryMetaProcessor),
        ("merlot_vcr", VCRMetaProcessor),
        ("reserve_vcr", VCRMetaProcessor),
        ("tvqa", TVQAMetaProcessor),
    ],
)
def test_the_other_tokenizer_is_refused(tmp_path: Path, layout: str, meta: Any) -> None:
    config = section(tmp_path, layout)
    assert len(meta(config)) == len(meta({**config, "tokenizer": None})) >= 4
    if layout in ("vist", "merlot_vcr"):
        other, told = write_reserve_tokenizer(tmp_path / "other.json"), "'merlot', and dataset.tokenizer .* of reserve"
    else:
        other, told = write_merlot_tokenizer(tmp_path / "other"), "'reserve', and dataset.tokenizer .* of merlot"
    with pytest.raises(DataError, match=f"q.jsonl.* ids of the tokenizer of {told}"):
        meta({**config, "tokenizer": str(other)})
