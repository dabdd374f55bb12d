"""`python -m nlalib check`: data sets are looked at before any work."""

import pytest
import yaml

from nlalib.__main__ import check
from nlalib.training.config import RunConfig


def write_study(tmp_path, **fixed):
    content = {"study": "tried", "title": "tried", "notebooks": {}, "grid": {"seed": [0, 1]}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**content, "fixed": fixed}))
    return str(path)


def test_missing_data_set_is_named_with_the_layout_expected(tmp_path):
    study = write_study(tmp_path, dataset="ferplus", data_root=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere; expected(.|\n)*FER2013Train"):
        check(study)


def test_rendered_faces_need_no_look(tmp_path, capsys):
    check(write_study(tmp_path, dataset="rendered"))
    assert capsys.readouterr().out == ""


def test_finished_runs_need_no_data(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    settings = {"dataset": "ferplus", "data_root": str(tmp_path / "nowhere")}
    for seed in (0, 1):
        folder = RunConfig(**settings, seed=seed).folder
        folder.mkdir(parents=True)
        (folder / "done").touch()
    check(write_study(tmp_path, **settings))


def test_runs_share_an_index_whatever_trains_on_it():
    base = RunConfig().data
    assert RunConfig(method="ce", seed=3, epochs=9, batch_size=8).data == base
    assert RunConfig(data_seed=1).data != base
    assert RunConfig(noise_rate=0.1).data != base
