"""What the files of the project may hold: no traces of a machine, no photographs, no data."""

import ast
import re
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from places import ROOT

PREDICTIONS = ROOT / "results" / "predictions"
MAX_BYTES = 2 * 1024**2
MAX_BYTES_A_RUN = 100 * 1024  # of kept predictions
# Training alone may name a device; everything else takes it as an argument.
NLALIB = sorted(
    path
    for path in (ROOT / "nlalib").rglob("*.py")
    if "training" not in path.relative_to(ROOT / "nlalib").parts
)

# Written with a class of one letter where a pattern would otherwise find itself in this file.
TRACES = {
    "somebody's home folder": r"(?<![\w.])/(?:[h]ome|[U]sers|[r]oot)/\w",
    "the folder of this very checkout": rf"(?<![\w.]){re.escape(str(ROOT))}\b",
    "a package index": r"\b(?:[p]ypi\.org|[p]ythonhosted|[i]ndex-url|[f]ind-links)",
    "a package from a file": r"@ [f]ile://",
}


def project_files() -> list[Path]:
    """Return what git tracks or would add: everything that is not ignored."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of the project's files")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def read_text(path: Path) -> str | None:
    """Return a file's text without the pictures inside notebooks, or None if it is no text."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
    return re.sub(r'"image/(?:png|jpeg)": ".*"', "", text)


@pytest.mark.parametrize("trace", TRACES)
def test_no_file_tells_where_it_was_made(trace):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in project_files()
        for number, line in enumerate((read_text(path) or "").splitlines(), start=1)
        if re.search(TRACES[trace], line)
    ]
    assert not found, f"{trace} in\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("trace", "line"),
    [
        ("somebody's home folder", "root = '/" + "home/ada/faces'"),
        ("the folder of this very checkout", f"{ROOT}/runs"),
        ("a package index", "--index" + "-url https://example.org"),
        ("a package from a file", "torch @ file" + ":///tmp/torch.whl"),
    ],
)
def test_each_pattern_finds_its_trace(trace, line):
    assert re.search(TRACES[trace], line)


def test_files_are_small():
    large = {
        str(path.relative_to(ROOT)): path.stat().st_size
        for path in project_files()
        if path.stat().st_size >= MAX_BYTES and not _is_of_predictions(path)
    }
    assert not large, f"files of {MAX_BYTES} bytes or more: {large}"


def _is_of_predictions(path: Path) -> bool:
    return path.parent == PREDICTIONS and path.suffix == ".parquet"


def test_kept_predictions_are_small():
    """They grow with the runs of a study, and with nothing else."""
    for path in filter(_is_of_predictions, project_files()):
        runs = len(set(pq.read_table(path, columns=["run_id"])["run_id"].to_pylist()))
        assert path.stat().st_size < MAX_BYTES_A_RUN * runs, path.name


def test_only_figures_and_kept_predictions_are_no_text():
    """Photographs, archives, arrays and weights would all be files that are no text."""
    others = [
        str(path.relative_to(ROOT))
        for path in project_files()
        if read_text(path) is None
        and not (path.parent == ROOT / "figures" and path.suffix == ".png")
        and not (path.parent == ROOT / "results" / "predictions" and path.suffix == ".parquet")
    ]
    assert not others, f"not text, no PNG in figures/, no predictions: {others}"


def test_kept_predictions_hold_nothing_else():
    """No votes of single annotators, and nothing of the images but their names."""
    for path in (ROOT / "results" / "predictions").glob("*.parquet"):
        names = {n for n in pq.read_schema(path).names if not n.startswith("log_p_")}
        assert names == {"run_id", "epoch", "image_id", "label"}, path


def device_choices(source: str) -> list[int]:
    """Return the lines that fix a device: `.cuda(...)`, or a literal "cuda" or "cuda:N"."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "cuda"
        )
        or (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"cuda(:\d+)?", node.value)
        )
    ]


@pytest.mark.parametrize("path", NLALIB, ids=lambda path: str(path.relative_to(ROOT)))
def test_library_takes_its_device_as_an_argument(path):
    assert device_choices(path.read_text()) == []


def test_fixed_devices_are_found():
    fixed = "x.cuda()\ny.to('cuda:1')\nz = torch.device('cuda')\ntorch.cuda.is_available()\n"
    assert device_choices(fixed) == [1, 2, 3]
