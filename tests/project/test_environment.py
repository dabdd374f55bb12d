"""Versions are written once: pyproject.toml, constraints.txt and environment.yml agree."""

import re
import subprocess
import tomllib
from importlib import metadata

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PIN = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9._!-]+")


def read_pins(requirements: list[str]) -> dict[str, str]:
    """Return canonical name -> version of requirements that must all be exact pins."""
    pins = {}
    for requirement in requirements:
        assert PIN.fullmatch(requirement), f"{requirement!r} is not name==version"
        name, version = requirement.split("==")
        assert canonicalize_name(name) not in pins, f"{name} is pinned twice"
        pins[canonicalize_name(name)] = version
    return pins


DIRECT = read_pins([*PROJECT["dependencies"], *(pin for extra in EXTRAS.values() for pin in extra)])
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()
PINNED = read_pins(CONSTRAINTS)


def required_here() -> set[str]:
    """Return canonical names of all that nlalib[test] brings into the running environment."""
    found, open_ends = set(), [(PROJECT["name"], "test")]
    while open_ends:
        name, extra = open_ends.pop()
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and not (marker.evaluate({"extra": ""}) or marker.evaluate({"extra": extra})):
                continue
            for wanted in ["", *requirement.extras]:
                node = (canonicalize_name(requirement.name), wanted)
                if node not in found:
                    found.add(node)
                    open_ends.append(node)
    return {name for name, _ in found}


def test_constraints_hold_only_sorted_exact_pins():
    assert len(PINNED) > len(DIRECT)
    assert sorted(CONSTRAINTS, key=str.lower) == CONSTRAINTS, "run `make lock`"
    assert canonicalize_name(PROJECT["name"]) not in PINNED


def test_constraints_repeat_the_direct_pins():
    assert {name: PINNED.get(name) for name in DIRECT} == DIRECT, "run `make lock`"


def test_constraints_pin_everything_that_the_project_brings():
    assert len(required_here()) > 100
    unpinned = required_here() - set(PINNED)
    assert not unpinned, f"constraints.txt lacks {sorted(unpinned)}: run `make lock`"


def test_installed_versions_are_the_pinned_ones():
    installed = {name: metadata.version(name) for name in required_here() & set(PINNED)}
    stale = {name: version for name, version in installed.items() if version != PINNED[name]}
    assert not stale, f"this environment is out of date in {stale}: run `make test`"


def test_every_pin_can_be_had_on_the_oldest_python():
    """Of what is installed here; `make lock` asks of all extras. Debian 12 ships 3.11.2."""
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    asked = {d.name: d.metadata["Requires-Python"] or "" for d in metadata.distributions()}
    pinned = {name: asked[name] for name in asked if canonicalize_name(name) in PINNED}
    assert len(pinned) > 100
    newer = {name: wanted for name, wanted in pinned.items() if oldest not in SpecifierSet(wanted)}
    assert not newer, f"pin in pyproject.toml an older release of {newer}, then run `make lock`"


def read_conda_file() -> tuple[list[str], list[str]]:
    """Return what environment.yml takes from conda, and the lines that it hands to pip."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip_lines,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    return [entry for entry in entries if isinstance(entry, str)], pip_lines


def obtained_through_conda() -> dict[str, str]:
    """Return name -> version of the direct dependencies that the lines for pip install."""
    requirements, pins = [], {}
    for line in read_conda_file()[1]:
        option, _, value = line.partition(" ")
        if option == "-c":
            pins = read_pins((ROOT / value).read_text().splitlines())
        elif option == "-e":
            folder, _, extras = value.rstrip("]").partition("[")
            assert (ROOT / folder).resolve() == ROOT
            requirements += PROJECT["dependencies"]
            for extra in extras.split(","):
                requirements += EXTRAS[extra]
        else:
            raise AssertionError(f"environment.yml has {line!r}, where only -c and -e belong")
    # The constraint decides; a direct pin that it contradicted would not resolve at all.
    return {name: pins[name] for name in read_pins(requirements)}


def test_conda_and_pip_give_the_same_versions():
    assert obtained_through_conda() == DIRECT


def test_conda_itself_provides_only_python_and_pip():
    python, pip = read_conda_file()[0]
    assert pip == "pip"
    name, version = python.split("=")
    assert name == "python"
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)


def test_environment_and_study_may_lie_under_names_with_spaces(tmp_path):
    """`make` splits names at spaces, unless they are marked; so does the shell."""
    venv = tmp_path / "my environment"
    words = [f"VENV={venv}", "CONFIG=configs/my study.yaml"]
    for target in ("study", "report", "publish", "lab"):
        told = subprocess.run(
            ["make", "--dry-run", target, *words], cwd=ROOT, capture_output=True, text=True
        )
        assert (told.returncode, told.stderr) == (0, "")
        commands = told.stdout
        assert f'python="{venv}/bin/python"' in commands
        assert f'"{venv}/bin/python" -m pip' in commands
        if target != "lab":
            assert commands.count("my study.yaml") == commands.count('my study.yaml"') > 0
