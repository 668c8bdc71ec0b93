"""Scores of generated captions against what annotators wrote: BLEU, METEOR, ROUGE-L and CIDEr, by pycocoevalcap.

BLEU (Papineni et al. 2002), METEOR (Denkowski and Lavie 2014), ROUGE-L (Lin 2004), CIDEr (Vedantam et al. 2015).
"""

import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mmpt.evaluators.base import Metric
from mmpt.evaluators.caption_tokenizers import (
    JAVA_SECONDS,
    JavaError,
    has_java,
    java_jar,
    ptb_tokenize,
    simple_tokenize,
    tokenizer_in_use,
)
from mmpt.utils.errors import ConfigError, DataError, nearest
from mmpt.utils.extras import require
from mmpt.utils.options import read_section

__all__ = ["EMPTY_CAPTION", "METRICS", "CaptionMetricOptions", "NLGMetric", "meteor"]

#: What stands for a caption without words.
EMPTY_CAPTION = "none"

#: Public names of the metrics, in the order of reports.
METRICS = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr")


@dataclass
class CaptionMetricOptions:
    """Keys of the ``eval`` section.

    ``caption_tokenizer`` is ``ptb`` (as the public benchmarks; needs Java), ``simple`` (the toolkit's own) or
    ``auto``: ptb where there is Java. ``caption_metrics`` names the metrics to compute; where it is empty, all are,
    METEOR only with Java.
    """

    caption_tokenizer: str = "auto"
    caption_metrics: list[str] = field(default_factory=list)


class NLGMetric(Metric):
    """Corpus scores of captions; the first metric is the main one (by default ``Bleu_1``).

    ``tokenizer`` among the metrics names the one that was used, because scores under different ones do not compare.
    CIDEr weighs words by how rare they are among the references of the test set: of one clip it is 0.
    """

    kind = "captions"
    config_options: ClassVar[dict[str, type]] = {"eval": CaptionMetricOptions}

    def __init__(self, config: Any = None) -> None:
        """Check what is asked for, before anything is predicted.

        Raises:
            ConfigError: if a metric or tokenizer is unknown, or needs Java and there is none.
        """
        super().__init__(config)
        options = read_section(config, "eval", CaptionMetricOptions)
        for name in options.caption_metrics:
            if name not in METRICS:
                raise ConfigError(f"eval.caption_metrics: unknown metric {name!r}.{nearest(name, METRICS)}")
        if "METEOR" in options.caption_metrics and not has_java():
            raise ConfigError(
                "eval.caption_metrics: METEOR runs in Java, and there is no java on the PATH: install a Java runtime "
                "(Debian: default-jre-headless), or leave METEOR out"
            )
        self.tokenizer = tokenizer_in_use(options.caption_tokenizer)
        self.metrics = [name for name in METRICS if name in options.caption_metrics]
        if not self.metrics:
            self.metrics = [name for name in METRICS if name != "METEOR" or has_java()]

    def compute_metrics(
        self, outputs: Sequence[str] = (), targets: Sequence[Sequence[str]] = (), ids: Sequence[str] = (), **_: Any
    ) -> dict[str, Any]:
        """Compute the scores of one caption per clip against all references of that clip.

        Args:
            outputs: captions, one per clip.
            targets: the references of each clip, one or more.
            ids: names of the clips, for messages.

        Returns:
            The metrics, ``count`` (clips), ``references`` (of all clips) and ``tokenizer``.

        Raises:
            DataError: if there are no clips, or one has no reference.
            JavaError: if a Java program fails.
            MissingExtraError: if pycocoevalcap is not installed.
        """
        if not len(outputs) or len(outputs) != len(targets):
            raise DataError(f"there are {len(outputs)} captions and references of {len(targets)} clips")
        names = [str(name) for name in ids] if len(ids) == len(outputs) else [str(row) for row in range(len(outputs))]
        said, written = self._tokenize(outputs, targets, names)
        scores = {name: value for scorer in self._scorers() for name, value in scorer(said, written)}
        metrics: dict[str, Any] = {name: scores[name] for name in self.metrics}
        references = sum(len(one) for one in written)
        return {**metrics, "count": len(said), "references": references, "tokenizer": self.tokenizer}

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return ``Bleu_1: ... - Bleu_2: ... - CIDEr: ... - tokenizer: ...``."""
        values = [f"{name}: {metrics[name]:.4f}" for name in METRICS if name in metrics]
        return " - ".join([*values, f"tokenizer: {metrics['tokenizer']}"])

    def _tokenize(
        self, outputs: Sequence[str], targets: Sequence[Sequence[str]], names: Sequence[str]
    ) -> tuple[list[str], list[list[str]]]:
        """Return captions and references as words with single spaces between them."""
        tokenize = ptb_tokenize if self.tokenizer == "ptb" else simple_tokenize
        flat = tokenize([*map(str, outputs), *(str(text) for references in targets for text in references)])
        said = [text or EMPTY_CAPTION for text in flat[: len(outputs)]]
        rest = iter(flat[len(outputs) :])
        written = []
        for name, references in zip(names, targets, strict=True):
            words = [text for text in (next(rest) for _ in references) if text]
            if not words:
                raise DataError(f"clip {name}: has no reference with a word in it ({list(references)})")
            written.append(words)
        return said, written

    def _scorers(self) -> Iterator[Any]:
        """Yield functions of captions and references that give pairs of metric and value."""
        if any(name.startswith("Bleu") for name in self.metrics):
            yield _bleu
        if "METEOR" in self.metrics:
            yield lambda said, written: [("METEOR", meteor(said, written))]
        for name, module, cls in (("ROUGE_L", "rouge.rouge", "Rouge"), ("CIDEr", "cider.cider", "Cider")):
            if name in self.metrics:
                scorer = getattr(require(f"pycocoevalcap.{module}", "caption"), cls)()
                yield lambda said, written, name=name, scorer=scorer: [
                    (name, float(scorer.compute_score(*_as_mappings(said, written))[0]))
                ]


def _as_mappings(
    said: Sequence[str], written: Sequence[Sequence[str]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Return references and captions by number, as pycocoevalcap takes them."""
    return dict(enumerate(map(list, written))), {row: [text] for row, text in enumerate(said)}


def _bleu(said: Sequence[str], written: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    scorer = require("pycocoevalcap.bleu.bleu", "caption").Bleu(4)
    values, _ = scorer.compute_score(*_as_mappings(said, written), verbose=0)
    return [(f"Bleu_{order}", float(value)) for order, value in enumerate(values, start=1)]


def meteor(said: Sequence[str], written: Sequence[Sequence[str]]) -> float:
    """Return METEOR 1.5 (English) of captions against the references of each, all as words between spaces.

    Raises:
        JavaError: if Java fails or takes longer than :data:`~mmpt.evaluators.caption_tokenizers.JAVA_SECONDS`.
        MissingExtraError: if pycocoevalcap is not installed.
    """
    package = require("pycocoevalcap.meteor.meteor", "caption")
    jar = java_jar(package.__file__, package.METEOR_JAR)
    options = ["-", "-", "-stdio", "-l", "en", "-norm"]
    with _conversation(["java", "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", str(jar), *options]) as ask:
        statistics = [
            ask(" ||| ".join(["SCORE", *(text.replace("|||", "") for text in (*references, caption))]))
            for caption, references in zip(said, written, strict=True)
        ]
        # One line per caption, then that of all.
        answers = ask(" ||| ".join(["EVAL", *statistics]), lines=len(statistics) + 1)
        try:
            return float(answers.splitlines()[-1])
        except ValueError as error:
            raise JavaError(f"METEOR (java) answered {answers[-200:]!r} instead of a number") from error


@contextmanager
def _conversation(command: Sequence[str]) -> Iterator[Any]:
    """Run a program that answers lines with lines; yields the function that asks, and ends the program in any case."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as process:
        watchdog = threading.Timer(JAVA_SECONDS, process.kill)
        watchdog.start()

        def ask(line: str, lines: int = 1) -> str:
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(line + "\n")
                process.stdin.flush()
                answers = [process.stdout.readline() for _ in range(lines)]
            except OSError as error:
                raise JavaError(f"{command[0]} ended before it answered ({error})") from error
            if not all(answers):
                raise JavaError(f"{command[0]} ended before it answered, or took longer than {JAVA_SECONDS:.0f} s")
            return "".join(answers).strip()

        try:
            yield ask
        finally:
            watchdog.cancel()
            process.kill()
            with suppress(OSError):  # what it has not read any more
                process.stdin.close()  # type: ignore[union-attr]
