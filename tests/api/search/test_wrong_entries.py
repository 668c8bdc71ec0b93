"""A manifest that says what cannot be is refused with the remedy, and the remedy mends it."""

import json

import pytest
from fake_clips import FakePipeline, write
from test_clip_index import held, run, same, wanted

from mmpt.api.search import ClipIndex
from mmpt.api.search.writer import repair
from mmpt.utils.errors import DataError
from mmpt_cli import index as index_command


@pytest.fixture
def index(tmp_path):
    videos, out = write(tmp_path / "v", a="red 3", b="blue 2"), tmp_path / "index"
    run(videos, out)
    return videos, out


def change(out, change_entry):
    path = out / "data_00000" / "manifest.json"
    stored = json.loads(path.read_text())
    change_entry(stored["videos"]["0:b.mp4"])
    path.write_text(json.dumps(stored))


CHANGES = {
    "no rows": lambda entry: entry.pop("rows"),
    "no first": lambda entry: entry.pop("first"),
    "no mark": lambda entry: entry.pop("rows_end"),
    "a text": lambda entry: entry.update(rows_end="many"),
    "no number": lambda entry: entry.update(first=None),
    "rows of another": lambda entry: entry.update(first=1),
    "more rows than there are": lambda entry: entry.update(rows=900),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_entry_that_cannot_be_is_named_with_the_remedy_which_helps(index, name, capsys):
    videos, out = index
    change(out, CHANGES[name])
    for use in (lambda: ClipIndex.open(out, FakePipeline()), lambda: run(videos, out)):
        with pytest.raises(DataError, match=r"manifest\.json.*Mend it with: mmpt index .*index --repair"):
            use()
            ClipIndex.open(out)  # a run may do no more than leave alone what it does not look at
    assert index_command.main([str(out), "--verify", "--json"]) == 1
    assert "b.mp4" in json.loads(capsys.readouterr().out)["unreadable"][0]
    assert repair(out)[0] == ["0:b.mp4"]
    assert run(videos, out).added == 1
    same(held(out), wanted(a="red 3", b="blue 2"))


@pytest.mark.parametrize("name", ["vectors.f16", "clips.bin"])
def test_verifying_a_cut_file_reports_it(index, name, capsys):
    videos, out = index
    path = out / "data_00000" / name
    path.write_bytes(path.read_bytes()[:-1])
    assert index_command.main([str(out), "--verify", "--json"]) == 1
    said = capsys.readouterr()
    assert name in json.loads(said.out)["unreadable"][0] and "--repair" in said.err
    path.unlink()
    assert index_command.main([str(out), "--verify", "--json"]) == 1
    assert name in json.loads(capsys.readouterr().out)["unreadable"][0]
    assert index_command.main([str(videos), "--verify", "--json"]) == 2  # no index at all
