"""Write docs/configuration_reference.md and docs/registered_names.md from the schema and the registry.

python scripts/docs/configuration_reference.py            # writes both
python scripts/docs/configuration_reference.py --check    # exit code 1 where a page is not what this writes
"""

import argparse
import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.utils.files import REPOSITORY, atomic_open
from mmpt.utils.registry import known_names, resolve, resolve_class
from mmpt.utils.registry_table import TABLE
from mmpt.utils.schema import CORE_KEYS, CORE_SECTIONS, NAMED_BY, declared_options

_KEYS_PAGE = "docs/configuration_reference.md"
_NAMES_PAGE = "docs/registered_names.md"
_NOTE = "Made by `python scripts/docs/configuration_reference.py` from the code; edit the docstrings there.\n"
_KEYS_HEAD = f"""# All keys

{_NOTE}
What the keys are for: [configuration](configuration.md). A key is read where the YAML names one of the classes in the
last column; `every job` reads the others. The flags of `fairseq:` are those of `fairseq-train --help`.
"""
_NAMES_HEAD = f"""# All names

{_NOTE}
A YAML takes one of these names, or `package.module:Class` of your own ([extending](extending.md)). A preset is what the
name sets of the class' own arguments.
"""


@dataclasses.dataclass(frozen=True)
class Key:
    """One key as one dataclass of options declares it."""

    type: str
    default: str
    text: str
    readers: tuple[str, ...]


def type_text(annotation: Any) -> str:
    """Return a type as the page shows it: ``int``, ``list[str]``, ``float or empty``."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        parts = [type_text(part) for part in typing.get_args(annotation) if part is not types.NoneType]
        optional = types.NoneType in typing.get_args(annotation)
        return " or ".join([*parts, *(["empty"] if optional else [])])
    if annotation is Any:
        return "any"
    return str(annotation) if typing.get_origin(annotation) else getattr(annotation, "__name__", str(annotation))


def default_text(field: dataclasses.Field[Any]) -> str:
    """Return a default as YAML writes it; ``required`` where there is none."""
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is dataclasses.MISSING:
        return "required"
    else:
        value = field.default
    if value is None or value == "???":
        return "empty" if value is None else "required"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value != "" else "empty"


def attribute_texts(options: type) -> dict[str, str]:
    """Return what the section ``Attributes`` of the docstrings says of each field, of base classes too."""
    found: dict[str, str] = {}
    for cls in reversed(options.__mro__):
        section = re.search(r"^Attributes:\n(.*?)(?:^\S|\Z)", inspect.cleandoc(cls.__doc__ or ""), re.M | re.S)
        for entry in re.finditer(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.M):
            found[entry[1]] = " ".join(entry[2].split())
    return found


def defining_class(options: type, name: str) -> type:
    """Return the class of the inheritance that declares a field last."""
    return next(cls for cls in options.__mro__ if name in inspect.get_annotations(cls))


def summary(cls: type) -> str:
    """Return the first sentences of a docstring, up to a blank line, in one line."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split())


def markdown(text: str) -> str:
    """Return a docstring's text as a cell of a table: roles and double backticks become code."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return re.sub(r"``(.+?)``", r"`\1`", text).replace("|", "\\|").replace("<", "&lt;")


def registered() -> Iterator[tuple[str, str]]:
    """Yield (kind, name) of everything that a config can name."""
    for kind in sorted(set(NAMED_BY.values())):
        yield from ((kind, name) for name in known_names(kind) if name in TABLE[kind])


def declared_keys() -> dict[str, dict[str, list[Key]]]:
    """Return section -> key -> its declarations, each with the names of the classes that read it."""
    readers: dict[tuple[str, type, str], set[str]] = {}
    for kind, name in registered():
        for section, options in declared_options(kind, name).items():
            for field in dataclasses.fields(options) if dataclasses.is_dataclass(options) else ():
                readers.setdefault((section, options, field.name), set()).add(resolve_class(kind, name).__name__)
    for section, name in CORE_SECTIONS.items():
        options = resolve_class("section", name)
        for field in dataclasses.fields(options):
            readers[section, options, field.name] = {"every job"}
    return _merged(readers)


def _merged(readers: dict[tuple[str, type, str], set[str]]) -> dict[str, dict[str, list[Key]]]:
    """Join declarations of a key that differ in nothing but their readers."""
    joined: dict[tuple[str, str, str, str, str], set[str]] = {}
    for (section, options, name), classes in readers.items():
        fields = {field.name: field for field in dataclasses.fields(options)}
        text = attribute_texts(options).get(name) or summary(defining_class(options, name))
        shown = type_text(typing.get_type_hints(options)[name]), default_text(fields[name])
        joined.setdefault((section, name, *shown, text), set()).update(classes)
    keys: dict[str, dict[str, list[Key]]] = {}
    for (section, name, kind, default, text), classes in sorted(joined.items()):
        keys.setdefault(section, {}).setdefault(name, []).append(Key(kind, default, text, tuple(sorted(classes))))
    return keys


def keys_page() -> str:
    """Return the page of all keys."""
    declared = declared_keys()
    parts = [_KEYS_HEAD]
    for section in [*CORE_KEYS, *sorted(set(declared) - set(CORE_KEYS))]:
        parts.append(f"\n## {f'`{section}`' if section else 'Top level'}\n")
        parts.append("| key | type | default | what | read by |\n|---|---|---|---|---|")
        core, own = CORE_KEYS.get(section, {}), declared.get(section, {})
        for name in sorted({*core, *own}):
            parts += _rows(name, core.get(name), own.get(name, []))
    return "\n".join(parts) + "\n"


def _rows(name: str, core: str | None, declarations: list[Key]) -> Iterator[str]:
    if core is not None:
        first = declarations[0] if declarations else None
        kind, default = (first.type.replace("|", "\\|"), first.default) if first else ("", "")
        yield f"| `{name}` | {kind} | {default} | {markdown(core)} | every job |"
        return
    for key in declarations:
        shown = key.type.replace("|", "\\|"), key.default.replace("|", "\\|"), markdown(key.text)
        readers = ", ".join(reader if " " in reader else f"`{reader}`" for reader in key.readers)
        yield f"| `{name}` | {' | '.join(shown)} | {readers} |"


def names_page() -> str:
    """Return the page of all registered names."""
    parts = [_NAMES_HEAD]
    for kind, entries in TABLE.items():
        keys = [f"`{key}`" for key, named in NAMED_BY.items() if named == kind]
        parts.append(f"\n## {kind}\n\nNamed by {', '.join(keys) or '`--type` of `extract.py`'}.\n")
        parts.append("| name | class | preset | |\n|---|---|---|---|")
        for name in sorted(entries):
            cls = resolve_class(kind, name)
            preset = getattr(resolve(kind, name), "keywords", {})
            shown = ", ".join(f"`{key}={value!r}`" for key, value in preset.items())
            parts.append(f"| `{name}` | `{entries[name].target}` | {shown} | {markdown(summary(cls))} |")
    return "\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the pages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is out of date")
    check = parser.parse_args(arguments).check
    stale = []
    for page, text in ((_KEYS_PAGE, keys_page()), (_NAMES_PAGE, names_page())):
        path = Path(REPOSITORY) / page
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(page)
        if not check:
            with atomic_open(path, "w") as file:
                file.write(text)
    print(
        "\n".join(f"{page}: {'out of date' if check else 'written'}" for page in stale) or "both pages are up to date"
    )
    return int(bool(stale) and check)


if __name__ == "__main__":
    sys.exit(main())
