"""Settings of the documentation: ``python -m sphinx -W docs docs/_build``."""

from importlib.metadata import version as installed_version

project = "TextGym"
author = "The TextGym developers"
version = release = installed_version("textgym")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"TextGym {version}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_rtype = False
napoleon_use_ivar = True  # a named tuple would show every field twice
# One backtick marks code in the docstrings, as in Markdown.
default_role = "code"
