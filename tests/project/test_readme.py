"""The README, and the page on reproducing, show what the committed tables say."""

import re

import pytest

from nlalib.report.readme import MADE_SECTIONS
from places import ROOT

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file, made in MADE_SECTIONS.items() for name in made]
)
def test_tables_are_made_from_the_committed_results(file, name):
    made = MADE_SECTIONS[file][name]()
    assert made in (ROOT / file).read_text(), "run `make readme` and commit"


def test_linked_files_are_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_commands_named_are_there():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z]+)", README, flags=re.MULTILINE))
    assert targets
    assert {t for t in targets if f"\n{t}:" not in makefile} == set()
