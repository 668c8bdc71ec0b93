"""Optional packages: imported where they are used, with one clear error when missing."""

import importlib
from types import ModuleType

from mmpt.utils.errors import MMPTError

__all__ = ["MissingExtraError", "require"]


class MissingExtraError(MMPTError, ImportError):
    """Report an optional package that is not installed; names the extra that brings it."""


def require(module: str, extra: str) -> ModuleType:
    """Import and return ``module``, or name the extra that installs it.

    Raises:
        MissingExtraError: if the package is absent (the extra is named) or broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module!r} cannot be imported ({error}). Install it with: pip install 'mmpt[{extra}]'"
        ) from error
