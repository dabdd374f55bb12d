"""Write the line of links under each notebook's title: to its neighbours, the start and the README.

Usage: python scripts/link_notebooks.py   (after a notebook was added, renamed or removed)
"""

from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
START = "00_start.ipynb"
MARK = "*Links:*"


def links(name: str, names: list[str]) -> str:
    """Return the line for the notebook `name` among `names`, in their order."""
    place = names.index(name)
    parts = []
    if place > 0:
        parts.append(f"[← {names[place - 1].removesuffix('.ipynb')}]({names[place - 1]})")
    if name != START:
        parts.append(f"[start]({START})")
    parts.append("[all notebooks](../README.md#the-notebooks)")
    if place + 1 < len(names):
        parts.append(f"[{names[place + 1].removesuffix('.ipynb')} →]({names[place + 1]})")
    return f"{MARK} {' · '.join(parts)}"


def with_links(source: str, line: str) -> str:
    """Return a first cell whose title is followed by `line`, in place of an older one."""
    title, _, rest = source.partition("\n")
    rest = rest.lstrip("\n")
    if rest.startswith(MARK):
        rest = rest.partition("\n")[2].lstrip("\n")
    return f"{title}\n\n{line}\n\n{rest}"


if __name__ == "__main__":
    names = sorted(path.name for path in NOTEBOOKS.glob("[0-9]*.ipynb"))
    for name in names:
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        first = notebook.cells[0]
        linked = with_links(first.source, links(name, names))
        if linked != first.source:
            first.source = linked
            nbformat.write(notebook, NOTEBOOKS / name)
            print(f"linked {name}")
