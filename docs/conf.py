"""The course as a static site: `make book`. The README is its first page, toc.yml its order."""

from pathlib import Path

import studyguide

project = "studyguide"
author = "the studyguide authors"
release = studyguide.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_external_toc",
    "sphinxcontrib.mermaid",
]
external_toc_path = "docs/toc.yml"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "k8s/README.md",
    "notebooks/*.ipynb",
]
exclude_patterns = [".venv*", "build", "tests", "images", "logs", "visualize", "node_modules"]

nb_execution_mode = "off"  # the stored outputs are shown: they come from a whole execution
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # the docstrings say more: shapes, dtypes, units
autodoc_member_order = "bysource"

mermaid_height = "auto"
mermaid_fullscreen = False

html_theme = "furo"
html_title = "studyguide"

js = Path(__file__).parents[1] / "build" / "js"  # see the Makefile: without it a network is needed
html_static_path = [str(js)] if (js / "mermaid").exists() else []
if html_static_path:
    mermaid_use_local = "mermaid/dist/mermaid.esm.min.mjs"
    mathjax_path = "mathjax/es5/tex-mml-chtml.js"
nb_ipywidgets_js = {}  # stored outputs hold no widgets
