"""Words for results: by examples, and against the table they come from."""

from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from made_runs import differences_of

from nlalib.report.reading import (
    Folded,
    by_seed,
    check_findings,
    differences_in_words,
    over_seeds,
    standing,
    verdict,
    with_interval,
)


def test_findings_that_fail_are_shown_and_raise_nothing():
    shown = check_findings({"One is one.": True, "One is two.": np.bool_(False)})
    assert shown.data["holds"].to_dict() == {"One is one.": "yes", "One is two.": "no"}


def row(difference: float, p: float = 0.01):
    ends = {"low": difference - 1, "high": difference + 1}
    no_images = dict.fromkeys(("images_low", "images_high", "p_images_holm"), np.nan)
    return SimpleNamespace(difference=difference, p_seeds_holm=p, **ends, **no_images)


@pytest.mark.parametrize(
    ("difference", "p", "more_is_better", "words"),
    [
        (2.0, 0.01, True, "better: holds"),
        (2.0, 0.2, True, "better: hint"),
        (2.0, 0.01, False, "worse: holds"),
        (-2.0, 0.01, True, "worse: holds"),
        (-2.0, 0.2, False, "better: hint"),
        (0.5, 0.01, True, "not told apart"),
        (-0.5, 0.01, False, "not told apart"),
    ],
)
def test_verdict(difference, p, more_is_better, words):
    assert verdict(row(difference, p), more_is_better=more_is_better) == words


def test_verdict_takes_a_level():
    assert verdict(row(2.0, 0.01), level=0.001) == "better: hint"


def test_interval_in_words():
    assert with_interval(0.94, -0.36, 2.2) == "+0.9 [-0.4, +2.2]"
    assert with_interval(-0.0501, -0.1, 0.04, digits=3) == "-0.050 [-0.100, +0.040]"
    assert with_interval(0.94, np.nan, np.nan) == "+0.9"


def test_paired_differences_over_seeds_in_words():
    # t of two degrees of freedom at 97.5 %: 4.303; the deviation of 1, 2, 3 is 1.
    assert over_seeds([1.0, 2.0, 3.0]) == f"+2.0 [{2 - 4.303 / 3**0.5:+.1f}, +4.5]"
    assert over_seeds(pd.Series([0.014]), 2) == "+0.01"  # one seed, no interval


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 2.0, "perhaps ahead of b"), (-2.0, -0.1, "perhaps behind b"),
     (-0.1, 2.0, "not told apart from b"), (np.nan, np.nan, "not told apart from b")],
)  # fmt: skip
def test_standing_of_what_nobody_corrected_is_at_most_a_hint(low, high, word):
    found = SimpleNamespace(difference=(low + high) / 2, low=low, high=high)
    assert standing(found, "b") == word


@pytest.mark.parametrize(
    ("difference", "p", "word"),
    [(2.0, 0.01, "ahead of b"), (-2.0, 0.01, "behind b"), (2.0, 0.2, "perhaps ahead of b"),
     (0.5, 0.01, "not told apart from b")],
)  # fmt: skip
def test_standing_of_what_was_corrected(difference, p, word):
    assert standing(row(difference, p), "b") == word


def test_values_by_seed():
    rows = pd.DataFrame(
        {"seed": [1, 0, 0], "method": ["ce", "ce", "nla"], "metric": "m", "value": [0.2, 0.1, 0.3]}
    )
    found = by_seed(rows, method="ce", metric="m")
    assert found.to_dict() == {0: 0.1, 1: 0.2}
    assert list(found.index) == [0, 1]
    with pytest.raises(ValueError, match="choose more columns"):
        by_seed(rows, metric="m")


def test_folded_table_is_one_line_that_opens():
    table = pd.DataFrame({"points": [1.5, -2.5]}, index=["ce", "a < b"])
    folded = Folded(table, "NLA < CE")
    assert repr(folded) == repr(table)
    page = ElementTree.fromstring(folded._repr_html_())
    assert page.tag == "details"
    assert page.find("summary").text == "NLA < CE (2 rows)"
    assert [cell.text for cell in page.iter("td")] == ["1.5", "-2.5"]
    assert "a < b" in [cell.text for cell in page.iter("th")]


def test_differences_in_words():
    rows = differences_of("nla", 0.1, [("mean_accuracy", -1.2)])
    rows += differences_of("nla", 0.1, [("mean_accuracy", 3)], selection="best_validation")
    (words,) = differences_in_words(pd.DataFrame(rows))
    assert words == ("nla, noise 10% - ce, mean accuracy: -1.2 [-2.2, -0.2] [-1.7, -0.7], n = 3")
