"""A JSON object read pair by pair, in constant memory, with the place of each value in the file."""

import codecs
import json
import os
from collections.abc import Iterator
from typing import Any

from mmpt.utils.errors import DataError

__all__ = ["JsonObjectScanner"]

_SPACE = " \t\r\n"
_BLOCK = 1 << 20
_DECODER = json.JSONDecoder()


class JsonObjectScanner:
    """Walk the pairs of the top-level object of a JSON file, holding about one block of text in memory."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file.

        Raises:
            DataError: if it cannot be opened; names it.
        """
        self.path = path
        self.place = (0, 0)
        """Offset and length, in bytes, of the value yielded last."""
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text, self._at, self._ended = "", 0, False
        self._offset, self._measured = 0, 0  # the byte offset of character number `_measured` of `_text`

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """Yield ``(key, value)`` in file order; a key that occurs twice is yielded twice.

        Raises:
            DataError: if the file is not one JSON object, or is cut; names the file and the byte.
        """
        self._expect("{")
        if self._peek() == "}":
            return self._finish()
        while True:
            if self._peek() != '"':
                raise self._fault("expected a key in double quotes")
            key = self._value()
            self._expect(":")
            self._peek()
            yield key, self._value()
            if self._peek() == "}":
                return self._finish()
            self._expect(",")

    def _finish(self) -> None:
        self._at += 1
        if self._peek():
            raise self._fault("something follows the end of the object")

    def _value(self) -> Any:
        size = _BLOCK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._ended or isinstance(error, RecursionError):
                    raise self._fault(str(error)) from error
            else:
                # A number at the very end of the text may go on in the next block.
                if end < len(self._text) or self._ended:
                    break
            self._more(size)
            size *= 2  # so that one very long value is not decoded again for every block
        start = self._measure()
        self._at = end
        self.place = (start, self._measure() - start)
        return value

    def _measure(self) -> int:
        """Return the byte offset of the current character."""
        passed = self._text[self._measured : self._at]
        self._offset += len(passed) if passed.isascii() else len(passed.encode("utf-8"))
        self._measured = self._at
        return self._offset

    def _more(self, size: int = _BLOCK) -> None:
        """Forget what has been walked and read on."""
        self._measure()
        try:
            block = self._file.read(size)
            self._text = self._text[self._at :] + self._decode(block, not block)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: not a UTF-8 text file ({error})") from error
        self._at = self._measured = 0
        self._ended = not block

    def _peek(self) -> str:
        """Skip white space and return the next character, or an empty string at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def _expect(self, mark: str) -> None:
        found = self._peek()
        if found != mark:
            raise self._fault(f"expected {mark!r}, found {found or 'the end of the file'!r}")
        self._at += 1

    def _fault(self, what: str) -> DataError:
        return DataError(f"{self.path}: not a whole JSON object (near byte {self._measure()}): {what}")
