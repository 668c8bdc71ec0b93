"""Caption scores against worked examples and an independent computation, with and without Java."""

import math
import os
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.evaluators import caption_metrics, caption_tokenizers
from mmpt.evaluators.caption_metrics import METRICS, NLGMetric, meteor
from mmpt.evaluators.caption_tokenizers import JavaError, has_java, ptb_tokenize, simple_tokenize, tokenizer_in_use
from mmpt.utils.errors import ConfigError, DataError

pytest.importorskip("pycocoevalcap.bleu.bleu")
needs_java = pytest.mark.skipif(not has_java(), reason="no java here")

SAID = ["cut the onion and fry it", "add salt to the pan", "serve"]
WITHOUT_JAVA = [name for name in METRICS if name != "METEOR"]
WRITTEN = [["cut the onion then fry it"], ["add some salt", "add salt to the hot pan"], ["serve the dish"]]


def simple(**options) -> NLGMetric:
    return NLGMetric({"eval": {"caption_tokenizer": "simple", **options}})


def grams(text: str, order: int) -> Counter:
    words = text.split()
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def bleu(said: list[str], written: list[list[str]], highest: int) -> float:
    """Papineni et al. 2002, equations 1 to 3, with the closest reference length."""
    logs = []
    for order in range(1, highest + 1):
        right = total = 0
        for caption, references in zip(said, written, strict=True):
            counts = grams(caption, order)
            for gram, count in counts.items():
                right += min(count, max(grams(reference, order)[gram] for reference in references))
            total += counts.total()
        logs.append(math.log(right / total) if right else -math.inf)
    said_words = sum(len(caption.split()) for caption in said)
    closest = 0
    for caption, references in zip(said, written, strict=True):
        lengths = [len(reference.split()) for reference in references]
        own = len(caption.split())
        closest += min((abs(length - own), length) for length in lengths)[1]
    return math.exp(min(0.0, 1 - closest / said_words)) * math.exp(sum(logs) / highest)


def common(one: list[str], other: list[str]) -> int:
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return 1 + common(one[:-1], other[:-1])
    return max(common(one[:-1], other), common(one, other[:-1]))


def rouge_l(said: list[str], written: list[list[str]]) -> float:
    """Lin 2004, section 2.2, with the best precision and recall over references and beta 1.2."""
    values = []
    for caption, references in zip(said, written, strict=True):
        shared = [common(caption.split(), reference.split()) for reference in references]
        precision = max(shared) / len(caption.split())
        recall = max(length / len(reference.split()) for length, reference in zip(shared, references, strict=True))
        values.append((1 + 1.44) * precision * recall / (recall + 1.44 * precision) if max(shared) else 0.0)
    return sum(values) / len(values)


def cider(said: list[str], written: list[list[str]]) -> float:
    """CIDEr-D of Vedantam et al. 2015, section 3 and appendix: sigma 6, times 10."""

    def weights(text: str, order: int) -> dict:
        found = {}
        for gram, count in grams(text, order).items():
            documents = sum(any(gram in grams(text, order) for text in references) for references in written)
            found[gram] = count * math.log(len(written) / max(1, documents))
        return found

    values = []
    for caption, references in zip(said, written, strict=True):
        for reference in references:
            gap = grams(caption, 2).total() - grams(reference, 2).total()
            for order in range(1, 5):
                own, other = weights(caption, order), weights(reference, order)
                norm = math.sqrt(sum(w * w for w in own.values()) * sum(w * w for w in other.values()))
                dot = sum(min(w, other.get(gram, 0.0)) * other.get(gram, 0.0) for gram, w in own.items())
                similarity = dot / norm if norm else 0.0
                values.append(10 * similarity * math.exp(-(gap**2) / 72) / 4 / len(references))
    return sum(values) / len(said)


def test_scores_equal_an_independent_computation() -> None:
    metrics = simple(caption_metrics=WITHOUT_JAVA).compute_metrics(SAID, WRITTEN)
    for order in range(1, 5):
        assert metrics[f"Bleu_{order}"] == pytest.approx(bleu(SAID, WRITTEN, order), rel=1e-6)
    assert metrics["ROUGE_L"] == pytest.approx(rouge_l(SAID, WRITTEN), rel=1e-9)
    assert metrics["CIDEr"] == pytest.approx(cider(SAID, WRITTEN), rel=1e-9)
    assert next(iter(metrics)) == "Bleu_1"
    assert {name: metrics[name] for name in ("count", "references", "tokenizer")} == {
        "count": 3,
        "references": 4,
        "tokenizer": "simple",
    }


WORD = st.sampled_from(["add", "salt", "the", "pan", "it"])
TEXT = st.lists(WORD, min_size=1, max_size=6).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(clips=st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_scores_of_any_captions_equal_an_independent_computation(clips) -> None:
    said, written = [caption for caption, _ in clips], [references for _, references in clips]
    metrics = simple(caption_metrics=["Bleu_2", "ROUGE_L", "CIDEr"]).compute_metrics(said, written)
    assert list(metrics)[:3] == ["Bleu_2", "ROUGE_L", "CIDEr"]
    # The library puts a millionth for a precision of nothing out of nothing, under a square root.
    assert metrics["Bleu_2"] == pytest.approx(bleu(said, written, 2), rel=1e-5, abs=1.1e-3)
    assert metrics["ROUGE_L"] == pytest.approx(rouge_l(said, written), rel=1e-9)
    assert metrics["CIDEr"] == pytest.approx(cider(said, written), rel=1e-9, abs=1e-12)


def test_worked_example() -> None:
    """One caption of 5 words, 4 of them in the reference of 4: brevity 1, precision 4/5; pairs 3/4."""
    metrics = simple(caption_metrics=WITHOUT_JAVA).compute_metrics(["mix the eggs and milk"], [["mix the eggs and"]])
    assert metrics["Bleu_1"] == pytest.approx(4 / 5) and metrics["Bleu_2"] == pytest.approx(math.sqrt(4 / 5 * 3 / 4))
    precision, recall = 4 / 5, 1.0
    assert metrics["ROUGE_L"] == pytest.approx(2.44 * precision * recall / (recall + 1.44 * precision))
    assert metrics["CIDEr"] == 0.0  # of one clip


def test_case_and_punctuation_do_not_count_and_an_empty_caption_is_a_word() -> None:
    one = simple(caption_metrics=["Bleu_1", "ROUGE_L"])
    assert one.compute_metrics(["Cut it."], [["cut it!"]])["Bleu_1"] == pytest.approx(1.0)
    assert one.compute_metrics(["...", "cut"], [["cut"], ["cut"]])["ROUGE_L"] == pytest.approx(0.5)
    assert one.compute_metrics([""], [["none"]])["Bleu_1"] == pytest.approx(1.0)
    # A reference without a word is no reference.
    assert one.compute_metrics(["cut"], [["cut", "!"]])["references"] == 1


def test_what_cannot_be_measured_is_refused() -> None:
    metric = simple()
    with pytest.raises(DataError, match="0 captions"):
        metric.compute_metrics([], [])
    with pytest.raises(DataError, match="2 captions and references of 1 clips"):
        metric.compute_metrics(["a", "b"], [["a"]])
    with pytest.raises(DataError, match="clip abc_1_2: has no reference"):
        metric.compute_metrics(["a"], [["?!"]], ids=["abc_1_2"])
    with pytest.raises(ConfigError, match=r"eval\.caption_metrics: unknown metric 'Bleu4'.*'Bleu_4'"):
        simple(caption_metrics=["Bleu4"])
    with pytest.raises(ConfigError, match=r"eval\.caption_tokenizer: 'pbt' is none of auto, ptb, simple"):
        NLGMetric({"eval": {"caption_tokenizer": "pbt"}})


def test_the_console_line_names_the_tokenizer() -> None:
    metric = simple(caption_metrics=["CIDEr", "Bleu_1"])
    line = metric.print_computed_metrics(metric.compute_metrics(SAID, WRITTEN))
    assert line.startswith("Bleu_1: 0.") and line.endswith("tokenizer: simple") and " - CIDEr: " in line


def test_nothing_is_printed(capfd) -> None:
    NLGMetric({"eval": {"caption_metrics": WITHOUT_JAVA}}).compute_metrics(SAID, WRITTEN)
    assert capfd.readouterr() == ("", "")


def test_without_java_what_needs_it_is_named_and_the_rest_is_computed(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not has_java() and tokenizer_in_use("auto") == "simple"
    with pytest.raises(ConfigError, match=r"METEOR runs in Java, and there is no java on the PATH"):
        NLGMetric({"eval": {"caption_metrics": ["METEOR"]}})
    with pytest.raises(ConfigError, match=r"eval\.caption_tokenizer: ptb .* runs in Java"):
        NLGMetric({"eval": {"caption_tokenizer": "ptb"}})
    metrics = NLGMetric({}).compute_metrics(SAID, WRITTEN)
    assert metrics["tokenizer"] == "simple" and set(METRICS) - set(metrics) == {"METEOR"}
    with pytest.raises(JavaError, match="did not finish"):
        ptb_tokenize(["a"])


PLAIN = [
    "Cut the onion, then fry it.",
    "Don't stir; it's hot! I'll wait. They've gone, we're here.",
    "Add 1/2 cup of salt-and-pepper mix and 1,000 g of $5 beer & 20% cream",
    "cannot cook at 12:30 in the U.S. kitchen ...",
    "the chef’s knife — “sharp”",
    "crème brûlée with jalapeño and/or deep-fried 3-4 minutes",
    "  two\u2028lines\nand\ttabs ",
    "",
    "!",
]


def test_words_of_the_own_tokenizer() -> None:
    assert simple_tokenize(PLAIN) == [
        "cut the onion then fry it",
        "do n't stir it 's hot i 'll wait they 've gone we 're here",
        "add 1/2 cup of salt-and-pepper mix and 1,000 g of $ 5 beer & 20 % cream",
        "can not cook at 12:30 in the u.s. kitchen",
        "the chef 's knife sharp",
        "crème brûlée with jalapeño and/or deep-fried 3-4 minutes",
        "two lines and tabs",
        "",
        "",
    ]
    assert simple_tokenize(["stir (gently) [again] {x}"]) == ["stir gently again x"]


@needs_java
def test_both_tokenizers_agree_on_plain_english() -> None:
    assert ptb_tokenize(PLAIN) == simple_tokenize(PLAIN)
    assert ptb_tokenize([]) == []
    metrics = NLGMetric({"eval": {"caption_metrics": ["Bleu_1"]}}).compute_metrics(SAID, WRITTEN)
    assert metrics["tokenizer"] == "ptb"


@needs_java
@pytest.mark.slow
def test_meteor_is_that_of_the_public_wrapper(monkeypatch) -> None:
    module = pytest.importorskip("pycocoevalcap.meteor.meteor")
    wrapper = module.Meteor()
    try:
        wanted, _ = wrapper.compute_score(dict(enumerate(WRITTEN)), {row: [text] for row, text in enumerate(SAID)})
    finally:
        wrapper.meteor_p.kill()
        for stream in (wrapper.meteor_p.stdout, wrapper.meteor_p.stderr):
            stream.close()
    called = []  # each call starts a Java that reads its paraphrases for seconds

    def recorded(said, written) -> float:
        called.append((list(said), list(map(list, written)), meteor(said, written)))
        return called[-1][-1]

    monkeypatch.setattr(caption_metrics, "meteor", recorded)
    metrics = NLGMetric({"eval": {"caption_metrics": ["METEOR"]}}).compute_metrics(SAID, WRITTEN)
    assert metrics["METEOR"] == pytest.approx(wanted, abs=1e-9) and 0 < wanted < 1
    assert called == [(SAID, WRITTEN, metrics["METEOR"])]


def fake_java(folder: Path, monkeypatch, body: str) -> None:
    program = folder / "java"
    program.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('no memory')", "exit code 1: no memory"),
        ("print('one line')", "1 lines for 2 captions"),
        ("time.sleep(60)", "did not finish"),
    ],
)
def test_a_tokenizer_that_fails_is_an_error(tmp_path, monkeypatch, body: str, message: str) -> None:
    fake_java(tmp_path, monkeypatch, body)
    monkeypatch.setattr(caption_tokenizers, "JAVA_SECONDS", 1.0 if "sleep" in body else 20.0)
    with pytest.raises(JavaError, match=message):
        ptb_tokenize(["a", "b"])


ANSWERS = "for line in sys.stdin:\n    print({}, flush=True)"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit(1)", "ended before it answered"),
        ("sys.stdin.readline(); print('1 2', flush=True)", "ended before it answered"),
        (ANSWERS.format("'what?\\n' * 4"), "instead of a number"),
        ("time.sleep(60)", "took longer than 1 s"),
    ],
)
def test_a_meteor_that_fails_is_an_error_and_its_process_ends(tmp_path, monkeypatch, body: str, message: str) -> None:
    fake_java(tmp_path, monkeypatch, body)
    monkeypatch.setattr(caption_metrics, "JAVA_SECONDS", 1.0 if "sleep" in body else 20.0)
    started: list[subprocess.Popen] = []
    popen = subprocess.Popen

    def starting(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(caption_metrics.subprocess, "Popen", starting)
    with pytest.raises(JavaError, match=message):
        meteor(SAID * 2, WRITTEN * 2)
    assert len(started) == 1 and started[0].returncode is not None
    assert started[0].stdin.closed and started[0].stdout.closed
