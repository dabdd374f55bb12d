"""Differences in words."""

import pandas as pd
from made_runs import differences_of

from nlalib.report.words import difference_in_words, difference_table


def test_difference_in_words():
    row = differences_of("nla", 0.1, [("mean_accuracy", -1.2)])[0]
    assert difference_in_words(pd.Series(row)) == (
        "nla, noise 10% - ce, mean accuracy: -1.2 [-2.2, -0.2] [-1.7, -0.7], n = 3"
    )


def test_differences_of_a_method_as_a_table():
    accuracies = [("overall_accuracy", -1.2), ("mean_accuracy", 3)]
    one_seed = {"n": 1, "low": float("nan"), "high": float("nan"), "settings": "precision=bf16"}
    rows = differences_of("nla", 0.1, accuracies)
    rows += differences_of("scn", 0.1, accuracies)
    rows += differences_of("nla", 0.1, accuracies, selection="best_validation")
    rows += differences_of("nla", 0.2, accuracies, **one_seed)
    table = difference_table(pd.DataFrame(rows), "nla", passed=True)
    assert table.to_dict("records") == [
        {
            "difference": "nla - ce",
            "data set": "rendered",
            "setting": "noise 10%",
            "network": "small",
            "overall accuracy": "-1.2 [-2.2, -0.2] [-1.7, -0.7]",
            "mean accuracy": "+3.0 [+2.0, +4.0] [+2.5, +3.5]",
            "seeds": 3,
            "verdict": "holds, hint",
        },
        {
            "difference": "nla - ce",
            "data set": "rendered",
            "setting": "noise 20%, precision=bf16",
            "network": "small",
            "overall accuracy": "-1.2 [-1.7, -0.7]",  # over test images
            "mean accuracy": "+3.0 [+2.5, +3.5]",
            "seeds": 1,
            "verdict": "not told apart, not told apart",
        },
    ]
    # Runs that could not have told give no verdict, whatever the intervals.
    assert set(difference_table(pd.DataFrame(rows), "nla", passed=False)["verdict"]) == {
        "inconclusive"
    }
