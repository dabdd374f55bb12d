"""Facts over epochs, against plain loops and cases made by hand."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from nlalib.data.labels import expressions
from nlalib.data.splits import load_dataset
from nlalib.report import collect
from nlalib.report.collect import study_epochs
from nlalib.report.per_sample import (
    ambiguity,
    detection,
    disambiguation,
    is_minority,
    memorisation,
    minority_shares,
    relabelling,
    run_epoch_numbers,
    scores,
)
from nlalib.report.studies import Study
from nlalib.training.config import RunConfig


def test_minority_by_hand():
    labels = np.array([0] * 5 + [1] * 3 + [2] * 2 + [3] * 2)
    # A quarter of twelve is three: a class with just its even share is no minority.
    assert is_minority(labels, 4).tolist() == [False] * 8 + [True] * 4
    assert not is_minority(np.arange(7), 7).any()
    # Classes that do not occur still count among the K.
    assert not is_minority(np.array([0, 0, 0, 1]), 7).any()


def random_samples(number: int = 300, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    points = generator.dirichlet(np.ones(3), number)
    labels = generator.choice(3, number, p=[0.6, 0.3, 0.1])
    flipped = generator.random(number) < 0.3
    return pd.DataFrame(
        {
            "p_gt": points[:, 0],
            "p_nn": points[:, 1:].max(axis=1),
            "cross_entropy": -np.log(points[:, 0]),
            "weight": generator.random(number),
            "predicted": generator.integers(0, 3, number).astype(float),
            "label": labels,
            "true_label": np.where(flipped, (labels + 1) % 3, labels),
            "is_flipped": flipped,
            "vote_entropy": generator.random(number).round(1),
            "is_minority": is_minority(labels, 3),
        }
    )


OWN = {"weight": "low", "attention": "low", "uncertainty": "high"}


def test_memorisation_counts_as_a_plain_loop_does():
    samples = random_samples()
    counts = dict.fromkeys(("given", "true", "clean", "as_given", "as_true", "flipped"), 0)
    for row in samples.itertuples():
        counts["given"] += row.predicted == row.label
        counts["true"] += row.predicted == row.true_label
        counts["flipped"] += row.is_flipped
        counts["clean"] += not row.is_flipped and row.predicted == row.label
        counts["as_given"] += row.is_flipped and row.predicted == row.label
        counts["as_true"] += row.is_flipped and row.predicted == row.true_label
    flipped = counts["flipped"]
    assert memorisation(samples) == pytest.approx(
        {
            "accuracy_given": counts["given"] / 300,
            "accuracy_true": counts["true"] / 300,
            "clean_correct": counts["clean"] / (300 - flipped),
            "flipped_as_given": counts["as_given"] / flipped,
            "flipped_as_true": counts["as_true"] / flipped,
        }
    )


def test_without_flipped_labels_there_is_nothing_to_find():
    clean = random_samples().assign(is_flipped=False)
    unknown = clean.drop(columns=["is_flipped", "true_label"])
    for samples in (clean, unknown):
        assert list(memorisation(samples)) == ["accuracy_given"]
        assert detection(samples, OWN) == {}


def pairs_won(flipped: np.ndarray, suspicion: np.ndarray) -> float:
    """AUROC by its definition: over all pairs, ties by half."""
    difference = suspicion[flipped][:, None] - suspicion[~flipped][None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean()


def test_detection_counts_pairs():
    samples = random_samples().assign(
        weight=lambda table: table["weight"].round(1),  # with ties
        uncertainty=lambda table: table["is_flipped"] * 1.0,
        attention=lambda table: 1.0 - table["is_flipped"],
    )
    found = detection(samples, OWN)
    flipped = samples["is_flipped"].to_numpy()
    suspicions = {
        "low_weight": -samples["weight"],
        "high_loss": samples["cross_entropy"],
        "low_confidence": -samples["p_gt"],
        "low_margin": samples["p_nn"] - samples["p_gt"],
        "high_focal_weight": (1 - samples["p_gt"]) ** 2,
    }
    for name, suspicion in suspicions.items():
        expected = pairs_won(flipped, suspicion.to_numpy())
        assert found[f"auroc_{name}"] == pytest.approx(expected), name
    assert found["auroc_low_attention"] == found["auroc_high_uncertainty"] == 1
    within, weights = [], []
    for label in range(3):
        own = (samples["label"] == label).to_numpy()
        within.append(pairs_won(flipped[own], -samples["weight"].to_numpy()[own]))
        weights.append(flipped[own].sum())
    expected = sum(a * w for a, w in zip(within, weights, strict=True)) / sum(weights)
    assert found["auroc_within_label_low_weight"] == pytest.approx(expected)


def test_confidence_and_focal_weight_rank_as_the_loss_does():
    found = detection(random_samples(), OWN)
    assert found["auroc_low_confidence"] == pytest.approx(found["auroc_high_loss"])
    assert found["auroc_high_focal_weight"] == pytest.approx(found["auroc_high_loss"])


def test_detector_of_rare_labels_alone_is_chance_within_a_label():
    samples = random_samples()
    by_label = samples["label"].map({0: 3.0, 1: 2.0, 2: 1.0})
    found = detection(samples.assign(weight=by_label), OWN)
    assert found["auroc_within_label_low_weight"] == 0.5


def test_label_with_flipped_samples_alone_takes_no_part():
    samples = random_samples()
    spoilt = samples.assign(is_flipped=samples["is_flipped"] | (samples["label"] == 2))
    assert 0 <= detection(spoilt, OWN)["auroc_within_label_high_loss"] <= 1


def test_ambiguity_is_the_correlation_of_ranks_of_unflipped_samples():
    samples = random_samples()
    samples.loc[:9, "vote_entropy"] = np.nan
    found = ambiguity(samples, OWN)
    kept = samples[~samples["is_flipped"] & (samples.index > 9)]
    ranks = [rankdata(kept[name]) for name in ("weight", "vote_entropy")]
    expected = np.corrcoef(*ranks)[0, 1]
    assert found["entropy_correlation_weight"] == pytest.approx(expected)
    ordered = samples.assign(weight=samples["vote_entropy"] ** 2, p_gt=-samples["vote_entropy"])
    assert ambiguity(ordered, OWN)["entropy_correlation_weight"] == pytest.approx(1)
    assert ambiguity(ordered, OWN)["entropy_correlation_confidence"] == pytest.approx(-1)
    assert ambiguity(samples.drop(columns="vote_entropy"), OWN) == {}
    assert np.isnan(ambiguity(samples.assign(weight=1.0), OWN)["entropy_correlation_weight"])


def test_minority_shares_by_hand():
    samples = random_samples(20).assign(
        is_minority=np.arange(20) >= 15, weight=np.arange(20.0), cross_entropy=1.0
    )
    found = minority_shares(samples, OWN)
    assert found["minority_share_of_samples"] == 0.25
    # 15 + ... + 19 of 0 + ... + 19.
    assert found["minority_share_of_weight"] == pytest.approx(85 / 190)
    assert found["minority_share_of_top_weight"] == 1
    assert found["minority_share_of_loss"] == pytest.approx(0.25)
    # NLA multiplies by 1 + w.
    nla = minority_shares(samples, OWN, adds_to_one=True)
    assert nla["minority_share_of_weight"] == pytest.approx((85 + 5) / (190 + 20))
    assert nla["minority_share_of_top_weight"] == 1
    assert nla["minority_share_of_loss"] == found["minority_share_of_loss"]
    without = minority_shares(samples.drop(columns="weight"), OWN)
    assert not any(name.endswith("_weight") and "focal" not in name for name in without)


def test_scores_are_those_recorded():
    samples = random_samples().assign(attention=0.5)
    table = scores(samples, OWN)
    assert set(table) == {"loss", "confidence", "margin", "focal_weight", "weight", "attention"}
    assert table["margin"].iloc[0] == samples["p_gt"].iloc[0] - samples["p_nn"].iloc[0]


# Of a run's files.

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
        facts = {"epoch": epoch, "image_id": train["image_id"], "p_gt": p_gt, "p_nn": 0.15}
        facts |= {"predicted": train[column].astype(float), "cross_entropy": -np.log(p_gt)}
        epochs.append(pd.DataFrame({**facts, "weight": p_gt / 2}))
    # In another order than the index: rows are matched by image.
    pd.concat(epochs).sample(frac=1, random_state=0).to_parquet(config.folder / "naw.parquet")
    known = ["image_id", "part", "label", "true_label", "is_flipped"]
    index[known].to_parquet(config.folder / "samples.parquet")
    (config.folder / "done").write_text(json.dumps({"seconds": 1.0}))


def test_facts_of_a_run(runs, index):
    write_run(CONFIG, index)
    facts = run_epoch_numbers(CONFIG)  # reads the data set itself
    found = facts.set_index(["epoch", "metric"])["value"]
    assert facts["epoch"].unique().tolist() == [0, 1]
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
    assert found[1, "minority_share_of_samples"] == found[0, "minority_share_of_samples"] > 0


def test_facts_of_a_study_name_their_runs(runs, index, monkeypatch):
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


def test_disambiguation_by_hand():
    samples = pd.DataFrame(
        {
            "label": [0, 1, 2, 3, 4],
            "true_label": [0, 1, 0, 3, 4],
            "identified": [0.0, 1.0, 2.0, 5.0, 6.0],
            "candidates": [1, 2, 2, 4, 4],
        }
    )
    assert disambiguation(samples) == pytest.approx(
        {
            "disambiguated": 2 / 4,
            "disambiguated_by_chance": (1 / 2 + 1 / 2 + 1 / 4 + 1 / 4) / 4,
            "disambiguated_share": 4 / 5,
            "disambiguated_true": 1 / 4,
        }
    )
    assert "disambiguated_true" not in disambiguation(samples.drop(columns="true_label"))
    assert disambiguation(samples.assign(candidates=1)) == {}
    assert disambiguation(samples.drop(columns=["identified", "candidates"])) == {}


def test_relabelling_by_hand():
    samples = pd.DataFrame(
        {
            "label": [0, 1, 2, 3, 4, 5],
            "true_label": [0, 1, 0, 0, 4, 0],
            "stored_label": [0.0, 2.0, 0.0, 1.0, 4.0, 5.0],
            "is_flipped": [False, False, True, True, False, True],
        }
    )
    assert relabelling(samples) == pytest.approx(
        {
            "relabelled": 3 / 6,
            "relabelled_flipped": 2 / 3,
            "relabelled_clean": 1 / 3,
            "relabelled_to_true": 1 / 3,
            "stored_true": 3 / 6,
            "given_true": 3 / 6,
        }
    )
    unknown = samples.drop(columns=["true_label", "is_flipped"])
    assert relabelling(unknown) == {"relabelled": 3 / 6}
    assert relabelling(samples.drop(columns="stored_label")) == {}
    kept = relabelling(samples.assign(stored_label=samples["label"]))
    assert kept["relabelled"] == 0
    assert np.isnan(kept["relabelled_to_true"])
    assert kept["stored_true"] == kept["given_true"] == 3 / 6


def test_disambiguation_of_a_run_counts_its_own_candidate_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))
    config = RunConfig(method="proden", candidate_threshold=2.0, train_images=200, epochs=1)
    train = load_dataset(config.data)[0].query("part == 'train'").reset_index(drop=True)
    sizes, right = [], []
    identified = np.arange(len(train)) % 7
    for row, found in zip(train.to_dict("records"), identified, strict=True):
        votes = [row[f"votes_{name}"] for name in expressions(7)]
        size = sum(count >= 2 or count == max(votes) for count in votes)
        if size > 1:
            sizes.append(size)
            right.append(found == row["label"])
    config.folder.mkdir(parents=True)
    facts = pd.DataFrame(
        {
            "epoch": 0,
            "image_id": train["image_id"],
            "p_gt": 0.5,
            "p_nn": 0.2,
            "cross_entropy": 0.7,
            "identified": identified.astype(np.float32),
        }
    )
    facts.sample(frac=1, random_state=0).to_parquet(config.folder / "naw.parquet")
    table = run_epoch_numbers(config).set_index("metric")["value"]
    assert table["disambiguated"] == pytest.approx(np.mean(right))
    assert table["disambiguated_by_chance"] == pytest.approx(np.mean([1 / n for n in sizes]))


def test_minority_is_counted_among_the_highest_tenth_and_focal_weight_is_squared():
    """Of 20 samples the two highest: with more of them others would take part."""
    p_gt = np.arange(20) / 20  # the first are the hardest
    samples = random_samples(20).assign(
        is_minority=np.isin(np.arange(20), (0, 1, 18, 19)), weight=np.arange(20.0), p_gt=p_gt
    )
    found = minority_shares(samples, OWN)
    assert found["minority_share_of_top_weight"] == 1
    assert found["minority_share_of_top_focal_weight"] == 1
    squares = (1 - p_gt) ** 2
    expected = squares[[0, 1, 18, 19]].sum() / squares.sum()
    assert found["minority_share_of_focal_weight"] == pytest.approx(expected)


@pytest.mark.parametrize("method", ["nla", "nla_candidates", "nla_soft", "focal"])
def test_a_run_counts_its_weight_as_its_method_says(tmp_path, monkeypatch, method):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))
    config = RunConfig(method=method, train_images=180, test_images=40)
    index, _ = load_dataset(config.data)
    train = index[index["part"] == "train"]
    names = train["image_id"].to_numpy()
    samples = random_samples(len(names))[["p_gt", "p_nn", "cross_entropy", "weight", "predicted"]]
    config.folder.mkdir(parents=True)
    samples.assign(image_id=names, epoch=0).to_parquet(config.folder / "naw.parquet")
    found = run_epoch_numbers(config, index).set_index("metric")["value"]
    minority = is_minority(train["label"].to_numpy(), 7)
    weight = samples["weight"].to_numpy() + (method != "focal")
    expected = weight[minority].sum() / weight.sum()
    assert found["minority_share_of_weight"] == pytest.approx(expected)
