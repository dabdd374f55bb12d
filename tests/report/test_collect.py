"""From runs, in their folders or kept, to the long tables of a study."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_runs import LABELS, study_of, write_run

from nlalib.metrics import classification_metrics, vote_metrics
from nlalib.report import collect, frame, records
from nlalib.report.collect import finished_part, run_rows, study_epochs, study_table
from nlalib.report.frame import RESULT_COLUMNS, SETTING
from nlalib.report.records import predictions_of, read_record, write_prediction_table
from nlalib.training.config import RunConfig

CONFIG = RunConfig(epochs=4, noise_rate=0.1)
HITS = [LABELS < 1, LABELS < 4, LABELS < 6, (LABELS == 0) | (LABELS == 6)]
VALIDATION = [0.1, 0.6, 0.6, 0.2]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(frame, "ROOT", tmp_path)
    # The runs made here have images of no data set.
    monkeypatch.setattr(collect, "load_dataset", lambda choice: (pd.DataFrame(), None))
    return tmp_path / "runs"


def test_rows_of_a_run_by_hand(runs):
    write_run(CONFIG, HITS, validation=VALIDATION)
    rows = run_rows(CONFIG, "tiny")
    assert list(rows.columns) == RESULT_COLUMNS
    found = {(row.selection, row.metric): row.value for row in rows.itertuples()}
    assert len(found) == len(rows)
    share = [hit.mean() for hit in HITS]
    wanted = {
        ("last", "overall_accuracy"): share[3],
        ("last", "mean_accuracy"): 2 / 7,
        ("last", "recall_neutral"): 1.0,
        ("last", "recall_fear"): 0.0,
        ("last", "selected_epoch"): 3,
        ("last", "training_seconds"): 10.0,
        # The first of equals.
        ("best_validation", "overall_accuracy"): share[1],
        ("best_validation", "selected_epoch"): 1,
        ("last_five", "overall_accuracy"): sum(share) / 4,
        ("best_test", "overall_accuracy"): share[2],
        ("best_test", "mean_accuracy"): 6 / 7,
    }
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, abs=1e-6), key
    # Of 42 images those of two classes are right with .7, the others have .05 for their label.
    nll = (12 * -np.log(0.7) + 30 * -np.log(0.05)) / 42
    assert found["last", "nll"] == pytest.approx(nll, rel=2e-3)
    assert not any("vote" in metric for _, metric in found)
    identity = rows[["study", "run_id", *SETTING, "seed"]].drop_duplicates()
    assert identity.to_dict("records") == [
        {
            "study": "tiny",
            "run_id": CONFIG.run_id,
            "dataset": "rendered",
            "method": "nla",
            "settings": "",
            "backbone": "resnet18_narrow16",
            "init": "random",
            "precision": "fp32",
            "epochs": 4,
            "label_source": "rule",
            "noise_rate": 0.1,
            "imbalance_factor": 1.0,
            "seed": 0,
        }
    ]


def test_agreement_with_people_is_that_of_the_same_image(runs):
    write_run(CONFIG, HITS)
    generator = np.random.default_rng(0)
    ids = [f"i{number:03d}" for number in range(42)]
    votes = pd.DataFrame(generator.integers(0, 10, (42, 7)), index=ids)
    shuffled = votes.sample(frac=1, random_state=1)
    rows = run_rows(CONFIG, "tiny", shuffled).query("selection == 'last'")
    found = rows.set_index("metric")["value"]
    table = pd.read_parquet(CONFIG.folder / "predictions.parquet")
    table = table.query("part == 'test' and epoch == 3").set_index("image_id")
    probabilities = table.loc[ids].filter(like="p_").to_numpy()
    wanted = vote_metrics(votes.to_numpy(), probabilities)
    assert found["kl_to_votes"] == pytest.approx(wanted["kl_to_votes"], rel=1e-3)


def test_votes_of_other_images_are_refused(runs):
    write_run(CONFIG, HITS)
    with pytest.raises(ValueError, match="tested on images that its data set does not have now"):
        run_rows(CONFIG, "tiny", pd.DataFrame(np.ones((2, 7)), index=["i000", "other"]))


def test_row_names_the_choices_of_its_run(runs):
    settings = {"method_settings": {"trade_off": 0.25}, "precision": "bf16"}
    config = replace(CONFIG, method="nla", **settings)
    write_run(config, HITS)
    rows = run_rows(config, "tiny")
    assert rows["settings"].unique() == ["trade_off=0.25"]
    assert rows["precision"].unique() == ["bf16"]


def test_table_of_a_study_has_all_runs(runs):
    configs = [replace(CONFIG, seed=seed) for seed in (0, 1)]
    for config in configs:
        write_run(config, HITS)
    table = study_table(study_of(*configs))
    assert table["run_id"].unique().tolist() == [config.run_id for config in configs]
    assert table.index.tolist() == list(range(len(table)))


def test_missing_run_is_named_with_its_command(runs):
    write_run(CONFIG, HITS)
    missing = replace(CONFIG, seed=7)
    with pytest.raises(FileNotFoundError, match=f"run {missing.run_id} of study tiny") as caught:
        study_table(study_of(CONFIG, missing))
    assert "papermill notebooks/04_training.ipynb" in str(caught.value)
    assert "-p seed 7" in str(caught.value)
    # Files alone are no finished run.
    write_run(missing, HITS)
    (missing.folder / "done").unlink()
    with pytest.raises(FileNotFoundError, match="is not done"):
        study_table(study_of(CONFIG, missing))


def test_a_finished_run_counts_once_its_reference_is_there(runs):
    def config(method: str, seed: int, noise: float) -> RunConfig:
        return replace(CONFIG, method=method, seed=seed, noise_rate=noise)

    study = study_of(*(config(m, s, n) for m in ("ce", "nla") for s in (0, 1) for n in (0.0, 0.2)))
    for done in (("ce", 0, 0.0), ("nla", 0, 0.0), ("nla", 1, 0.0), ("ce", 1, 0.2)):
        write_run(config(*done), HITS)
    part = finished_part(study)
    assert sorted((c.method, c.seed, c.noise_rate) for c in part.runs.values()) == [
        ("ce", 0, 0.0), ("ce", 1, 0.2), ("nla", 0, 0.0),
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError, match="is not done"):
        finished_part(study_of(replace(CONFIG, seed=9)))


def test_a_study_without_its_reference_waits_for_none(runs):
    configs = [replace(CONFIG, method="nla", seed=seed) for seed in (0, 1)]
    write_run(configs[1], HITS)
    assert list(finished_part(study_of(*configs)).runs) == [configs[1].run_id]


def test_metrics_from_half_precision_are_those_of_the_run(runs):
    """Also of probabilities that half precision cannot hold: what is kept are their logarithms."""
    write_run(CONFIG, HITS, probability=1 - 6e-9)
    record = read_record(CONFIG, "tiny").at("last")
    assert record.filter(like="p_").min().min() == pytest.approx(1e-9, rel=0.02)
    table = pd.read_parquet(CONFIG.folder / "predictions.parquet")
    table = table.query("part == 'test' and epoch == 3").sort_values("image_id")
    whole = classification_metrics(table["label"].to_numpy(), table.filter(like="p_").to_numpy(), 7)
    found = run_rows(CONFIG, "tiny").query("selection == 'last'").set_index("metric")["value"]
    for name, value in whole.items():
        assert found[name] == pytest.approx(value, rel=2e-3, abs=1e-6), name


def test_a_run_whose_folder_is_gone_gives_the_same_table(runs, monkeypatch):
    study = study_of(CONFIG, replace(CONFIG, seed=1))
    for config in study.runs.values():
        write_run(config, HITS, validation=VALIDATION)
    monkeypatch.setattr(
        collect,
        "run_epoch_numbers",
        lambda config, index: pd.DataFrame({"epoch": [0], "metric": ["fact"], "value": [0.5]}),
    )
    before, epochs = study_table(study), study_epochs(study)
    assert set(epochs.query("metric == 'fitted_accuracy_given'")["value"]) == {0.5}
    assert set(epochs.query("metric == 'fitted_accuracy_given'")["epoch"]) == {3}
    file = records.predictions_file("tiny")
    write_prediction_table(predictions_of(study.runs.values(), "tiny"), file)
    assert file.stat().st_size < 100_000
    epochs.to_csv(records.epochs_file("tiny"), index=False)
    shutil.rmtree(CONFIG.folder)
    pd.testing.assert_frame_equal(study_table(study), before)
    again = study_epochs(study)
    pd.testing.assert_frame_equal(again, epochs)
    # And once more from what was kept of what was kept.
    again = predictions_of(study.runs.values(), "tiny")
    write_prediction_table(again, file.with_name("again.parquet"))
    one, other = map(pd.read_parquet, (file, file.with_name("again.parquet")))
    pd.testing.assert_frame_equal(one, other)
