"""Words of captions, as their scores compare them: by the Penn Treebank tokenizer, or by a small one without Java.

Both put everything in lower case, split contractions (``don't`` is ``do n't``) and leave punctuation out, as the
public caption benchmarks do (Chen et al. 2015, arXiv:1504.00325, section 3).
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mmpt.utils.errors import ConfigError, MMPTError
from mmpt.utils.extras import require

__all__ = ["JAVA_SECONDS", "JavaError", "has_java", "java_jar", "ptb_tokenize", "simple_tokenize", "tokenizer_in_use"]

#: How long one Java program may take, in seconds.
JAVA_SECONDS = 600.0

TOKENIZERS = ("auto", "ptb", "simple")

_WORD = re.compile(
    r"""
    (?:[^\W\d_]\.){2,}                    # u.s.
    | \d+(?:[.,:/]\d+)+                   # 1.5, 1/2, 1,000
    | [^\W_]+(?:(?:[-/_&]|['’])[^\W_]+)*  # words, deep-fried, don't
    | [^\w\s]                             # every other sign
    """,
    re.VERBOSE,
)
_CONTRACTION = re.compile(r"(n['’]t|['’](?:s|m|d|ll|re|ve))$")
_PUNCTUATION = frozenset("'`\".?!,:;-–—…‘’“”()[]{}_")


class JavaError(MMPTError):
    """Report a Java program that failed, ran out of time, or said something unexpected."""


def has_java() -> bool:
    """Say whether there is a ``java`` to run."""
    return shutil.which("java") is not None


def tokenizer_in_use(name: str) -> str:
    """Return ``"ptb"`` or ``"simple"`` for a value of ``eval.caption_tokenizer``; auto depends on Java.

    Raises:
        ConfigError: if the name is unknown, or ptb is asked for and there is no Java.
    """
    if name not in TOKENIZERS:
        raise ConfigError(f"eval.caption_tokenizer: {name!r} is none of {', '.join(TOKENIZERS)}")
    if name == "ptb" and not has_java():
        raise ConfigError(
            "eval.caption_tokenizer: ptb is the Penn Treebank tokenizer, which runs in Java, and there is no java on "
            "the PATH: install a Java runtime (Debian: default-jre-headless), or set simple"
        )
    return name if name != "auto" else "ptb" if has_java() else "simple"


def simple_tokenize(texts: Sequence[str]) -> list[str]:
    """Return texts as words with single spaces between them.

    A word is a run of letters and digits, also over inner hyphens, slashes and apostrophes; numbers keep their
    points and fractions. Contractions are split and punctuation is left out, brackets too; other signs (%, &, $) are
    words of their own. On plain English this is what :func:`ptb_tokenize` gives; that one knows abbreviations (mr.)
    and slang (gonna) and makes words of brackets (-lrb-).
    """
    return [" ".join(word for match in _WORD.finditer(text.lower()) for word in _parts(match[0])) for text in texts]


def _parts(token: str) -> list[str]:
    if token in _PUNCTUATION:
        return []
    if token == "cannot":
        return ["can", "not"]
    found = _CONTRACTION.search(token)
    if found and found.start():
        return [token[: found.start()], found[1].replace("’", "'")]
    return [token]


def ptb_tokenize(texts: Sequence[str]) -> list[str]:
    """Return texts as the words of Stanford's Penn Treebank tokenizer, the one of the public caption benchmarks.

    Raises:
        JavaError: if Java fails or takes longer than :data:`JAVA_SECONDS`.
        MissingExtraError: if pycocoevalcap is not installed.
    """
    package = require("pycocoevalcap.tokenizer.ptbtokenizer", "caption")
    jar = java_jar(package.__file__, package.STANFORD_CORENLP_3_4_1_JAR)
    command = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    # One line per text, whatever ends lines in Java.
    lines = "".join(" ".join(text.split()) + "\n" for text in texts)
    try:
        done = subprocess.run(
            ["java", "-Dfile.encoding=UTF-8", *command, "-encoding", "UTF-8"],
            input=lines.encode(),
            capture_output=True,
            timeout=JAVA_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JavaError(f"the Penn Treebank tokenizer (java) did not finish: {error}") from error
    tokenized = done.stdout.decode(errors="replace").split("\n")[:-1]
    if done.returncode or len(tokenized) != len(texts):
        problem = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise JavaError(
            f"the Penn Treebank tokenizer (java) gave {len(tokenized)} lines for {len(texts)} captions, exit code "
            f"{done.returncode}: {problem[0]}. eval.caption_tokenizer: simple does without it"
        )
    punctuation = set(package.PUNCTUATIONS)
    return [" ".join(word for word in line.split() if word not in punctuation) for line in tokenized]


def java_jar(module_file: str | None, name: str) -> Path:
    """Return the path of a Java archive that lies beside a module of pycocoevalcap.

    Raises:
        JavaError: if it is not there.
    """
    path = Path(module_file or "").with_name(name)
    if not path.is_file():
        raise JavaError(f"{path}: no such file; install pycocoevalcap again: pip install 'mmpt[caption]'")
    return path
