"""The project as a static site: `make book`.

Pages are the repository's own files, read where they lie: notebooks with their stored outputs, and
the Markdown files. Nothing is executed, and a page fetches nothing from outside when it is read.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book"))

import mathml  # noqa: E402
import pages  # noqa: E402

project = "NLA, reproduced"
html_title = project
author = "The authors of NLA, reproduced"
language = "en"
extensions = ["myst_nb"]

root_doc = "README"
include_patterns = ["*.md", "notebooks/[0-9]*.ipynb", "docs/*.md", "data/README.md"]
include_patterns += ["benchmarks/README.md", "book/references.md"]
# Folders without pages are not walked: data sets, runs and environments hold many files.
exclude_patterns = [
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.iterdir(), *(ROOT / "data").iterdir()]
    if path.is_dir() and path.name not in ("notebooks", "docs", "data", "benchmarks", "book")
]
exclude_patterns += ["book/_build"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_heading_slug_func = "pages.anchor"
html_math_renderer = "mathml"
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
pygments_dark_style = "github-dark"


def setup(app) -> None:
    """Register what the pages need beyond MyST-NB."""
    mathml.setup(app)
    app.connect("source-read", pages.read_source)
    app.connect("doctree-read", pages.add_github_anchors)
    app.connect("html-page-context", pages.add_explorer)
    app.connect("build-finished", pages.write_index)
