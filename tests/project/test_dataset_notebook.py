"""02_dataset_statistics on sets that nobody may pass on, as small trees in their layouts.

The stored notebook shows rendered faces; here its code runs, without a kernel, on the others.
"""

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest

from made_sets import COUNTS, TEST, write_affectnet, write_affectnet_2017, write_rafdb
from nlalib.data.describe import imbalance_ratio
from nlalib.paths import ROOT, figures_folder

NOTEBOOK = ROOT / "notebooks" / "02_dataset_statistics.ipynb"
SETS = {
    "RAF-DB": ("rafdb", write_rafdb),
    "AffectNet": ("affectnet", write_affectnet),
    "AffectNet of 2017": ("affectnet", write_affectnet_2017),
}


@pytest.fixture(autouse=True)
def _leave_pandas_as_it_was():
    with pd.option_context("display.float_format", None):
        yield


def run_notebook(**parameters) -> tuple[dict, list]:
    """Run the code cells with other parameters; return their variables and what they display."""
    shown = []
    # As papermill puts parameters in: right after the cell that is tagged.
    namespace = {"display": shown.append}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace.update(parameters)
    return namespace, shown


@pytest.mark.parametrize("name", SETS)
def test_notebook_describes_a_set_without_votes(tmp_path, monkeypatch, name, capsys):
    monkeypatch.setenv("NLA_FIGURES", str(tmp_path / "figures"))
    figures_folder().mkdir()
    dataset, write = SETS[name]
    found, _ = run_notebook(dataset=dataset, data_root=str(write(tmp_path / "set")))
    plt.close("all")
    assert found["counts"]["test"].to_dict() == TEST
    assert found["ratios"]["train"] == imbalance_ratio(pd.Series(COUNTS["train"]))
    summary = pd.read_csv(figures_folder() / f"02_{dataset}_summary.csv").loc[0]
    assert summary["images"] == sum(sum(of.values()) for of in COUNTS.values())
    assert summary["test_images_in_train"] == 0
    written = {path.name for path in figures_folder().glob("*.csv")}
    assert {f"02_{dataset}_class_shares.csv", f"02_{dataset}_duplicates.csv"} <= written
    # Nothing of FERPlus is shown as if it were this set's.
    assert not {f"02_{dataset}_entropy.csv", f"02_{dataset}_vote_shares.csv"} & written
    assert "checked: FERPlus's leaked test images" in capsys.readouterr().out


def test_too_few_rendered_faces_are_told_before_any_work():
    with pytest.raises(ValueError, match="faces is 20; take 2000 or more"):
        run_notebook(faces=20)
