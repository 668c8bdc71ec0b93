"""The files that the page plays: each under a token that nobody can guess, each below a folder that is the page's."""

import os
import secrets
import threading
from pathlib import Path

from mmpt.utils.errors import DataError, UnsafePathError

__all__ = ["Shelf"]


class Shelf:
    """Tokens of files below the folders that may be served; a browser names a token, never a path."""

    def __init__(self, *roots: str | os.PathLike[str]) -> None:
        self.roots = tuple(os.path.realpath(root) for root in roots)
        self._paths: dict[str, Path] = {}
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, path: str | os.PathLike[str], name: str) -> str:
        """Return the token of a file that the person calls ``name``.

        Raises:
            UnsafePathError: if the file, links followed, is outside of the folders.
        """
        self._check(path, name)
        with self._lock:
            token = self._tokens.setdefault(os.path.abspath(path), secrets.token_urlsafe(18))
            self._paths[token] = Path(path)
        return token

    def path_of(self, token: str) -> Path:
        """Return the file of a token; looks anew at where it leads.

        Raises:
            DataError: if there is no such token, or the file is gone.
            UnsafePathError: if it leads out of the folders by now.
        """
        path = self._paths.get(token)
        if path is None or not path.is_file():
            raise DataError("this video is not here any more: choose or upload it again")
        self._check(path, path.name)
        return path

    def _check(self, path: str | os.PathLike[str], name: str) -> None:
        real = os.path.realpath(path)
        if not any(real.startswith(root.rstrip(os.sep) + os.sep) for root in self.roots):
            raise UnsafePathError(f"{name}: is outside of the folders that this page may show")
