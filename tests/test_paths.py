"""Where the project writes: by environment variables, and never by accident into its root."""

import pytest

from nlalib import paths


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("NLA_RUNS", paths.runs_folder),
        ("NLA_CACHE", paths.cache_folder),
        ("NLA_FIGURES", paths.figures_folder),
    ],
)
def test_folders_follow_their_variable_and_an_empty_one_is_refused(
    variable, folder, monkeypatch, tmp_path
):
    monkeypatch.setenv(variable, str(tmp_path / "with a space"))
    assert folder() == tmp_path / "with a space"
    monkeypatch.setenv(variable, "")
    with pytest.raises(ValueError, match=f"{variable} is empty: name a folder by it, or unset it"):
        folder()
    monkeypatch.delenv(variable)
    assert folder().is_relative_to(paths.ROOT)


def test_an_installation_without_the_project_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert paths.resolve(tmp_path / "given") == tmp_path / "given"
    with pytest.raises(FileNotFoundError, match="clone the project and install it there"):
        paths.resolve("runs")
