"""Run All, change a parameter, Run All again, in one kernel: what people do in an afternoon.

The notebooks that only read tables are run whole, those that draw, prepare or train as far as
their setup, where parameters are checked. In shells of one process, which imports everything once;
that no later cell binds a parameter's name again, `test_notebooks.py` looks at in all of them.
"""

import re
import subprocess
import sys

import nbformat

from places import ROOT

WHOLE = ("00", "06", "07", "08", "09", "10", "11")
# The name, and what it is changed to.
CHANGES = (
    (r"^confidence: float = 0\.95", "confidence: float = 0.9"),
    (r"^seed: int = 0", "seed: int = 1"),
    (r'^    "results/face_long\.csv",\n', ""),  # as a study of other runs executes 06
)

SHELL = """
import os, sys
os.environ["MPLBACKEND"] = "Agg"
os.chdir(sys.argv[1])
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure

# Nobody looks at these figures: no room made for their labels, and few pixels.
draw = Figure.savefig
Figure.set_layout_engine = lambda *words, **more: None
Figure.savefig = lambda figure, *words, **more: draw(figure, *words, **{**more, "dpi": 16})

def run_twice(name, passes):
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(user_ns={"left_by_a_startup_file": 3})
    shell.enable_gui = lambda gui=None: None
    for number, sources in enumerate(passes):
        for source in sources:
            result = shell.run_cell(source, store_history=True, silent=False)
            if not result.success:
                error = result.error_in_exec or result.error_before_exec
                return f"{name}, pass {number + 1}: {error!r} in\\n{source}"
    print("ran twice:", name)

found = [run_twice(*cells) for cells in eval(sys.stdin.read()).items()]
sys.exit("\\n".join(filter(None, found)) or None)
"""


def code_cells(path) -> list[str]:
    """Return the code of a notebook, or of its first cells as far as its setup."""
    sources = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    if path.name[:2] in WHOLE:
        return sources
    setup = next(n for n, source in enumerate(sources) if "use_style()" in source)
    return sources[: setup + 1]


def changed(sources: list[str]) -> list[str]:
    """Return the cells with a parameter changed, if it is one of `CHANGES`."""
    for pattern, replacement in CHANGES:
        sources = [re.sub(pattern, replacement, source, flags=re.MULTILINE) for source in sources]
    return sources


def run(cells: dict[str, list[list[str]]]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", SHELL, str(ROOT / "notebooks")],
        input=repr(cells),
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_cells_run_twice_in_one_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_FIGURES", str(tmp_path))
    paths = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    cells = {path.name: [code_cells(path), changed(code_cells(path))] for path in paths}
    assert len(cells) >= 13
    assert sum(first != second for first, second in cells.values()) >= 5  # a parameter did change
    everything = "\n".join(source for first, _ in cells.values() for source in first)
    for pattern, _ in CHANGES:
        assert re.search(pattern, everything, re.MULTILINE), pattern
    done = run(cells)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("ran twice:") == len(cells)


def test_a_second_run_is_checked_as_the_first():
    check = "from nlalib.parameters import notebook_parameters\n"
    check += "found = notebook_parameters(globals(), confidence=float)"
    first = ["confidence: float = 0.95  # of the intervals", check]
    misspelt = ["confidence: float = 0.9\nconfidense = 0.9", check]
    done = run({
        "sound": [first, first],
        "misspelt": [first, misspelt],
        "of another type": [first, ["confidence: float = 'high'", check]],
    })  # fmt: skip
    assert done.returncode
    assert re.findall("ran twice: (.+)", done.stdout) == ["sound"]
    told = re.findall(r"^(.+), pass 2: (\w+)", done.stderr, re.MULTILINE)
    assert told == [("misspelt", "ValueError"), ("of another type", "TypeError")]
