"""scripts/tokenizers/train.py."""

from pathlib import Path

import pytest

from mmpt.utils.subwords import load_subwords
from scripts.tokenizers.train import main, texts_of


def test_transcripts_and_lines_become_a_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "b.json").write_text(
        '{"title": "Kuchen", "subtitles": [{"word": "mix", "time": 1}], "denoised": [{"cleanasr": "Mix!"}]}'
    )
    (tmp_path / "t" / "a.en.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nmix it\n")
    (tmp_path / "more.txt").write_text("mix mix\nit\n")
    paths = [str(tmp_path / "t"), str(tmp_path / "more.txt")]
    assert list(texts_of(paths)) == ["mix it", "mix", "Mix!", "Kuchen", "mix mix", "it"]
    output = tmp_path / "out"
    arguments = ["--kind", "reserve", "--texts", *paths, "--output", str(output), "--vocab-size", "300"]
    assert main(arguments) == 0
    subwords = load_subwords(str(output))
    assert f"{subwords.vocab_size} ids" in capsys.readouterr().out
    assert len(subwords.encode("mix")) == 1


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--kind", "merlot", "--output", str(tmp_path), "--texts"]
    assert main([*arguments, str(tmp_path / "none")]) == 2
    assert main([*arguments, str(tmp_path / "none.txt")]) == 2
    assert capsys.readouterr().err.count("error: ") == 2
