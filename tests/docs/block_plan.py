"""How a test treats each command of the pages: it runs it, or does what there is to do without hours or a cluster."""

import re
import shlex
from dataclasses import dataclass

from tests.test_readme import PYTHONS, Command, script_of

#: Why commands are not run as they stand, and what the tests do instead. Pages name these classes.
REASONS = {
    "installing": "changes the machine: packages, an environment, the shell; its form is checked",
    "make": "takes minutes, or runs these tests; `tests/test_readme.py` has `make -n` say what it would do",
    "training": "trains, or tests a model on a real corpus; the tests run it with `--dryrun`, and "
    "`tests/launch/test_one_step.py` takes a step of each shipped job on tiny data",
    "cluster": "needs several processes or a cluster; its flags are checked, and `tests/slurm` runs such",
    "minutes": "benchmarks, studies and whole demo corpora take minutes; flags are checked",
    "published files": "reads files of which no small copy is here; another test runs the script on made-up ones",
    "weights": "needs published weights at their full size; another test runs the calls on tiny ones",
}
#: Scripts that read published files -> the test that runs them on small ones of the same layout.
ELSEWHERE = {
    "import_tfrecords.py": "tests/store/test_tfrecord_pretraining.py",
    "import_annotations.py": "tests/store/test_annotation_imports.py",
    "cut_windows.py": "tests/api/test_reserve_windows.py",
    "extract_vq.py": "tests/scripts/test_extract_vq.py",
    "import_vq.py": "tests/scripts/test_extract_vq.py",
    "filter_test_videos.py": "tests/scripts/test_filter_test_videos.py",
    "mmpt_cli.results": "tests/cli/test_report_cli.py",
    "mmpt_cli.report": "tests/cli/test_report_cli.py",
    "convert": "tests/cli/test_convert_cli.py",
    "fetch": "tests/cli/test_weights_cli.py",
}
_MINUTES = re.compile(r"scripts/(benchmarks|studies)/(?!scaling_plan)|scripts/demo_corpus/generate")
_SHELL = ("sudo", "git", "source", "pip", ".venv/bin/pip", "pytest")


@dataclass(frozen=True)
class Plan:
    """What a test does with a command.

    Attributes:
        reason: of :data:`REASONS`; None for a command that is run as it stands.
        runs: it is run, though perhaps as a dry run.
        test: another test that runs its script.
    """

    reason: str | None = None
    runs: bool = True
    test: str | None = None


def plan_of(command: Command) -> Plan:
    """Return what to do with a command."""
    argv, script = command.argv, script_of(command)
    text, program = shlex.join(argv), argv[0].removeprefix(".venv/bin/")
    if program == "make":
        return Plan("make", runs=False)
    if program in _SHELL or argv[0] in _SHELL or script == ("-m", "venv"):
        return Plan("installing", runs=False)
    if program in ("torchrun", "fairseq-train"):
        return Plan("cluster" if program == "torchrun" else "training", runs=False)
    if "locallaunch.py" in text or argv[:2] == ("mmpt", "launch"):
        return Plan(None if "--dryrun" in argv or "--cancel" in argv else "training")
    if program == "mmpt" and argv[1] == "weights" and "fetch" not in argv:
        return Plan()
    if program == "mmpt" and "--compare" in argv:
        return Plan("training", runs=False)
    if _MINUTES.search(text):
        return Plan("minutes", runs=False)
    for name, test in ELSEWHERE.items():
        if any(word == name or word.endswith(f"/{name}") for word in argv):
            return Plan("published files", runs=False, test=test)
    assert program == "mmpt" or argv[0] in PYTHONS, f"{command}: what is this?"
    return Plan()
