"""The table of a study's candidate sets, by rule."""

import pytest
import yaml

from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.labels import BASIC_EXPRESSIONS
from nlalib.data.splits import load_dataset, training_candidates
from nlalib.report import candidate_tables
from nlalib.report.candidate_tables import learns_from_candidates, study_candidates
from nlalib.report.studies import read_study
from nlalib.training.config import RunConfig

STUDY = {
    "study": "tiny",
    "title": "tiny",
    "notebooks": {},
    "fixed": {"train_images": 300, "test_images": 40, "image_size": 16},
    "grid": [
        {"method": ["ce"]},
        {"method": ["cc"], "candidate_threshold": [4.0], "seed": [0, 1]},
        {"method": ["proden"], "candidate_rule": ["mass"], "candidate_threshold": [0.9]},
    ],
}


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return read_study(path)


def test_methods_that_learn_from_candidates():
    found = {m: learns_from_candidates(RunConfig(method=m)) for m in ("ce", "ldl", "cc", "pico")}
    assert found == {"ce": False, "ldl": False, "cc": True, "pico": True}


def test_rows_equal_a_loop_over_images(study):
    table = study_candidates(study)
    used = set(table.loc[table["used"], ["rule", "threshold"]].itertuples(index=False, name=None))
    assert used == {("count", 4.0), ("mass", 0.9)}
    rules = set(table[["rule", "threshold"]].itertuples(index=False, name=None))
    assert rules == {*candidate_tables.ALTERNATIVES, ("count", 4.0)}
    assert not table.duplicated(["rule", "threshold", "expression"]).any()
    config = next(c for c in study.runs.values() if c.candidate_threshold == 4.0)
    index, _ = load_dataset(config.data)
    train = index[index["part"] == "train"]
    members = training_candidates(config.data, config.candidates, train)
    rows = table[(table["rule"] == "count") & (table["threshold"] == 4.0)].set_index("expression")
    for name in (*BASIC_EXPRESSIONS, "all"):
        inside = given = images = 0
        for row, own in zip(train.to_dict("records"), members, strict=True):
            if name in ("all", BASIC_EXPRESSIONS[row["label"]]):
                images += 1
                votes = [row[column] for column in VOTE_COLUMNS[:7]]
                given += sum(votes)
                inside += sum(v for v, kept in zip(votes, own, strict=True) if kept)
        assert rows.at[name, "images"] == images
        if given:
            assert rows.at[name, "votes_covered"] == pytest.approx(inside / given)
    every_vote = table[(table["rule"] == "mass") & (table["threshold"] == 1.0)]
    assert every_vote["votes_covered"].dropna().to_numpy() == pytest.approx(1)


def test_set_without_votes_has_the_rules_that_need_none(study, monkeypatch):
    index, dropped = load_dataset(RunConfig(**STUDY["fixed"]).data)
    bare = index.drop(columns=VOTE_COLUMNS)
    monkeypatch.setattr(candidate_tables, "load_dataset", lambda config: (bare, dropped))
    drawn = RunConfig(
        **STUDY["fixed"], method="cc", candidate_rule="random", candidate_threshold=0.2
    )
    monkeypatch.setitem(study.__dict__, "runs", {drawn.run_id: drawn})
    table = study_candidates(study)
    assert set(table["rule"]) == {"random"}
    assert set(table["threshold"]) == {0.1, 0.2, 0.3}
    assert table["votes_covered"].isna().all()


def test_study_with_noise_and_drawn_sets_is_described_by_all_rules(study, monkeypatch):
    drawn = {"candidate_rule": "random", "candidate_threshold": 0.2, "noise_rate": 0.1}
    noisy = RunConfig(**STUDY["fixed"], method="cc", **drawn)
    monkeypatch.setitem(study.__dict__, "runs", {noisy.run_id: noisy})
    table = study_candidates(study)
    assert set(table["rule"]) == {"count", "share", "mass", "random"}
    assert set(table.loc[table["used"], "threshold"]) == {0.2}
