"""Long tables: summaries, and the tables that readers see."""

import pandas as pd
import pytest
from made_runs import RESULTS, results_of

from nlalib.report.frame import (
    a_row_an_epoch,
    chosen_by_its_own,
    headline,
    markdown,
    percent,
    read_table,
    setting_in_words,
    summary,
)
from places import ROOT


def test_summary_is_mean_deviation_and_number():
    table = summary(RESULTS, "overall_accuracy", "last").set_index("method")
    assert table.loc["ce", "mean"] == pytest.approx(0.73)
    # Squared deviations .0009 + .0001 + .0016, over n - 1 = 2.
    assert table.loc["ce", "std"] == pytest.approx(0.0013**0.5)
    assert table["n"].tolist() == [3, 3]
    assert summary(RESULTS, "mean_accuracy", "last")["mean"].iloc[0] == pytest.approx(0.365)


def test_summary_of_one_seed_has_no_deviation():
    table = summary(results_of({"ce": [0.7]}), "overall_accuracy", "last")
    assert table["n"].tolist() == [1]
    assert table["std"].isna().all()


def test_summary_keeps_settings_apart():
    both = pd.concat([RESULTS, results_of({"ce": [0.1, 0.3]}, noise_rate=0.3)])
    table = summary(both, "overall_accuracy", "last")
    assert table["mean"].tolist() == pytest.approx([0.73, 0.7733333, 0.2])
    assert table["n"].tolist() == [3, 3, 2]


def test_runs_that_differ_in_something_untold_are_not_averaged():
    other = RESULTS.query("method == 'nla'").assign(run_id="nla with another lambda")
    with pytest.raises(ValueError, match="have one setting and seed: they differ in something"):
        summary(pd.concat([RESULTS, other]), "overall_accuracy", "last")


def test_settings_of_a_method_are_told_apart():
    other = RESULTS.query("method == 'nla'").assign(run_id="other", settings="trade_off=0.25")
    table = summary(pd.concat([RESULTS, other]), "overall_accuracy", "last")
    assert table["settings"].tolist() == ["", "", "trade_off=0.25"]
    assert table["n"].tolist() == [3, 3, 3]


def test_tables_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "tiny.csv"
    mixed = pd.concat([RESULTS, RESULTS.assign(settings="trade_off=0.25")], ignore_index=True)
    for table in (RESULTS, mixed):
        table.to_csv(path, index=False)
        pd.testing.assert_frame_equal(read_table(path), table, check_dtype=False)


def test_precision_of_older_tables_stood_among_the_settings(tmp_path):
    cells = {"": "", "precision=bf16": "", "precision=bf16, trade_off=0.25": "trade_off=0.25"}
    cells |= {"consistency=none, precision=fp16": "consistency=none"}
    older = pd.concat([RESULTS.head(1).assign(settings=cell) for cell in cells])
    older.drop(columns="precision").to_csv(tmp_path / "older.csv", index=False)
    table = read_table(tmp_path / "older.csv")
    assert table["settings"].tolist() == list(cells.values())
    assert table["precision"].tolist() == ["fp32", "bf16", "bf16", "fp16"]
    assert [setting_in_words(row) for _, row in table.iterrows()][1:3] == [
        "noise 10%, precision=bf16",
        "noise 10%, trade_off=0.25, precision=bf16",
    ]


def test_summary_of_nothing_says_what_there_is():
    with pytest.raises(ValueError, match=r"no rows for metric 'nll'.*mean_accuracy.*best_test"):
        summary(RESULTS, "nll", "last")


def test_percent():
    assert percent(0.7123, 0.0042) == "71.2 ± 0.4"
    assert percent(0.7123, float("nan")) == "71.2"


def test_headline_reads_in_words():
    table = headline(pd.concat([RESULTS, results_of({"other": [0.5]})]))
    assert len(table) == 9
    rules = ["last", "chosen on held-out images", "best on test"]
    assert table["epoch chosen"].drop_duplicates().tolist() == rules
    assert table.iloc[0].to_dict() == {
        "data set": "rendered",
        "method": "ce",
        "setting": "noise 10%",
        "network": "small",
        "init": "random",
        "epochs": 4,
        "epoch chosen": "last",
        "overall accuracy %": "73.0 ± 3.6",
        "mean accuracy %": "36.5 ± 1.8",
        "seeds": 3,
    }
    alone = table[table["method"] == "other"].iloc[0]
    assert (alone["overall accuracy %"], alone["seeds"]) == ("50.0", 1)


def test_setting_is_told_in_words():
    rows = results_of({"nla": [0.5]}, imbalance_factor=20.0, settings="trade_off=0.25")
    assert headline(rows)["setting"].iloc[0] == "noise 10%, imbalance 20, trade_off=0.25"
    plain = rows.assign(noise_rate=0.0, imbalance_factor=1.0, settings="")
    assert set(headline(plain)["setting"]) == {""}
    people = plain.assign(label_source="fer2013, matched")
    assert set(headline(people)["setting"]) == {"labels of fer2013, matched"}


def test_table_from_before_label_sources_is_of_the_rules_labels(tmp_path):
    RESULTS.drop(columns="label_source").to_csv(tmp_path / "old.csv", index=False)
    assert list(read_table(tmp_path / "old.csv")) == list(RESULTS)
    assert set(read_table(tmp_path / "old.csv")["label_source"]) == {"rule"}


def test_markdown_of_a_table():
    table = pd.DataFrame({"a b": [1, 2], "c": ["x", "y ± z"]})
    assert markdown(table) == "| a b | c |\n| --- | --- |\n| 1 | x |\n| 2 | y ± z |"


def test_numbers_over_epochs_come_back_from_a_row_an_epoch(tmp_path):
    runs = RESULTS.drop_duplicates("run_id").drop(columns=["selection", "metric", "value"])
    of_epochs = [
        runs.assign(epoch=epoch, metric=metric, value=value + epoch)
        for epoch in (0, 1)
        for metric, value in {"test_accuracy": 0.25, "epsilon": 0.5}.items()
        if (metric, epoch) != ("epsilon", 0)  # what is not known of each epoch is no number
    ]
    numbers = pd.concat(of_epochs, ignore_index=True)
    file = a_row_an_epoch(numbers)
    assert file.columns[-3:].tolist() == ["epoch", "test_accuracy", "epsilon"]
    assert len(file) == 2 * len(runs)
    assert file["epsilon"].isna().sum() == len(runs)
    file.to_csv(tmp_path / "tiny_epochs.csv", index=False)
    again = read_table(tmp_path / "tiny_epochs.csv")
    by = ["epoch", "metric", "run_id"]
    again = again.sort_values(by, ignore_index=True)[list(numbers)]
    expected = numbers.sort_values(by, ignore_index=True)
    pd.testing.assert_frame_equal(again, expected, check_dtype=False)


def test_an_accuracy_may_choose_its_own_epoch():
    """By a plain loop over the main study's epochs; not that of overall accuracy."""
    epochs = read_table(ROOT / "results" / "face_long_epochs.csv")
    found = chosen_by_its_own(epochs, "mean_accuracy").set_index("run_id")
    assert found["selection"].eq("best_validation").all()
    assert len(found) == epochs["run_id"].nunique()
    differing = 0
    for run_id, run in epochs.groupby("run_id"):
        values = run.pivot(index="epoch", columns="metric", values="value")
        best = {"mean": 0, "overall": 0}
        for epoch in values.index:
            for name, before in best.items():
                held_out = values[f"validation_{name}_accuracy"]
                if held_out[epoch] > held_out[before]:
                    best[name] = epoch
        assert found.at[run_id, "epoch"] == best["mean"]
        assert found.at[run_id, "value"] == values.at[best["mean"], "test_mean_accuracy"]
        differing += best["mean"] != best["overall"]
    assert differing
