"""`python -m nlalib check`: data sets are looked at before any work."""

import pytest
import yaml

from made_sets import file_of, picture, write_ferplus
from nlalib.__main__ import check
from nlalib.data.content import record_content
from nlalib.data.pixels import image_array
from nlalib.data.splits import load_dataset
from nlalib.report.publish import collect
from nlalib.report.studies import read_study
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


def test_too_few_rendered_faces_are_told_before_training(tmp_path, capsys):
    check(write_study(tmp_path, dataset="rendered"))
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match=r"cannot be split .* Ask for more images"):
        check(write_study(tmp_path, dataset="rendered", train_images=60))


def test_finished_runs_need_no_data(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    settings = {"dataset": "ferplus", "data_root": str(tmp_path / "nowhere")}
    for seed in (0, 1):
        folder = RunConfig(**settings, seed=seed).folder
        folder.mkdir(parents=True)
        (folder / "done").touch()
    check(write_study(tmp_path, **settings))


@pytest.mark.parametrize("last_file", ["done", "checkpoint.pt"])
def test_runs_on_another_folder_are_told_apart_before_snakemake_skips_them(
    tmp_path, monkeypatch, last_file
):
    """`executed` alone would let snakemake take them as done, and `collect` tabulate them."""
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NLA_CACHE", str(tmp_path / "cache"))
    data = write_ferplus(
        tmp_path / "set",
        {"train": {"fear": 12, "anger": 8}, "validation": {"fear": 1}, "test": {"fear": 5}},
    )
    settings = {"dataset": "ferplus", "data_root": str(data), "held_out": 0.2, "image_size": 24}
    study = write_study(tmp_path, **settings, train_images=0, test_images=0)
    for config in read_study(study).runs.values():
        index, _ = load_dataset(config.data)
        record_content(config.folder, index, image_array(index, root=data, size=24))
        for name in (last_file, "executed"):
            (config.folder / name).touch()
    check(study)
    picture(999, 48).save(file_of(data, 3))
    for command in (check, collect):
        with pytest.raises(ValueError, match=r"it recorded images \w{12} \(now \w{12}\)\. Put"):
            command(study)


def test_runs_share_an_index_whatever_trains_on_it():
    base = RunConfig().data
    assert RunConfig(method="ce", seed=3, epochs=9, batch_size=8).data == base
    assert RunConfig(data_seed=1).data != base
    assert RunConfig(noise_rate=0.1).data != base
