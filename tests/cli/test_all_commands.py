"""What holds for every command: a mistake is one clear line, no traceback. Their examples: tests/test_readme.py."""

import json
import shlex

import pytest

from mmpt_cli.extract import KINDS
from mmpt_cli.main import available, main, module_of, own_module
from tests.api.tiny_models import write_model, write_video

COMMANDS = list(available())


def test_the_examples_of_the_overview_are_ones_that_commands_take(capsys):
    main([])
    lines = [line.strip() for line in capsys.readouterr().err.splitlines() if line.startswith("  mmpt ")]
    assert len(lines) > 3
    for line in lines:
        name, *words = shlex.split(line)[1:]
        module_of(name).build_parser().parse_args(words)


NOWHERE = ["--model", "no/such/model"]
#: Wrong calls of each command, of which one line says what is wrong.
MISTAKES = {
    "classify": [["VIDEO", "--labels", "a", *NOWHERE], ["gone.mp4", "--labels", "a", *NOWHERE]],
    "segment": [["VIDEO", "--labels", "a", *NOWHERE], ["gone.mp4", "--labels", "a", *NOWHERE]],
    "caption": [["VIDEO", *NOWHERE], ["gone.mp4", *NOWHERE]],
    "answer": [["VIDEO", "who?", *NOWHERE], ["gone.mp4", "who?", *NOWHERE]],
    "app": [["--model", "a=no/such/model", "--demo-videos", "gone"]],
    "index": [
        ["FOLDER", "--output", "new", *NOWHERE],
        ["FOLDER"],
        ["gone", "--info"],
        ["gone", "--verify"],
        ["gone", "--repair"],
    ],
    "search": [["gone", "a text"], ["FOLDER"]],
    "extract": [
        ["features", "--videos", "gone", "--fdir", "new", "--type", "conv3d", "--random-init", "0"],
        ["features", "--videos", "FOLDER", "--fdir", "new", "--weights", "gone.pth"],
        ["frames", "--videos", "gone", "--store", "new"],
    ],
    "launch": [["gone.yaml"]],
    "jobs": [["gone.yaml"]],
    "results": [["gone.yaml"], ["--runs", "gone"]],
    "report": [["gone.yaml", "--output", "r.html"]],
    "figures": [
        ["curves", "gone", "--output", "f.png"],
        ["curves", "FOLDER", "--output", "f.png"],
        ["curves", "FOLDER", "--output", "f.txt"],
        ["attention", "VIDEO", "a text", "--output", "f.png", *NOWHERE],
        ["masking", "a text", "--output", "f.png", "--draws", "0", *NOWHERE],
    ],
    "predict": [["gone.yaml"]],
    "average": [["--inputs", "gone.pt", "--output", "a.pt"], ["--last", "2", "--folder", "gone", "--output", "a.pt"]],
    "convert": [["gone.pt", "out.safetensors"]],
    "weights": [["verify", "--root", "gone"], ["verify", "nothing"], ["list", "--system", "violett"]],
    "capabilities": [["captoin"], NOWHERE],
    "doctor": [],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a folder of one file that is no video."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    return {"VIDEO": "videos/broken.mp4", "FOLDER": "videos"}


@pytest.mark.parametrize(("name", "words"), [(name, words) for name in COMMANDS for words in MISTAKES[name]])
def test_a_mistake_is_one_line(place, capsys, name, words):
    assert main([name, *(place.get(word, word) for word in words)]) == 2
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in told.err and not told.out


#: Commands that print no results.
WITHOUT_JSON = {"figures"}


@pytest.mark.parametrize("name", sorted(name for name in COMMANDS if MISTAKES[name] and name not in WITHOUT_JSON))
def test_with_json_an_error_is_the_one_document(place, capsys, name):
    for words in (*MISTAKES[name], [*MISTAKES[name][0], "--hopla"], ["--hopla"]):
        try:
            code = main([name, *(place.get(word, word) for word in words), "--json"])
        except SystemExit as left:
            code = left.code
        told = capsys.readouterr()
        document = json.loads(told.out)
        assert document == {"error": document["error"], "exit_code": code} and code == 2
        assert f"error: {document['error']}" in told.err


def test_an_unknown_command_with_json(capsys):
    assert main(["clasify", "--json"]) == 2
    assert "Did you mean 'classify'?" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_written_out(name):
    parsers = [module_of(name).build_parser()]
    if name == "extract":
        parsers = [own_module(module).build_parser() for module, _ in KINDS.values()]
    for parser in parsers:
        for action in parser._actions:
            parsers += action.choices.values() if hasattr(action, "_name_parser_map") else []
        assert not parser.allow_abbrev


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"app", "doctor", "weights", "capabilities"}))
def test_without_arguments_usage_and_one_line(place, capsys, name):
    with pytest.raises(SystemExit) as left:
        main([name])
    told = capsys.readouterr()
    assert (left.value.code, told.out) == (2, "")
    assert told.err.startswith(f"usage: mmpt {name}") and told.err.splitlines()[-1].startswith(f"mmpt {name}: error: ")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny LAVENDERs, one that matches and one that writes, and a good video beside a broken one."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("models")
    (folder / "videos").mkdir()
    write_video(folder / "videos" / "a.mp4", 4.0, sound=False)
    (folder / "videos" / "broken.mp4").write_bytes(b"no video")
    for name, aligner in (("matching", "LAVENDERRetrievalAligner"), ("writing", "LAVENDERCaptioningAligner")):
        (folder / name).mkdir()
        write_model(folder / name, "LAVENDER", {"aligner": aligner})
    return folder


CALLS = {
    "classify": ["--labels", "w1", "w2", "--model", "matching/LAVENDER"],
    "segment": ["--labels", "w1", "w2", "--model", "matching/LAVENDER"],
    "caption": ["--model", "writing/LAVENDER"],
}
MADE = {"classify": "labels", "segment": "spans", "caption": "caption"}


@pytest.mark.parametrize("name", CALLS)
def test_a_real_model_on_a_good_and_a_broken_video(models, capsys, name):
    *given, model = CALLS[name]
    assert main([name, str(models / "videos"), *given, str(models / model), "--json", "--device", "cpu"]) == 1
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["system"], len(document["results"])) == ("LAVENDER", 1) and document["results"][0][MADE[name]]
    (error,) = document["errors"]
    assert error["video"].endswith("broken.mp4") and "not a video" in error["error"]
    assert told.err.count("broken.mp4") == 1


def test_figures_of_a_real_model(models, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    model = ["--model", str(models / "matching/LAVENDER"), "--device", "cpu"]
    video, broken = str(models / "videos" / "a.mp4"), str(models / "videos" / "broken.mp4")
    for kind in (["attention", video, "w3 w4"], ["masking", "w3 w4"], ["similarity", video, "--texts", "w3", "w4"]):
        file = tmp_path / f"{kind[0]}.svg"
        assert main(["figures", *kind, "--output", str(file), *model]) == 0
        assert file.read_bytes().startswith(b"<?xml") and capsys.readouterr().out == f"wrote {file}\n"
    subwords = ["--model", str(write_model(tmp_path, "MERLOTPretraining")), "--output", str(tmp_path / "subwords.svg")]
    assert main(["figures", "masking", "a red star", "--device", "cpu", *subwords]) == 0
    capsys.readouterr()
    assert main(["figures", "attention", broken, "w3", "--output", str(tmp_path / "none.png"), *model]) == 2
    assert "broken.mp4: not a video" in capsys.readouterr().err and not (tmp_path / "none.png").exists()


def test_a_real_model_chooses_and_says_what_it_cannot(models, tmp_path, capsys):
    model = ["--model", str(models / "matching/LAVENDER"), "--device", "cpu"]
    question = ["answer", str(models / "videos" / "a.mp4"), "w3?", *model, "--options", "w1"]
    assert main([*question, "w2", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert {answer["text"] for answer in result["answers"]} == {"w1", "w2"}
    assert sum(answer["probability"] for answer in result["answers"]) == pytest.approx(1)
    index = ["index", str(models / "videos"), "--output", str(tmp_path / "new"), *model]
    for wrong, said in (([*question, "w1"], "more than once"), (index, "Systems that have ")):
        assert main(wrong) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line


@pytest.mark.parametrize(
    ("kind", "output", "words"),
    [
        ("frames", "--store", ["--frames", "2"]),
        ("features", "--fdir", ["--type", "conv3d", "--dim", "4", "--device", "cpu"]),
    ],
)
def test_extraction_tells_what_it_did_as_json(models, tmp_path, capsys, kind, output, words):
    given = ["--videos", str(models / "videos"), "--quiet", "--json"]
    assert main(["extract", kind, output, str(tmp_path / kind), *words, *given]) == 1
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["done"], document["failed"]) == (1, 1)
    assert told.err.splitlines() == ["error: 50% of the videos failed, --max-failed is 10%"]
