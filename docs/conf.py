"""Settings of the documentation: `make docs` builds docs/_build/html from docs/*.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the API reference describes this checkout

import repgan_jax

project = "RepGAN-JAX"
author = "The RepGAN-JAX authors"
project_copyright = author
version = release = getattr(repgan_jax, "__version__", "")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]

# Guides are plain Markdown, so that they also read well where nothing builds them.
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline"]

# Docstrings: Google style. A single backtick is code, as in Markdown.
default_role = "code"
smartquotes_action = "D"  # dashes only: docstrings quote values
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # a list, as of parameters
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sphinx = False
html_theme_options = {"source_edit_link": ""}


def _keep_colons(app, what, name, obj, options, lines) -> None:
    """Keeps napoleon from reading `TYPE: TEXT` into the first line of a property's docstring."""
    if what == "property" and lines:
        lines[0] = f": {lines[0]}"


def _name_factories(app, what, name, obj, options, signature, returned) -> tuple | None:
    """Returns a signature that Sphinx can parse where a dataclass's field has a factory."""
    if signature and "<factory>" in signature:
        return signature.replace("<factory>", "..."), returned
    return None


def setup(app) -> None:
    """Connects what Sphinx calls while it reads docstrings, before napoleon does (at 500)."""
    app.connect("autodoc-process-docstring", _keep_colons, priority=400)
    app.connect("autodoc-process-signature", _name_factories)
