"""People and the best possible on made-up votes, whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from made_runs import study_of, write_run
from scipy.stats import binom

from nlalib.data.choice import DataChoice
from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.labels import EXPRESSIONS
from nlalib.report import people
from nlalib.report.people import (
    COLUMNS,
    against_nine,
    agreement,
    best_possible,
    label_of,
    one_left_out,
    person,
    person_again,
    study_agreement,
)
from nlalib.report.true_votes import fit_votes, pair_agreement
from nlalib.training.config import RunConfig


def votes_of(seed: int, images: int = 60, annotators: int = 10) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.multinomial(annotators, generator.dirichlet(np.full(7, 0.5), images))


def test_person_is_each_annotator_against_the_others():
    votes = votes_of(0)
    found, distances, hits = person(votes), [], []
    for row in votes:
        voted = [label for label, count in enumerate(row) for _ in range(count)]
        for left_out, answer in enumerate(voted):
            others = np.bincount(voted[:left_out] + voted[left_out + 1 :], minlength=7)
            hits.append(answer == label_of(others[None])[0])
            distances.append(np.abs(others / 9 - np.eye(7)[answer]).sum())
    assert found["overall_accuracy"] == pytest.approx(np.mean(hits))
    assert found["manhattan_to_votes"] == pytest.approx(np.mean(distances))
    assert not {"kl_to_votes", "aurc", "vote_entropy_correlation"} & set(found)


def test_divided_and_unanimous_panels():
    """Of 5 to 5, whoever is left out meets 4 to 5 against him; of 10 to 0 he meets himself."""
    halves = person(np.array([[5, 5, 0, 0, 0, 0, 0]]))
    assert halves["overall_accuracy"] == halves["accuracy_4_to_6"] == 0
    assert halves["manhattan_to_votes"] == pytest.approx(2 * 5 / 9)
    same = person(np.array([[0, 10, 0, 0, 0, 0, 0]]))
    assert (same["overall_accuracy"], same["manhattan_to_votes"], same["share_10"]) == (1, 0, 1)
    both = person(np.array([[5, 5, 0, 0, 0, 0, 0], [0, 10, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]))
    assert both["overall_accuracy"] == 0.5  # a single annotator has no others


def test_images_count_alike_however_many_annotators_named_a_class():
    votes = np.array([[10, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [0, 3, 0, 0, 0, 2, 0]])
    image, answer, weights, others = one_left_out(votes)
    assert np.bincount(image, weights).tolist() == pytest.approx([1, 1, 1])
    assert list(zip(image, answer, strict=True)) == [(0, 0), (1, 0), (1, 1), (2, 1), (2, 5)]
    assert others.sum(axis=1).tolist() == [9, 1, 1, 4, 4]


def test_somebody_who_knows_the_votes_is_scored_against_nine_like_a_person():
    votes = votes_of(1)
    shares = votes / 10
    expected = [
        np.mean(
            [
                np.abs((row - np.eye(7)[k]) / 9 - row / 10).sum()
                for k in range(7)
                for _ in range(row[k])
            ]
        )
        for row in votes
    ]
    assert against_nine(votes, shares)["manhattan_to_votes"] == pytest.approx(np.mean(expected))
    assert agreement(votes, shares)["manhattan_to_votes"] == pytest.approx(0)


def test_second_panel_is_asked_one_by_one():
    first, second = votes_of(2, 20), votes_of(3, 20)
    found = person_again(first, second)
    labels, hits = label_of(first), []
    for row, label in zip(second, labels, strict=True):
        hits += [k == label for k in range(7) for _ in range(row[k])]
    assert found["overall_accuracy"] == pytest.approx(np.mean(hits))


def test_label_of_equal_counts_is_the_first_of_ferplus_files():
    row = np.zeros((1, 7), int)
    row[0, [EXPRESSIONS.index("fear"), EXPRESSIONS.index("neutral")]] = 5
    assert EXPRESSIONS[label_of(row)[0]] == "neutral"


def test_pair_agreement_is_that_of_all_pairs():
    votes = votes_of(4, 30)
    shares = []
    for row in votes:
        voted = [label for label, count in enumerate(row) for _ in range(count)]
        pairs = [(a, b) for i, a in enumerate(voted) for b in voted[:i]]
        shares.append(np.mean([a == b for a, b in pairs]))
    assert pair_agreement(votes) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_best_possible_where_all_images_have_one_distribution(share):
    """The distance of ten votes from (q, 1 - q) is that of a binomial's share, twice."""
    generator = np.random.default_rng(0)
    votes = np.zeros((3000, 7), int)
    votes[:, 0] = generator.binomial(10, share, 3000)
    votes[:, 1] = 10 - votes[:, 0]
    hits = np.arange(11)
    known = (binom.pmf(hits, 10, share) * 2 * np.abs(hits / 10 - share)).sum()
    found = best_possible(votes, votes)
    assert found["manhattan_to_votes"] == pytest.approx(known, rel=0.05)
    pairs = binom.pmf(hits, 10, share)[:, None] * binom.pmf(hits, 10, share)
    of_two = (pairs * 2 * np.abs(hits[:, None] - hits) / 10).sum()
    assert found["manhattan_of_two_panels"] == pytest.approx(of_two, rel=0.05)
    assert found["pair_agreement"] == pytest.approx(share**2 + (1 - share) ** 2, abs=0.01)
    # EM needs long to call a distribution the same everywhere.
    assert found["pair_agreement_modelled"] == pytest.approx(found["pair_agreement"], abs=0.02)


def test_best_possible_for_unanimous_votes_is_no_error():
    found = best_possible(
        np.tile([0, 10, 0, 0, 0, 0, 0], (500, 1)), np.tile([0, 10, 0, 0, 0, 0, 0], (500, 1))
    )
    assert found["manhattan_to_votes"] < 0.02
    assert found["overall_accuracy"] > 0.99


def test_best_possible_where_the_true_distributions_are_drawn_and_known():
    """Scored by the distributions themselves, and by the model that saw ten votes of each."""
    generator = np.random.default_rng(1)
    true = np.concatenate([
        generator.dirichlet([8, 1, 0.5, 0.2, 0.2, 0.2, 0.2], 2500),
        generator.dirichlet([0.2, 0.2, 0.2, 3, 3, 0.5, 0.5], 1500),
    ])  # fmt: skip
    votes, again = (generator.multinomial(10, true) for _ in range(2))
    known, found = agreement(again, true), best_possible(votes, votes)
    for name in ("manhattan_to_votes", "jsd_to_votes", "kl_to_votes", "overall_accuracy"):
        assert found[name] == pytest.approx(known[name], rel=0.06)
    assert found["vote_entropy_correlation"] == pytest.approx(
        known["vote_entropy_correlation"], abs=0.06
    )
    # To take ten votes' shares for the truth would have said less.
    drawn = generator.multinomial(10, votes / 10)
    assert agreement(drawn, votes / 10)["manhattan_to_votes"] < 0.95 * known["manhattan_to_votes"]


def test_fit_is_the_same_again():
    votes = votes_of(5, 200)
    one, other = fit_votes(votes), fit_votes(votes)
    assert np.array_equal(one.parameters, other.parameters)
    assert one.weights.sum() == pytest.approx(1)


def test_table_of_a_study_beside_people(monkeypatch):
    config = RunConfig(method="ce", epochs=2, train_images=60, test_images=42)
    labels = np.repeat(np.arange(7), 6)
    write_run(config, [np.zeros(42, bool), np.arange(42) % 2 == 0], labels)
    ids = [f"i{number:03d}" for number in range(42)]
    votes = pd.DataFrame(0, index=range(84), columns=VOTE_COLUMNS)
    counts = 2 * np.eye(7, dtype=int)[np.tile(labels, 2)] + 1
    votes[VOTE_COLUMNS[:7]] = counts
    part = np.repeat(["test", "train"], 42)
    index = votes.assign(image_id=[*ids, *(f"t{n}" for n in range(42))], part=part)
    monkeypatch.setattr("nlalib.report.people.load_dataset", lambda choice: (index, None))
    table = study_agreement(study_of(config, RunConfig(method="nla", epochs=2)))
    assert list(table) == COLUMNS
    values = table.set_index(["who", "selection", "against", "metric"])["value"].to_dict()
    assert values["run", "last", "ten votes", "overall_accuracy"] == 0.5
    assert values["run", "best_validation", "ten votes", "overall_accuracy"] == 0
    expected = person(counts[:42])["overall_accuracy"]
    assert {v for k, v in values.items() if k[0] == "person" and k[3] == "overall_accuracy"} == {
        expected
    }
    assert set(table["who"]) == {"run", "person", "true distribution"}
    with pytest.raises(FileNotFoundError, match="no run of study tiny is done or kept"):
        study_agreement(study_of(RunConfig(method="nla", epochs=2)))
    assert people.NINE in set(table["against"])


def test_copies_of_an_image_were_annotated_twice(tmp_path, monkeypatch):
    """All but the first copy count, where both panels have votes for a class."""
    (tmp_path / "FER2013Test").mkdir()
    (tmp_path / "FER2013Test" / "label.csv").touch()
    pixels = np.zeros((6, 2, 2, 3), np.uint8)
    pixels[[0, 2, 4]] = 1  # three copies of one, two of another, one alone
    pixels[5] = 2
    first, second = votes_of(6, 6), votes_of(7, 6)
    unknown = np.zeros((6, 3), int)
    second[4], unknown[4, 1] = 0, 10  # nobody of the second panel named a class
    tables = {
        which: pd.DataFrame(np.hstack([votes, more]), columns=VOTE_COLUMNS).assign(
            image_id=[f"i{n}" for n in range(6)]
        )
        for which, votes, more in (("fer2013new", first, 0 * unknown), ("label", second, unknown))
    }
    tables["label"] = tables["label"].iloc[::-1]
    monkeypatch.setattr(
        people, "read_ferplus_votes", lambda root, votes="fer2013new": (tables[votes], None)
    )
    monkeypatch.setattr(people, "image_array", lambda index, **places: pixels)
    found = people.annotated_twice(DataChoice(dataset="ferplus", data_root=str(tmp_path)))
    for votes, expected in zip(found, (first, second), strict=True):
        assert votes.tolist() == expected[[2, 3]].tolist()
    assert people.annotated_twice(DataChoice()) is None
