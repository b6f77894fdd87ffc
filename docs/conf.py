"""Settings of Sphinx: `sphinx-build -W docs build/docs`."""

from adit_model import __version__

project = "adit-atomate"
author = "The adit-atomate maintainers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"adit-atomate {release}"
exclude_patterns = ["make_pictures.py"]

highlight_language = "none"  # output of programs is no Python
html_static_path = ["static"]
html_css_files = ["wrap.css"]

autodoc_typehints = "none"  # the docstrings say types with shapes and units
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
suppress_warnings = ["myst.xref_missing"]  # links from pages to files of the repository
html_copy_source = False
html_show_sphinx = html_show_copyright = False
mathjax_path = "https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-mml-chtml.js"
