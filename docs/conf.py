"""The site of the documentation: `make docs` writes it to docs/_build/html.

The source folder is the repository itself, so that a relative link between pages, or from a page to a YAML, is the same
on a code host and on the site. Nothing on the site comes from the web.
"""

import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "docs" / "_ext")]

import mmpt  # noqa: E402

project = "MMPT"
author = "The MMPT developers"
project_copyright = author
version = release = mmpt.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "api_modules"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "pretrained_models/*.md", "scripts/**.md"]
exclude_patterns = [".*", "build", "data", "docs/_*", "mmpt", "mmpt_cli", "projects", "runs", "tests", "*.egg-info"]
exclude_patterns += ["__pycache__", "**/__pycache__"]

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
# names in docstrings that several classes share; labels of torch's own pages, in docstrings that come from there
suppress_warnings = ["ref.python", "ref.ref"]

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Batch", "params_style")]  # the tensors of a model's batch

html_theme = "furo"
html_title = f"MMPT {release}"
html_extra_path = ["_extra"]
html_copy_source = False
html_show_sphinx = False
html_use_index = html_domain_indices = False  # the search finds names; an index of thousands takes seconds
toc_object_entries = smartquotes = False
html_theme_options = {"navigation_with_keys": False}


def setup(app: Sphinx) -> None:
    """Let blocks of data be blocks, in languages that Pygments does not know."""
    for language in ("csv", "jsonl", "srt", "vtt"):
        app.add_lexer(language, TextLexer)
