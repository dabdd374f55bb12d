"""Draw docs/imports.svg: which packages of nlalib know which, from the imports themselves.

One row a layer of the import contract (pyproject.toml), what knows most at the top. An arrow that
follows from others is left out. Without an argument it writes the picture.

Usage: python scripts/draw_imports.py
"""

import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "imports.svg"
WIDTH, ROW, BOX, HEIGHT = 760, 78, 150, 40  # pixels

# Where a room stands in its row, as a share of the width, so that no arrow runs behind a room.
CENTRES = {
    **{"training": 0.34, "data": 0.66, "parameters": 0.66},
    **{"files": 0.22, "names": 0.52, "paths": 0.44},
}


def layers() -> list[list[str]]:
    """Return the rooms of nlalib, row by row from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return [row.split(" | ") for row in settings["contracts"][0]["layers"]]


def arrows() -> set[tuple[str, str]]:
    """Return pairs (importing, imported) of rooms, without those that a longer way says as well."""
    graph = grimp.build_graph("nlalib", exclude_type_checking_imports=True)
    pairs = set()
    for module in graph.modules - {"nlalib"}:
        for imported in graph.find_modules_directly_imported_by(module) - {"nlalib"}:
            pairs.add((module.split(".")[1], imported.split(".")[1]))
    known = {(a, b) for a, b in pairs if a != b}
    reached = set(known)
    for _ in layers():
        reached |= {(a, d) for a, b in reached for c, d in known if b == c}
    between = {(a, c) for a, b in known for d, c in reached if b == d}
    return known - between


def picture() -> str:
    """Return the SVG."""
    rows, places, boxes = layers(), {}, []
    for number, rooms in enumerate(rows):
        for place, room in enumerate(rooms):
            x = WIDTH * CENTRES.get(room, (2 * place + 1) / (2 * len(rooms))) - BOX / 2
            y = 10 + number * ROW
            places[room] = (x + BOX / 2, y)
            boxes.append(
                f'<rect x="{x:.0f}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="6"/>'
                f'<text x="{x + BOX / 2:.0f}" y="{y + 25}">{room}</text>'
            )
    lines = [
        f'<line x1="{places[a][0]:.0f}" y1="{places[a][1] + HEIGHT}" '
        f'x2="{places[b][0]:.0f}" y2="{places[b][1] - 5}"/>'
        for a, b in sorted(arrows())
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {len(rows) * ROW}" '
        'font-family="sans-serif" font-size="14" text-anchor="middle">'
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#777"/></marker></defs>'
        "<style>rect{fill:#eef3f8;stroke:#4a6b8a} "
        "line{stroke:#777;marker-end:url(#tip)}</style>"
        '<rect x="0" y="0" width="100%" height="100%" style="fill:white;stroke:none"/>'
    )
    return "\n".join([head, *lines, *boxes, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture())
