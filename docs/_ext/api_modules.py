"""Fill in the API pages: the comment ``<!-- modules of PACKAGE -->`` becomes a section for each public module."""

import ast
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

REPOSITORY = Path(__file__).resolve().parents[2]
PLACE = re.compile(r"^<!-- modules of ([\w.]+) -->$", re.MULTILINE)
SECTION = """
## `{module}`

```{{eval-rst}}
.. automodule:: {module}
```
"""


def public_modules(package: str) -> Iterator[str]:
    """Yield the modules of a package, subpackages too, that say in ``__all__`` what is theirs to offer.

    The wrappers of fairseq are left out: importing them needs fairseq.
    """
    folder = REPOSITORY.joinpath(*package.split("."))
    for found in pkgutil.iter_modules([str(folder)]):
        name = f"{package}.{found.name}"
        if found.ispkg:
            yield from public_modules(name)
        elif not found.name.startswith(("fairseq_", "_")) and _offers(folder / f"{found.name}.py"):
            yield name


def _offers(file: Path) -> bool:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    targets = (target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the comment of a page by its sections."""
    source[0] = PLACE.sub(
        lambda place: "".join(SECTION.format(module=module) for module in public_modules(place[1])), source[0]
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the replacement."""
    app.connect("source-read", fill_in)
    return {"parallel_read_safe": True}
