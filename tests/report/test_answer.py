"""The first screen, counted once more from the committed tables."""

import csv
import re
from functools import cache

import numpy as np
import pytest

from nlalib.paths import ROOT
from nlalib.report.answer import answer_section, verdicts
from nlalib.report.claims import CLAIMS, CONVERGED, MAIN
from nlalib.report.ledger import ledger


@cache  # it reads a dozen tables
def answer_lines() -> list[str]:
    return answer_section().splitlines()


def test_verdicts_name_the_rule_that_they_hang_on():
    claims = ledger()
    main = claims["regime"] == CONVERGED
    claims["verdict"] = claims["verdict"].where(claims["verdict"] == "not run", "inconclusive")
    assert verdicts(claims) == "**No verdict yet:** the other 14 of 14 claims."
    claims.loc[main & (claims["number"] == 10), "verdict"] = "falsified"
    is_last = claims["selection"] == "last"
    claims.loc[main & (claims["number"] == 8) & is_last, "verdict"] = "verified"
    leads = next(claim.words for claim in CLAIMS if claim.number == 10).rstrip(".")
    assert verdicts(claims) == (
        "**Verified:** It gains under label noise (drawn by lot) (8, last epoch alone). "
        f"**Falsified:** {leads} (10). **No verdict yet:** the other 12 of 14 claims."
    )


def test_accuracies_of_the_first_screen_by_a_plain_loop():
    """Read once more, without pandas."""
    with open(ROOT / "results" / f"{MAIN}.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["selection"] == "best_validation"]
    table = answer_lines()
    (line,) = (t for t in table if t.startswith("| 20% wrong labels, epoch chosen"))
    cells = [cell.strip() for cell in line.strip("|").split("|")][1:4]
    for method, cell in zip(("ce", "nla", "eac"), cells, strict=True):
        means = []
        for metric in ("overall_accuracy", "mean_accuracy"):
            values = [
                float(row["value"])
                for row in rows
                if row["method"] == method and row["metric"] == metric
                and float(row["noise_rate"]) == 0.2
            ]  # fmt: skip
            assert len(values) == 5
            means.append(f"{100 * sum(values) / 5:.1f}")
        assert cell == " / ".join(means)


def test_mean_accuracy_of_stopping_early_by_a_plain_loop():
    """Cross-entropy at the epoch of its highest mean accuracy on held-out images."""
    last, stopped = {}, {}
    with open(ROOT / "results" / f"{MAIN}_epochs.csv") as file:
        for row in csv.DictReader(file):
            if float(row["noise_rate"]) == 0.2:
                both = float(row["validation_mean_accuracy"]), float(row["test_mean_accuracy"])
                if row["method"] == "nla":
                    last[row["seed"]] = both[1]  # the last row is that of the last epoch
                elif row["method"] == "ce" and both[0] > stopped.get(row["seed"], (0, 0))[0]:
                    stopped[row["seed"]] = both
    gains = [100 * (value - stopped[seed][1]) for seed, value in last.items()]
    assert len(gains) == 5
    (line,) = (t for t in answer_lines() if "Stopping cross-entropy early" in t)
    assert f"In mean accuracy it is {np.mean(gains):+.1f} [" in line


def test_gain_on_labels_that_people_got_wrong_by_a_plain_loop():
    with open(ROOT / "results" / "human_noise.csv") as file:
        rows = list(csv.DictReader(file))
    chosen = {"metric": "overall_accuracy", "selection": "last", "settings": ""}
    (line,) = (t for t in answer_lines() if "labels that people got wrong" in t)
    for source in ("fer2013", "fer2013, matched"):
        values = {
            (row["method"], row["seed"]): float(row["value"])
            for row in rows
            if row["label_source"] == source and all(row[k] == v for k, v in chosen.items())
        }
        gains = [
            100 * (value - values["ce", seed])
            for (method, seed), value in values.items()
            if method == "nla" and ("ce", seed) in values
        ]
        assert len(gains) >= 2
        assert f"{np.mean(gains):+.1f} [" in line


@pytest.mark.parametrize(
    ("method", "begin", "end"),
    [("ldl", "(LDL)", "Candidate sets"), ("proden", "(PRODEN)", "seeds on CPUs")],
)
def test_gains_of_learning_from_votes_by_a_plain_loop(method, begin, end):
    with open(ROOT / "results" / "face_votes.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["selection"] == "last"]
    (line,) = (t for t in answer_lines() if "(PRODEN)" in t)
    told = line.partition(begin)[2].partition(end)[0]
    shown = [float(number) for number in re.findall(r"([+-][\d.]+) \[", told)]
    gains = []
    for metric in ("overall_accuracy", "mean_accuracy", "ece"):
        values = {
            (row["method"], row["seed"]): float(row["value"])
            for row in rows
            if row["metric"] == metric and row["method"] in (method, "ce")
        }
        seeds = [seed for of, seed in values if of == method]
        assert len(seeds) == 3
        gains.append(100 * np.mean([values[method, seed] - values["ce", seed] for seed in seeds]))
    assert shown == [float(f"{gain:.1f}") for gain in gains]


def test_what_a_better_label_is_worth_by_a_plain_loop():
    with open(ROOT / "results" / "human_noise.csv") as file:
        rows = list(csv.DictReader(file))
    values = {
        (row["label_source"], row["method"], row["seed"]): 100 * float(row["value"])
        for row in rows
        if (row["metric"], row["selection"], row["settings"]) == ("overall_accuracy", "last", "")
    }
    (line,) = (t for t in answer_lines() if "to the majority of ten votes" in t)
    compared = (("rule", "ce"), ("rule", "ldl"), ("fer2013", "nla"))
    for labels, words in zip(
        compared, ("ten votes", "(LDL)", "FER2013's label gains"), strict=True
    ):
        gains = [values[*labels, seed] - values["fer2013", "ce", seed] for seed in "012"]
        assert f"{np.mean(gains):+.1f} [" in line.partition(words)[2].split("]")[0] + "]"


def test_accuracy_from_all_training_images_by_a_plain_loop():
    (line,) = (t for t in answer_lines() if "From all training images of FERPlus" in t)
    values = {}
    for study in ("face_full", "face_parts"):
        with open(ROOT / "results" / f"{study}.csv") as file:
            for row in csv.DictReader(file):
                condition = row["method"], row["selection"], float(row["noise_rate"])
                if condition == ("ce", "last", 0):
                    values[study, row["metric"], row["seed"]] = 100 * float(row["value"])
    seeds = {seed for study, _, seed in values if study == "face_full"}
    seeds &= {seed for study, _, seed in values if study == "face_parts"}
    for study, words in (("face_full", "ends here at"), ("face_parts", "of them at")):
        told = " / ".join(
            f"{np.mean([values[study, metric, seed] for seed in seeds]):.1f}"
            for metric in ("overall_accuracy", "mean_accuracy")
        )
        assert f"{words} {told} %" in line


def test_what_a_wrong_label_counts_by_a_plain_loop():
    by_epoch = {}
    with open(ROOT / "results" / "face_records_epochs.csv") as file:
        for row in csv.DictReader(file):
            if float(row["noise_rate"]) == 0.2:
                both = row["mean_weight_of_flipped"], row["mean_weight_of_clean"]
                by_epoch.setdefault(int(row["epoch"]), []).append([*map(float, both)])
    means = [np.mean(by_epoch[epoch], axis=0) for epoch in sorted(by_epoch)]
    least = min(range(len(means)), key=lambda epoch: means[epoch][0] / means[epoch][1])
    (line,) = (t for t in answer_lines() if "still counts in full" in t)
    wrong, right = 1 + means[least]
    assert (
        f"in epoch {least + 1}, where the two differ most, is {wrong:.2f} for wrong labels" in line
    )
    assert f"and {right:.2f} for right ones" in line
    wrong, right = 1 + means[-1]
    assert f"at the end {wrong:.2f} and {right:.2f}" in line
