"""Numbers of a run over its epochs: the right records, images, labels and candidate sets."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from nlalib.data.labels import expressions
from nlalib.data.splits import load_dataset
from nlalib.report import collect
from nlalib.report.collect import study_epochs
from nlalib.report.epoch_numbers import run_epoch_numbers
from nlalib.report.per_sample import is_minority
from nlalib.report.studies import Study
from nlalib.training.config import RunConfig

CONFIG = RunConfig(method="nla", train_images=120, test_images=40, noise_rate=0.2, epochs=2)


@pytest.fixture(scope="module")
def index():
    return load_dataset(CONFIG.data)[0]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))


def write_run(config: RunConfig, index: pd.DataFrame) -> None:
    """A run that predicts all given labels in epoch 0 and all true ones in epoch 1."""
    config.folder.mkdir(parents=True)
    train = index[index["part"] == "train"]
    epochs = []
    for epoch, column in enumerate(("label", "true_label")):
        p_gt = np.where(train[column] == train["label"], 0.8, 0.1)
        records = {"epoch": epoch, "image_id": train["image_id"], "p_gt": p_gt, "p_nn": 0.15}
        records |= {"predicted": train[column].astype(float), "cross_entropy": -np.log(p_gt)}
        epochs.append(pd.DataFrame({**records, "weight": p_gt / 2}))
    # In another order than the index: rows are matched by image.
    pd.concat(epochs).sample(frac=1, random_state=0).to_parquet(config.folder / "naw.parquet")
    known = ["image_id", "part", "label", "true_label", "is_flipped"]
    index[known].to_parquet(config.folder / "samples.parquet")
    (config.folder / "done").write_text(json.dumps({"seconds": 1.0}))


def test_numbers_of_a_run(runs, index):
    write_run(CONFIG, index)
    numbers = run_epoch_numbers(CONFIG, index)
    found = numbers.set_index(["epoch", "metric"])["value"]
    assert numbers["epoch"].unique().tolist() == [0, 1]
    assert found[0, "flipped_as_given"] == found[0, "accuracy_given"] == 1
    assert found[0, "flipped_as_true"] == 0
    assert found[1, "flipped_as_true"] == found[1, "accuracy_true"] == 1
    train = index.query("part == 'train'")
    # Of rendered faces some labels are wrong without being flipped: the annotators erred.
    is_right = train["label"] == train["true_label"]
    assert found[1, "accuracy_given"] == pytest.approx(is_right.mean())
    assert found[1, "clean_correct"] == pytest.approx(is_right[~train["is_flipped"]].mean())
    # All alike in epoch 0, told apart without fault in epoch 1.
    assert found[0, "auroc_low_weight"] == 0.5
    # The flipped ones and those errors are told from the rest; half the ties count.
    expected = 1 - (~is_right[~train["is_flipped"]]).mean() / 2
    assert found[1, "auroc_low_weight"] == pytest.approx(expected)
    assert found[1, "auroc_high_loss"] == pytest.approx(expected)
    in_bin = [  # seven to nine of the ten name the leading class
        row["is_flipped"]
        for _, row in train.iterrows()
        if 7 <= max(row[f"votes_{name}"] for name in expressions(7)) <= 9
    ]
    assert found[1, "flipped_share_7_to_9"] == pytest.approx(sum(in_bin) / len(in_bin))
    assert found[0, "flipped_as_given_7_to_9"] == 1 > found[1, "flipped_as_given_7_to_9"]
    assert found[1, "minority_share_of_samples"] == found[0, "minority_share_of_samples"] > 0


def test_numbers_of_a_study_name_their_runs(runs, index, monkeypatch):
    configs = [CONFIG, replace(CONFIG, seed=1)]
    for config in configs:
        write_run(config, load_dataset(config.data)[0])
    study = Study("tiny", "", {}, {config.run_id: config for config in configs})
    nothing = pd.DataFrame(columns=["epoch", "metric", "value"])
    monkeypatch.setattr(collect, "curve_rows", lambda config: nothing)  # tested with the records
    table = study_epochs(study)
    assert table["run_id"].unique().tolist() == list(study.runs)
    assert table.groupby("run_id").size().nunique() == 1
    assert table["noise_rate"].unique().tolist() == [0.2]
    (configs[1].folder / "done").unlink()
    with pytest.raises(FileNotFoundError, match="is not done; make it with"):
        study_epochs(study)


def test_changed_data_set_is_refused(runs, index):
    write_run(CONFIG, index)
    other = index.assign(label=(index["label"] + 1) % 7)
    with pytest.raises(ValueError, match=r"training labels of .* are not those of its data set"):
        run_epoch_numbers(CONFIG, other)
    (CONFIG.folder / "samples.parquet").unlink()  # runs made before it was written
    assert len(run_epoch_numbers(CONFIG, index))
    fewer = index.drop(index.index[index["part"] == "train"][0])
    with pytest.raises(ValueError, match="are no training images of its data set now"):
        run_epoch_numbers(CONFIG, fewer)


def test_disambiguation_of_a_run_counts_its_own_candidate_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))
    config = RunConfig(method="proden", candidate_threshold=2.0, train_images=200, epochs=1)
    index = load_dataset(config.data)[0]
    train = index.query("part == 'train'").reset_index(drop=True)
    sizes, right = [], []
    identified = np.arange(len(train)) % 7
    for row, found in zip(train.to_dict("records"), identified, strict=True):
        votes = [row[f"votes_{name}"] for name in expressions(7)]
        size = sum(count >= 2 or count == max(votes) for count in votes)
        if size > 1:
            sizes.append(size)
            right.append(found == row["label"])
    config.folder.mkdir(parents=True)
    records = pd.DataFrame(
        {
            "epoch": 0,
            "image_id": train["image_id"],
            "p_gt": 0.5,
            "p_nn": 0.2,
            "cross_entropy": 0.7,
            "identified": identified.astype(np.float32),
        }
    )
    records.sample(frac=1, random_state=0).to_parquet(config.folder / "naw.parquet")
    table = run_epoch_numbers(config, index).set_index("metric")["value"]
    assert table["disambiguated"] == pytest.approx(np.mean(right))
    assert table["disambiguated_by_chance"] == pytest.approx(np.mean([1 / n for n in sizes]))


@pytest.mark.parametrize("method", ["nla", "nla_candidates", "nla_soft", "focal"])
def test_a_run_counts_its_weight_as_its_method_says(tmp_path, monkeypatch, method):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))
    config = RunConfig(method=method, train_images=180, test_images=40)
    index, _ = load_dataset(config.data)
    train = index[index["part"] == "train"]
    names = train["image_id"].to_numpy()
    columns = ["p_gt", "p_nn", "cross_entropy", "weight"]
    drawn = np.random.default_rng(0).random((len(names), len(columns)))
    samples = pd.DataFrame(drawn, columns=columns)
    config.folder.mkdir(parents=True)
    samples.assign(image_id=names, epoch=0).to_parquet(config.folder / "naw.parquet")
    found = run_epoch_numbers(config, index).set_index("metric")["value"]
    minority = is_minority(train["label"].to_numpy(), 7)
    weight = samples["weight"].to_numpy() + (method != "focal")
    expected = weight[minority].sum() / weight.sum()
    assert found["minority_share_of_weight"] == pytest.approx(expected)


def test_a_run_without_records_has_no_numbers_of_single_images(runs, index, monkeypatch):
    write_run(CONFIG, index)
    (CONFIG.folder / "naw.parquet").unlink()
    assert run_epoch_numbers(CONFIG, index).empty
    course = pd.DataFrame({"epoch": [0], "metric": ["train_loss"], "value": [0.5]})
    monkeypatch.setattr(collect, "curve_rows", lambda config: course)
    table = study_epochs(Study("tiny", "", {}, {CONFIG.run_id: CONFIG}))
    assert table[["epoch", "metric", "value"]].to_numpy().tolist() == [[0, "train_loss", 0.5]]
    assert table["run_id"].tolist() == [CONFIG.run_id]
