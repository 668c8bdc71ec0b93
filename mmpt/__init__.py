"""MMPT: a toolkit for video-language pre-training, shipped as a fairseq ``--user-dir`` plugin.

Importing this package is cheap and needs nothing but the standard library. Names
written in YAML files resolve lazily through :mod:`mmpt.utils.registry`.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
