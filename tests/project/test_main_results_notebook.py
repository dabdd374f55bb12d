"""06_main_results on other tables than its own: each study has one made of its results."""

import papermill
import pytest

from places import ROOT


@pytest.mark.parametrize("study", ["embedded", "face_full"])
def test_the_table_of_any_study_is_shown(study, tmp_path, monkeypatch):
    """Of rendered faces, and of cross-entropy alone."""
    monkeypatch.setenv("NLA_FIGURES", str(tmp_path))
    papermill.execute_notebook(
        ROOT / "notebooks" / "06_main_results.ipynb",
        tmp_path / "out.ipynb",
        {"tables": [f"results/{study}.csv"]},
        kernel_name="python3",
        cwd=ROOT,
        progress_bar=False,
    )
    assert (tmp_path / "06_accuracy.png").is_file()
