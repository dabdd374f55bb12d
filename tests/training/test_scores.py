"""Candidate sets from a finished run's scores, for data sets without votes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from nlalib import __main__ as command_line
from nlalib.data.labels import BASIC_EXPRESSIONS
from nlalib.data.pixels import image_array
from nlalib.data.splits import load_dataset, training_candidates
from nlalib.networks.normalisation import normalise
from nlalib.paths import ROOT
from nlalib.training.batches import to_tensor
from nlalib.training.config import RunConfig
from nlalib.training.launch import train
from nlalib.training.learner import load_learner

TEACHER = RunConfig(
    method="ce", train_images=200, test_images=40, image_size=16, epochs=1, batch_size=50,
    device="cpu", backbone="resnet10_narrow16_stride2", held_out=0.2,
)  # fmt: skip
COLUMNS = [f"p_{name}" for name in BASIC_EXPRESSIONS]


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The teacher's data, and the file of its scores, written by the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("NLA_CACHE", str(tmp_path_factory.mktemp("cache")))
        index, _ = load_dataset(TEACHER.data)
        images = image_array(index, root=ROOT, size=16)
        train(TEACHER, index, images)
        patch.setattr("sys.argv", ["nlalib", "scores", TEACHER.run_id])
        assert command_line.main() == 0
        yield index, images, TEACHER.folder / "training_scores.parquet"


def candidates_of(config: RunConfig, rows):
    return training_candidates(config.data, config.candidates, rows)


def student(path, k: float, **changes) -> RunConfig:
    rule = {"candidate_rule": "model", "candidate_threshold": k, "candidate_scores": str(path)}
    return replace(TEACHER, method="proden", **rule, **changes)


def test_scores_are_the_networks_of_each_image_alone(taught):
    index, images, path = taught
    table = pd.read_parquet(path).set_index("image_id")
    kept = index[index["part"] != "test"]
    assert sorted(table.index) == sorted(kept["image_id"])
    model = load_learner(TEACHER).model
    for position in kept.index[:5]:
        with torch.no_grad():
            logits = model(normalise(to_tensor(images[[position]]))).logits
        found = table.loc[index["image_id"][position], COLUMNS].to_numpy(np.float64)
        np.testing.assert_allclose(found, logits.softmax(1)[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("k", [1, 2])
def test_candidates_are_the_label_and_the_most_likely_classes(taught, k):
    index, _, path = taught
    rows = index[index["part"] == "train"].sample(frac=1, random_state=0)  # in another order
    table = pd.read_parquet(path).set_index("image_id")
    found = candidates_of(student(path, k), rows)
    for members, (_, row) in zip(found, rows.iterrows(), strict=True):
        likely = table.loc[row["image_id"], COLUMNS].astype(float).nlargest(k).index
        wanted = {COLUMNS.index(name) for name in likely} | {row["label"]}
        assert set(np.flatnonzero(members)) == wanted


def test_a_run_learns_from_them(taught):
    index, images, path = taught
    folder = train(student(path, 2), index, images)
    assert set(pd.read_parquet(folder / "naw.parquet")["identified"]) <= set(range(7))


def test_noise_reaches_sets_that_hold_the_given_label(taught):
    assert student(taught[2], 2, noise_rate=0.1).noise_rate == 0.1


def test_scores_of_other_labels_than_the_run_had_are_refused(taught, monkeypatch, capsys):
    index, _, _ = taught
    other = index.assign(label=(index["label"] + 1) % 7)
    monkeypatch.setattr("nlalib.training.scores.load_dataset", lambda choice: (other, None))
    monkeypatch.setattr("sys.argv", ["nlalib", "scores", TEACHER.run_id])
    assert command_line.main() == 1
    assert "is of a run on other data under the same names" in capsys.readouterr().err


def test_scores_count_by_their_content(taught, tmp_path):
    path = taught[2]
    (tmp_path / "copy.parquet").write_bytes(path.read_bytes())
    assert student(tmp_path / "copy.parquet", 2).run_id == student(path, 2).run_id
    pd.read_parquet(path).iloc[1:].to_parquet(tmp_path / "copy.parquet")
    assert student(tmp_path / "copy.parquet", 2).run_id != student(path, 2).run_id


def test_missing_file_images_and_classes_are_named(taught, tmp_path):
    index, _, path = taught
    rows = index[index["part"] == "train"]
    with pytest.raises(FileNotFoundError, match=r"no scores at .*absent.*nlalib scores RUN_ID"):
        candidates_of(student(tmp_path / "absent", 2), rows)
    table = pd.read_parquet(path)
    table[table["image_id"] != rows["image_id"].iloc[1]].to_parquet(tmp_path / "fewer")
    with pytest.raises(
        ValueError, match=rf"no finite scores of 1 of 160 .*first {rows['image_id'].iloc[1]}: "
    ):
        candidates_of(student(tmp_path / "fewer", 2), rows)
    table.assign(p_fear=np.inf).to_parquet(tmp_path / "infinite")
    with pytest.raises(ValueError, match=r"no finite scores of 160 of .*write them again"):
        candidates_of(student(tmp_path / "infinite", 2), rows)
    table.drop(columns="p_fear").to_parquet(tmp_path / "without")
    with pytest.raises(ValueError, match="lacks p_fear: its run has other classes"):
        candidates_of(student(tmp_path / "without", 2), rows)


def test_rule_and_file_go_together():
    with pytest.raises(ValueError, match="'model', and no other, needs the file of scores"):
        RunConfig(method="proden", candidate_rule="model")
    with pytest.raises(ValueError, match="'model', and no other, needs the file of scores"):
        RunConfig(method="proden", candidate_scores="scores.parquet")
    with pytest.raises(ValueError, match="'model' it is a number of classes"):
        student("scores.parquet", 1.5)


def test_a_run_that_is_not_there_is_named(taught, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["nlalib", "scores", "rendered-ce-seed0-0000000000"])
    assert command_line.main() == 1
    assert f"finished are {TEACHER.run_id}" in capsys.readouterr().err
