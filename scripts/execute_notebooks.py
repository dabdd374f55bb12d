"""Re-execute notebooks in place, so that the committed outputs come from a fresh kernel.

`jupyter execute --inplace` would do, but it ignores `record_timing`, and times in the
metadata would change every cell at each run.

Usage: python scripts/execute_notebooks.py notebooks/*.ipynb
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

# This environment's kernel, whatever kernels called python3 the user has installed.
os.environ["JUPYTER_PATH"] = os.path.join(sys.prefix, "share", "jupyter")


def execute_in_place(path: Path) -> None:
    """Run all cells of the notebook at `path` in its own folder; write it only if all succeed."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        record_timing=False,
        coalesce_streams=True,  # one print after another is one output, however they arrived
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    # The patch version of Python is no part of the result.
    notebook.metadata.get("language_info", {}).pop("version", None)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("no notebook given; usage: python scripts/execute_notebooks.py NOTEBOOK...")
    for name in sys.argv[1:]:
        print(f"executing {name}", flush=True)
        execute_in_place(Path(name))
