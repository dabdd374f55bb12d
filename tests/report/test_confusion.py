"""Confusion matrices of kept runs, by counting."""

import pytest

from nlalib.data.labels import expressions
from nlalib.report.confusion import confusion, kept_by_seed
from nlalib.report.records import read_record
from nlalib.report.studies import read_study
from places import ROOT


def test_shares_are_counted_over_the_images_of_each_class():
    study = read_study(ROOT / "configs" / "face.yaml")
    runs = kept_by_seed(study, method="ce", noise_rate=0.2)
    assert 0 in runs
    table = read_record(runs[0], study.name).at("last")
    counts = [[0] * 7 for _ in range(7)]
    for row in table.itertuples(index=False):
        probabilities = list(row[1:])
        counts[row.label][probabilities.index(max(probabilities))] += 1
    found = confusion([runs[0]], study.name)
    assert list(found.index) == list(expressions(7))
    for row, own in zip(found.to_numpy(), counts, strict=True):
        assert row.tolist() == pytest.approx([count / sum(own) for count in own])


def test_several_runs_are_averaged_and_only_those_asked_for_are_found():
    study = read_study(ROOT / "configs" / "face.yaml")
    one, other = (kept_by_seed(study, method=m, noise_rate=0.2)[0] for m in ("ce", "nla"))
    both = confusion([one, other], study.name)
    halves = (confusion([one], study.name) + confusion([other], study.name)) / 2
    assert both.to_numpy().ravel().tolist() == pytest.approx(halves.to_numpy().ravel().tolist())
    assert kept_by_seed(study, method="nla", noise_rate=0.123) == {}
    with pytest.raises(ValueError, match="leave several runs for one seed"):
        kept_by_seed(study, method="nla")
