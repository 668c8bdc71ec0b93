"""The generated pages are what the code says."""

import re

import pytest

from mmpt.utils.schema import schema_keys
from scripts.docs import configuration_reference as reference


def test_the_committed_pages_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["--check"]) == 0, capsys.readouterr().out


def test_every_key_of_the_schema_has_a_row() -> None:
    page = reference.keys_page()
    sections = dict(re.findall(r"^## (?:`(\w+)`|Top level)\n(.*?)(?=^## |\Z)", page, flags=re.M | re.S))
    for section, keys in schema_keys().items():
        rows = set(re.findall(r"^\| `(\w+)` \|", sections[section], flags=re.M))
        assert keys <= rows, (section, keys - rows)
        assert all(line.count(" | ") >= 4 for line in sections[section].splitlines() if line.startswith("| `"))


def test_types_defaults_and_texts_are_those_of_the_dataclass() -> None:
    declared = reference.declared_keys()
    key = next(key for key in declared["dataset"]["max_video_len"] if "DSAligner" in key.readers)
    assert (key.type, key.default) == ("int", "`32`")
    dup = next(key for key in declared["dataset"]["dup"] if "MSRVTTMetaProcessor" in key.readers)
    assert dup.text.startswith("how often the training list is repeated") and dup.default == "`1`"
    assert reference.type_text(str | None) == "str or empty" and reference.type_text(list[int]) == "list[int]"
