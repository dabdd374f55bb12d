"""Gains on several machines: of the seeds that all have, and of every pair."""

import numpy as np
import pandas as pd
import pytest

from nlalib.report.certainty import student_interval
from nlalib.report.frame import SETTING
from nlalib.report.machines import TOGETHER, apart, gains_by_machine, less_main_reference


def long_table(values: dict[str, dict[int, float]]) -> pd.DataFrame:
    """Return a table of a method's values by seed, of one metric, without wrong labels."""
    plain = dict.fromkeys(SETTING, "") | {"noise_rate": 0.0}
    rows = [
        plain | {"run_id": f"{method}{seed}", "method": method, "seed": seed, "value": value}
        for method, by_seed in values.items()
        for seed, value in by_seed.items()
    ]
    return pd.DataFrame(rows).assign(metric="overall_accuracy", selection="last")


def test_gains_of_shared_seeds_and_of_all_pairs():
    gpu = long_table({"nla": {0: 0.80, 1: 0.82, 2: 0.90}, "ce": {0: 0.79, 1: 0.78, 2: 0.80}})
    cpu = long_table({"nla": {0: 0.85, 1: 0.80, 5: 0.7}, "ce": {0: 0.80, 1: 0.82}})
    noisy = gpu.assign(noise_rate=0.2, value=0.0)
    parts = gpu.assign(settings="weighting=False", value=1.0)
    tables = {"GPU": pd.concat([gpu, noisy, parts]), "CPU": cpu}
    found = gains_by_machine(tables, "overall_accuracy", "last")
    assert found["n"].to_dict() == {"GPU": 2, "CPU": 2, "CPU less GPU": 2, TOGETHER: 5}
    assert found.loc["GPU", "difference"] == pytest.approx((0.01 + 0.04) / 2)
    assert found.loc["CPU", "difference"] == pytest.approx((0.05 - 0.02) / 2)
    paired = student_interval(np.array([0.05 - 0.01, -0.02 - 0.04]))
    for name in ("difference", "low", "high"):
        assert found.loc[apart(tables), name] == pytest.approx(paired[name])
    of_all = student_interval(np.array([0.01, 0.04, 0.10, 0.05, -0.02]))
    for name in ("difference", "low", "high"):
        assert found.loc[TOGETHER, name] == pytest.approx(of_all[name])


def test_methods_less_cross_entropy_of_the_main_study(monkeypatch):
    main = long_table({"nla": {0: 0.9}, "ce": {0: 0.70, 1: 0.72, 2: 0.80}})
    main = pd.concat([main, main.assign(noise_rate=0.2, value=0.1)]).assign(study="main")
    monkeypatch.setattr("nlalib.report.machines.published_table", lambda study: main)
    own = long_table({"ldl": {0: 0.75, 1: 0.79}, "ce": {0: 0.5, 1: 0.5}}).assign(study="own")
    noisy = own.assign(noise_rate=0.2)
    (row,) = less_main_reference(pd.concat([own, noisy]), "overall_accuracy", "last").itertuples()
    assert (row.method, row.n) == ("ldl", 2)
    assert row.difference == pytest.approx((0.05 + 0.07) / 2)
