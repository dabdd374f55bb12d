"""Check each link and picture of a built book.

Usage: python scripts/check_book.py FOLDER   (exit status 1 where something is broken)
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a page loads by itself when it is opened, in place of what a reader may follow.
LOADED = {("link", "href"), ("script", "src"), ("img", "src")}
NOT_LOADED_RELATIONS = {"index", "search", "next", "prev", "canonical"}


class Page(HTMLParser):
    """The anchors of a page, its links, and its pictures without a description."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []  # where to, and whether the page loads it
        self.undescribed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        for name in ("href", "src"):
            if found.get(name):
                loaded = (tag, name) in LOADED and found.get("rel") not in NOT_LOADED_RELATIONS
                self.links.append((found[name], loaded))
        if tag == "img" and not found.get("alt"):
            self.undescribed.append(found.get("src") or "")


def problems(folder: Path) -> list[str]:
    """Return what is broken in the pages of a folder, a line each."""
    pages = {path: Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(folder)
        found += [f"{name}: no alt text: {picture}" for picture in page.undescribed]
        for link, loaded in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if loaded and parts.scheme != "data":
                    found.append(f"{name}: fetched from outside: {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                found.append(f"{name}: no such file: {link}")
                continue
            known = pages[target].anchors if target in pages else {unquote(parts.fragment)}
            if parts.fragment and unquote(parts.fragment) not in known:
                found.append(f"{name}: no such place: {link}")
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    broken = problems(folder)
    print(*broken, sep="\n", end="\n" if broken else "")
    pages = len(list(folder.rglob("*.html")))
    print(f"{folder.name}: {pages} pages, {len(broken)} broken links or pictures")
    sys.exit(bool(broken) or not pages)
