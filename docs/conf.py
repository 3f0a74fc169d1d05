"""The course as a static site: `make book`. docs/index.md is its first page, toc.yml its order."""

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

import studyguide
from studyguide_course import book

project = "studyguide"
author = "the studyguide authors"
copyright = f"2026 {author}"
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
    "logs/kubernetes/README.md",
    "notebooks/*.ipynb",
]
exclude_patterns = [".venv*", "build", "tests", "images", "visualize", "node_modules"]

nb_execution_mode = "off"  # the stored outputs are shown: they come from a whole execution
nb_merge_streams = True
nb_render_markdown_format = "gfm"  # what cells print as Markdown has tables
nb_code_prompt_show = "Show the solution"
nb_code_prompt_hide = "Hide the solution"
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
default_role = "code"  # docstrings write `names` as Markdown does
autodoc_typehints = "none"  # the docstrings say more: shapes, dtypes, units
autodoc_member_order = "bysource"

mermaid_height = "auto"
mermaid_fullscreen = False

html_theme = "furo"
html_title = "studyguide"

js = Path(__file__).parents[1] / "build" / "js"  # see the Makefile: without it a network is needed
html_static_path = ["book.css", str(book.HERE.parent / "view.css")]
html_css_files = ["book.css", "view.css"]
html_js_files = [("explorers.js", {"defer": "defer"})]
if (js / "mermaid").exists():
    html_static_path.append(str(js))
    mermaid_use_local = "mermaid/dist/mermaid.esm.min.mjs"
    mathjax_path = "mathjax/es5/tex-mml-chtml.js"
nb_ipywidgets_js = {}  # stored outputs hold no widgets


alts: dict[str, str] = {}  # sha256 of a picture, which is its name in the book -> alt text


def write_script(app: Sphinx) -> None:
    """Bring what turns stored explorers into live ones."""
    static = app.outdir / "_static"
    static.mkdir(parents=True, exist_ok=True)
    (static / "explorers.js").write_text(book.script(), encoding="utf-8")


def prepare(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Fold what JupyterLab folds, the cells whose source is hidden; make explorers live."""
    if docname.startswith("notebooks/"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            if cell["metadata"].get("jupyter", {}).get("source_hidden"):
                cell["metadata"].setdefault("tags", []).append("hide-input")
        alts.update(book.enliven(notebook))
        source[0] = json.dumps(notebook)


def describe(_app: Sphinx, doctree: nodes.document) -> None:
    """Give pictures their alt texts, and headings that hold an anchor their words in contents."""
    for title in doctree.findall(nodes.title):
        for raw in list(title.findall(nodes.raw)):
            named = set(re.findall(r'<a id="([\w-]+)">', raw.astext()))
            title.parent["ids"] += sorted(named - set(title.parent["ids"]))
            title.remove(raw)
    for image in doctree.findall(nodes.image):
        name = Path(image["uri"]).stem
        image["alt"] = alts.get(name, image.get("alt", ""))
        gallery = "from left to right" in image["alt"]
        if (name in alts and not gallery) or re.search("visualize/|performance-", image["uri"]):
            image["classes"].append("chart")


OUTPUT = '<div class="cell_output docutils container"'
BARRIERS = {  # what theme and extensions leave out for those who do not see or point
    'class="caption" role="heading"': 'class="caption" role="heading" aria-level="2"',
    '<summary aria-label="Toggle hidden content">': "<summary>",
    "<p><img ": '<p tabindex="0"><img ',
    '<pre  class="mermaid">': '<pre tabindex="0" class="mermaid">',
    "<pre><span></span>": '<pre tabindex="0"><span></span>',
    f"{OUTPUT}>\n<img ": f'{OUTPUT} tabindex="0">\n<img ',
    '<div class="table-wrapper ': '<div tabindex="0" class="table-wrapper ',
}


def open_up(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _: object) -> None:
    """Take barriers out of a page: levels of headings, names of buttons, code that scrolls."""
    for part in ("body", "furo_navigation_tree"):
        for barrier, way in BARRIERS.items():
            context[part] = context.get(part, "").replace(barrier, way)


def setup(app: Sphinx) -> None:
    """Sphinx calls this once."""
    app.connect("builder-inited", write_script)
    app.connect("source-read", prepare)
    app.connect("doctree-read", describe, priority=400)  # before contents are collected
    app.connect("html-page-context", open_up, priority=900)  # after the theme
