"""`mmpt capabilities`: the table of calls, and what one model has of them."""

import json

import pytest

from mmpt.api.capability import CALLS, rows_with
from mmpt_cli.capabilities import main


def test_the_table_as_text_and_as_json(capsys):
    assert main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == list(CALLS)
    for call in CALLS:
        assert {system: row["model_cls"] for system, row in found[call].items()} == {
            system: row.model_cls for system, row in rows_with(call).items()
        }
    assert main(["caption"]) == 0
    shown = capsys.readouterr().out
    assert "MMFusionNLG  projects/task/youcookcap.yaml" in shown and "answer" not in shown
    assert main(["captions"]) == 2
    assert "Did you mean 'caption'" in capsys.readouterr().err


def test_what_a_model_has(tmp_path, capsys):
    pytest.importorskip("av")
    from tests.api.tiny_models import write_model

    run = write_model(tmp_path, "VIOLETOpenEnded")
    capsys.readouterr()
    assert main(["--model", str(run), "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["system"] == "VIOLET" and found["calls"] == {call: call == "answer" for call in CALLS}
    assert main(["answer", "--model", str(run), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["answer", "yes"]
