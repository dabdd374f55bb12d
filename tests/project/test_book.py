"""The book: `make book` without a warning, its links, its pictures and its explorer."""

import json
import subprocess
import sys

import pytest
from browser import CHROMIUM, dump_page
from check_book import problems

from nlalib.methods.nla.weights import VARIANTS
from nlalib.report.explorer import point_values
from places import ROOT

pytest.importorskip("myst_nb", reason="Sphinx is not here: `make book` brings it")
sys.path.insert(0, str(ROOT / "book"))
import pages


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The whole book; seconds, as nothing is executed."""
    folder = tmp_path_factory.mktemp("book")
    options = ["--quiet", "--fail-on-warning", "--conf-dir", "book", "--doctree-dir"]
    command = [sys.executable, "-m", "sphinx", *options, folder / "doctrees", ".", folder / "html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_no_link_is_broken_and_nothing_is_fetched(book):
    assert problems(book) == []


def test_each_notebook_is_a_page_with_its_stored_pictures(book):
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        text = (book / "notebooks" / f"{path.stem}.html").read_text()
        for cell in json.loads(path.read_text())["cells"]:
            for output in cell.get("outputs", []):
                words = output.get("metadata", {}).get("image/png", {}).get("alt", "")
                assert words.replace("'", "&#x27;") in text or words in text


def test_the_first_page_is_the_readme_and_search_knows_the_notebooks(book):
    assert "README.html" in (book / "index.html").read_text()
    assert "The answer so far" in (book / "README.html").read_text()
    index = (book / "searchindex.js").read_text()
    assert "notebooks/06_main_results" in index
    assert "data/README" in index


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_explorer_computes_in_its_page(book, tmp_path):
    text = dump_page(book / "notebooks" / "03_naw_weights.html", tmp_path)
    weight = point_values(0.35, 0.5, 59, VARIANTS["paper"])["weight"]
    assert f"<td>weight</td><td>{weight:.4f}</td>" in text


@pytest.mark.parametrize(
    ("heading", "jupyter", "github"),
    [
        ("The answer so far", "The-answer-so-far", "the-answer-so-far"),
        ("4. How exact is it?", "4.-How-exact-is-it?", "4-how-exact-is-it"),
        ("FERPlus's twins, again", "FERPlus's-twins,-again", "ferpluss-twins-again"),
    ],
)
def test_anchors_are_those_of_jupyterlab_and_github(heading, jupyter, github):
    assert pages.anchor(heading) == jupyter
    assert pages.github_anchor(heading) == github


def test_references_are_gathered_with_who_cites_them(tmp_path):
    entries = ("- Lee:\n  *NLA*. 2025.\n- Abe: X.", "- Lee: *NLA*. 2025.\n\nMore text.")
    for name, entry in zip(("01_a.ipynb", "02_b.ipynb"), entries, strict=True):
        cell = {"cell_type": "markdown", "source": [f"## References\n\n{entry}\n"]}
        (tmp_path / name).write_text(json.dumps({"cells": [cell]}))
    assert pages.references(sorted(tmp_path.iterdir())).splitlines() == [
        "- Abe: X. ([01](../notebooks/01_a.ipynb))",
        "- Lee: *NLA*. 2025. ([01](../notebooks/01_a.ipynb), [02](../notebooks/02_b.ipynb))",
    ]


def test_the_checker_finds_what_is_broken(tmp_path):
    (tmp_path / "b.html").write_text("<h1 id='here'>B</h1>")
    (tmp_path / "a.html").write_text(
        "<a href='b.html#here'></a><a href='https://example.org'></a><img src='b.html' alt='x'>"
        "<a href='b.html#there'></a><a href='c.html'></a><img src='b.html'><a href='#top'></a>"
        "<script src='https://example.org/x.js'></script>"
    )
    assert problems(tmp_path) == [
        "a.html: no alt text: b.html",
        "a.html: no such place: b.html#there",
        "a.html: no such file: c.html",
        "a.html: no such place: #top",
        "a.html: fetched from outside: https://example.org/x.js",
    ]
