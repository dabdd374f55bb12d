"""What becomes of the repository's files on their way to pages of the book."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST_OPEN_CELL = 12  # lines; longer code is folded
EXPLORER_SLOT = '<div class="naw-explorer"></div>'


def anchor(heading: str) -> str:
    """Return a heading's anchor in JupyterLab's form, which links between notebooks use."""
    return heading.replace(" ", "-")


def github_anchor(heading: str) -> str:
    """Return a heading's anchor in GitHub's form, which links to Markdown files use."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def read_source(app, page: str, source: list[str]) -> None:
    """Complete the text of a page as it is read: contents, references, notebooks' cells."""
    if page == app.config.root_doc:
        source[0] += (ROOT / "book" / "contents.md").read_text()
    elif page == "book/references":
        source[0] += references(sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")))
    elif page.startswith("notebooks/"):
        source[0] = json.dumps(prepared(json.loads(source[0])))


def prepared(notebook: dict) -> dict:
    """Return a notebook whose pictures have their descriptions and whose long cells are folded."""
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        for output in cell["outputs"]:
            words = output.get("metadata", {}).get("image/png", {}).get("alt")
            if words:
                cell["metadata"]["mystnb"] = {"image": {"alt": words}}
        if "".join(cell["source"]).count("\n") >= LONGEST_OPEN_CELL:
            cell["metadata"].setdefault("tags", []).append("hide-input")
    return notebook


def references(notebooks: list[Path]) -> str:
    """Return all entries of the notebooks' reference lists, sorted, each with who cites it."""
    cited: dict[str, list[str]] = {}
    for path in notebooks:
        for cell in json.loads(path.read_text())["cells"]:
            _, _, part = "".join(cell["source"]).partition("## References\n")
            if cell["cell_type"] == "markdown":
                for entry in re.findall(r"^- ((?:.|\n(?!- |\n))+)", part, re.MULTILINE):
                    cited.setdefault(" ".join(entry.split()), []).append(path.name)
    lines = []
    for entry in sorted(cited, key=lambda text: text.lstrip("*")):
        links = ", ".join(f"[{name[:2]}](../notebooks/{name})" for name in cited[entry])
        lines.append(f"- {entry} ({links})")
    return "\n".join(lines) + "\n"


def add_github_anchors(app, doctree) -> None:
    """Let links to a Markdown page use GitHub's form of its anchors too."""
    page = app.env.docname
    if not page.startswith("notebooks/"):
        slugs = app.env.metadata[page].get("myst_slugs", {})
        slugs |= {github_anchor(title): (line, id_, title) for line, id_, title in slugs.values()}


def add_explorer(app, page: str, template: str, context: dict, doctree) -> None:
    """Put the explorer, which computes in the browser, where a page has a slot for it."""
    body = context.get("body", "")
    if EXPLORER_SLOT not in body:
        return
    # Inline, since browsers refuse modules of pages that are opened from a disk.
    module = (ROOT / "nlalib" / "report" / "explorer.js").read_text()
    start = 'show(document.querySelector(".naw-explorer"));'
    context["body"] = body + f'<script type="module">\n{module}\n{start}\n</script>\n'


def write_index(app, failed: Exception | None) -> None:
    """Write index.html, which leads to the first page."""
    if failed is None and app.builder.format == "html":
        first = f"{app.config.root_doc}.html"
        go_there = f'<meta http-equiv="refresh" content="0; url={first}">'
        lines = [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            f'<title>{app.config.project}</title>{go_there}<a href="{first}">{first}</a></html>',
        ]
        (Path(app.outdir) / "index.html").write_text("\n".join(lines) + "\n")
