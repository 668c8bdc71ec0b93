"""Published files from a mirror that the user names: a folder, or an address. No host is built in."""

import contextlib
import dataclasses
import fnmatch
import io
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from mmpt.api.weights import DEFAULT_ROOT, Checked, WeightFile, check_file
from mmpt.utils.errors import DataError, MMPTError
from mmpt.utils.files import sole_writer, sync_folder, writing
from mmpt.utils.safe_paths import is_plain_name, path_below

__all__ = ["check_mirror", "fetch"]

_CHUNK = 1 << 20
_SECONDS = 60.0
_SCHEMES = ("http", "https", "file")
_STORAGE = "storage.googleapis.com"
_GONE = (
    "{place}: the bucket of MERLOT's weights is reported to be gone, and its name may be someone else's by now: "
    "what it serves is not trusted. Name a mirror that you trust, or a folder"
)

#: Told of every part of a file: its name, bytes there are, bytes in all (None: not known).
Progress = Callable[[str, int, int | None], None]


def check_mirror(place: str) -> None:
    """Refuse places that are known to be wrong.

    Raises:
        MMPTError: if the place is a bucket of MERLOT's, or an address that is not http, https or file.
    """
    parts = urllib.parse.urlsplit(place)
    host, bucket = (parts.hostname or "").lower(), urllib.parse.unquote(parts.path).lstrip("/").lower()
    of_storage = host.endswith(f".{_STORAGE}") or host == _STORAGE
    named = bucket if host == _STORAGE else host
    if (of_storage or parts.scheme == "gs") and named.startswith("merlot"):
        raise MMPTError(_GONE.format(place=place))
    if parts.scheme and "://" in place and parts.scheme not in _SCHEMES:
        raise MMPTError(f"{place}: a mirror is a folder or an address of {', '.join(_SCHEMES)}")


def fetch(
    entry: WeightFile,
    mirror: str,
    root: str | os.PathLike[str] = DEFAULT_ROOT,
    *,
    name: str | None = None,
    sha256: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Checked]:
    """Copy the files of an entry from a mirror to their place, checked; what broke off goes on where it stopped.

    A file is taken from ``mirror/NAME``, its plain file name, or from ``mirror`` itself if that ends in the name.

    Args:
        entry: of the manifest.
        mirror: folder or address that the user has named.
        root: the folder of weights.
        name: of the file that is meant, where the entry has a pattern.
        sha256: what the file must have; of entries of one file.
        force: replace files that are there.
        progress: told of every part.

    Raises:
        MMPTError: as :func:`check_mirror`, or if a file is there already, is not at the mirror, breaks off or is not
            what it should be; it is then not put in its place.
    """
    check_mirror(mirror)
    files = _named(entry, name)
    if "://" not in mirror and not os.path.exists(mirror):
        raise MMPTError(
            f"{mirror}: there is no such folder. --mirror names a folder with {Path(files[0]).name}, or an address"
        )
    if sha256 is not None and len(files) != 1:
        raise MMPTError(f"{entry.name}: has {len(files)} files; --sha256 is that of one")
    checked = []
    for number, file in enumerate(files):
        target = path_below(root, file, "the manifest")
        if target.exists() and not force:
            raise MMPTError(f"{target}: is there already; --force fetches it again")
        checked.append(_one(entry, mirror, target, number, sha256, progress))
    return checked


def _named(entry: WeightFile, name: str | None) -> list[str]:
    """Return the files of an entry, its pattern filled in."""
    pattern = next((file for file in entry.files if "*" in file), None)
    if pattern is None:
        return list(entry.files)
    if name is None:
        raise MMPTError(f"{entry.name}: is any file {pattern}; say which with --name")
    if not is_plain_name(name) or not fnmatch.fnmatchcase(name, Path(pattern).name):
        raise MMPTError(f"--name {name}: is none of {pattern}")
    return [str(Path(pattern).with_name(name))]


def _one(
    entry: WeightFile, mirror: str, target: Path, number: int, sha256: str | None, progress: Progress | None
) -> Checked:
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with sole_writer(target.with_name(f".{target.name}.lock")):
        _transfer(_address(mirror, target.name), part, target.name, progress)
        # Its kind is known by the end of its name, so it is checked under a name with that end.
        whole = part.with_name(f".fetched.{target.name}")
        os.replace(part, whole)
        try:
            found = _checked(entry, whole, target, number, sha256)
        except BaseException:  # stopped while it was read: the same command goes on from here
            os.replace(whole, part)
            raise
        if found.fault:
            whole.unlink()
            raise DataError(f"{target}: what the mirror has is not {entry.name}: {found.fault}. It was not kept")
        with writing(target):
            os.replace(whole, target)
        sync_folder(target.parent)
    return dataclasses.replace(found, path=str(target))


def _checked(entry: WeightFile, whole: Path, target: Path, number: int, sha256: str | None) -> Checked:
    """Check a file before it is in its place; of TensorFlow's, two files that are read together, only its sum."""
    alone = dataclasses.replace(entry, kind="bytes") if entry.kind == "tensorflow" else entry
    found = check_file(alone, whole, number, sha256)
    return dataclasses.replace(found, fault=found.fault.replace(str(whole), str(target)))


def _address(mirror: str, name: str) -> str:
    if "://" not in mirror:
        folder = Path(mirror)
        return (folder if folder.name == name and folder.is_file() else folder / name).resolve().as_uri()
    parts = urllib.parse.urlsplit(mirror)
    path = parts.path if parts.path.rsplit("/", 1)[-1] == name else f"{parts.path.rstrip('/')}/{name}"
    return urllib.parse.urlunsplit(parts._replace(path=path))


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follow a mirror elsewhere, but not to where nothing is taken from, nor to files of this machine."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return the request of the new address, if it is allowed."""
        check_mirror(newurl)
        if urllib.parse.urlsplit(newurl).scheme == "file":
            raise MMPTError(f"{newurl}: the mirror leads to a file of this machine; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _transfer(address: str, part: Path, name: str, progress: Progress | None) -> None:
    """Write what an address holds into a part file, from where that ends."""
    if part.is_symlink():  # who made it could choose what is written over
        part.unlink()
    have = part.stat().st_size if part.exists() else 0
    with _opened(address, have) as (content, start, total), writing(part), open(part, "ab") as file:
        file.truncate(start)
        file.seek(start)
        done = start
        while chunk := _read(content, address):
            file.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(name, done, total)
    if total is not None and done != total:
        raise DataError(
            f"{address}: broke off after {done} of {total} bytes. The same command goes on from there ({part})"
        )


def _read(content: IO[bytes], address: str) -> bytes:
    try:
        return content.read(_CHUNK)
    except (OSError, EOFError) as error:
        raise DataError(f"{address}: broke off ({error}). The same command goes on from there") from error


@contextlib.contextmanager
def _opened(address: str, have: int) -> Iterator[tuple[IO[bytes], int, int | None]]:
    """Open an address: its content from ``start`` on, which is ``have`` if it can begin there, and its whole length."""
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    opener = urllib.request.build_opener(_CheckedRedirects())
    try:
        response = opener.open(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            if error.headers.get("Content-Range") == f"bytes */{have}":  # all of it is there
                yield io.BytesIO(), have, have
                return
            with _opened(address, 0) as opened:  # the part is of another file
                yield opened
            return
        raise DataError(f"{address}: the mirror answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise DataError(f"{address}: cannot be fetched ({getattr(error, 'reason', error)})") from error
    with response:
        start, total = _extent(response, have, address)
        yield response, start, total


def _extent(response: Any, have: int, address: str) -> tuple[int, int | None]:
    """Return where the content begins, and the length of the whole."""
    length = response.headers.get("Content-Length")
    if getattr(response, "status", None) == 206:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if given is None or int(given[1]) != have:
            raise DataError(f"{address}: the mirror sends another part than was asked for; remove the .part file")
        return have, None if given[2] == "*" else int(given[2])
    return 0, int(length) if length is not None and length.isdigit() else None
