"""What a save in JupyterLab does to a notebook under git."""

import copy
import importlib.util
import subprocess
from types import SimpleNamespace

import nbformat
import pytest

from places import ROOT


@pytest.fixture
def lab():
    path = ROOT / "scripts" / "lab" / "jupyter_server_config.py"
    spec = importlib.util.spec_from_file_location("lab_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def kept(tmp_path):
    """A committed notebook: a printed line, a picture, and a cell whose outputs differ."""
    new = nbformat.v4.new_output
    pictured = [new("display_data", {"image/png": "AAAA", "text/plain": "<Image at 0x7f00aa11>"})]
    cells = [
        nbformat.v4.new_code_cell("1", outputs=[new("stream", text="one\n")], execution_count=1),
        nbformat.v4.new_code_cell("2", outputs=pictured, execution_count=2),
        nbformat.v4.new_code_cell(
            "3",
            outputs=[new("stream", text="0.3 min left\n")],
            execution_count=3,
            metadata={"tags": ["nbval-ignore-output"]},
        ),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, tmp_path / "a.ipynb")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], check=True)
    return notebook


def saved(lab, folder, notebook):
    model = {"type": "notebook", "content": copy.deepcopy(notebook)}
    lab.keep_committed(model, "a.ipynb", SimpleNamespace(root_dir=str(folder)))
    return model["content"]


def run_again(notebook):
    """Do to a copy what Run All in another kernel does."""
    again = copy.deepcopy(notebook)
    again.metadata["language_info"] = {"name": "python", "version": "3.12.1"}
    for cell in again.cells:
        cell.execution_count += 10
    again.cells[1].outputs[0].data["image/png"] = "BBBB"
    again.cells[1].outputs[0].data["text/plain"] = "<Image at 0x7f99bb22>"
    again.cells[2].outputs[0].text = "0.2 min left\n"
    return again


def test_run_all_leaves_the_committed_file(lab, kept, tmp_path):
    assert saved(lab, tmp_path, run_again(kept)) == kept


@pytest.mark.parametrize(
    "change",
    [
        lambda n: setattr(n.cells[0], "source", "1 + 0"),
        lambda n: setattr(n.cells[0].outputs[0], "text", "two\n"),
        lambda n: setattr(n.cells[1], "outputs", []),
        lambda n: setattr(n.cells[2], "source", "4"),
        lambda n: n.cells.pop(),
    ],
)
def test_any_real_change_is_saved(lab, kept, tmp_path, change):
    mine = run_again(kept)
    change(mine)
    assert saved(lab, tmp_path, mine) == mine


def test_a_notebook_that_git_does_not_have_is_saved(lab, kept, tmp_path):
    (tmp_path / "new").mkdir()
    assert saved(lab, tmp_path / "new", run_again(kept)) == run_again(kept)
