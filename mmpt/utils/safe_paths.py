"""Names and paths that come out of users' files: they lead to files below their folder, and nowhere else.

An annotation, a list or a manifest is data: what it calls a video becomes the name of a file that is read or written.
Everything that makes a path of such a name does it here.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmpt.utils.errors import UnsafePathError, shown

__all__ = ["FOLLOW_LINKS", "is_plain_name", "path_below", "plain_name", "refuse_links_out"]

#: Set to 1, this variable allows links inside a folder that lead out of it (folders made of links, git-annex).
FOLLOW_LINKS = "MMPT_FOLLOW_LINKS"

_NOT_PLAIN = re.compile(r"[/\\\x00]|^\.|^$")


def is_plain_name(name: Any) -> bool:
    """Tell whether a name stays in its folder when it becomes a file name: no folders, not hidden, not empty."""
    return isinstance(name, str) and _NOT_PLAIN.search(name) is None


def plain_name(name: Any, source: str | os.PathLike[str], what: str = "a video id") -> str:
    """Return a name out of a file if it is a plain file name that can be written in UTF-8.

    Args:
        name: as it was read.
        source: the file (and line) that it was read from.
        what: what it should name.

    Raises:
        UnsafePathError: if it is anything else; names the source.
    """
    if not is_plain_name(name) or not _is_utf8(name):
        raise UnsafePathError(f"{source}: {shown(name)} is not {what}: a file name without folders was expected")
    return str(name)


def path_below(
    root: str | os.PathLike[str], name: Any, source: str | os.PathLike[str] | None = None, *, replaced: bool = False
) -> Path:
    """Return ``root / name``, where ``name`` comes out of a file and may hold sub-folders.

    Links on the way, and the file itself, must not lead out of the root (which may be a link itself), unless
    ``MMPT_FOLLOW_LINKS=1``.

    Args:
        root: the folder that the file must be in.
        name: as it was read.
        source: the file that it was read from; None: the root itself is named in errors.
        replaced: the path is about to be replaced or removed: a link there is not followed, so it may lead anywhere.

    Raises:
        UnsafePathError: if it is no text, empty, absolute, goes up (``..``), holds a NUL, or leads out through a link;
            names the source.
    """
    source = root if source is None else source
    if not isinstance(name, str) or not name or "\0" in name or os.path.isabs(name) or ".." in Path(name).parts:
        raise UnsafePathError(f"{source}: {shown(name)} is not the name of a file below {root}")
    path = Path(root, name)
    way = path.parent if replaced else path
    if (os.path.islink(way) or "/" in name) and not _stays_below(way, root):
        raise UnsafePathError(
            f"{source}: {shown(name)} leads out of {root} through a link, to {os.path.realpath(way)}. Copy the file "
            f"there, or set {FOLLOW_LINKS}=1 if you trust whoever made the link"
        )
    return path


def refuse_links_out(root: Path, also: Iterable[Path] = ()) -> None:
    """Refuse a folder that someone else made if links in it lead out of it, unless ``MMPT_FOLLOW_LINKS=1``.

    Args:
        root: the folder; may be a link itself.
        also: other folders that links may lead to.

    Raises:
        UnsafePathError: if one leads elsewhere; names it, and not where it leads.
    """
    allowed = [root, *also]
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink() and not any(_stays_below(path, one) for one in allowed):
                raise UnsafePathError(
                    f"{path}: is a link that leads out of {root}. Copy the file there, or set {FOLLOW_LINKS}=1 if you "
                    "trust whoever made the link"
                )


def _stays_below(path: Path, root: str | os.PathLike[str]) -> bool:
    real_root, real = os.path.realpath(root), os.path.realpath(path)
    return os.environ.get(FOLLOW_LINKS) == "1" or os.path.commonpath([real_root, real]) == real_root


def _is_utf8(text: str) -> bool:
    """Say whether a text can be written; JSON can name half of a pair of surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
