"""What single choices of a training are worth here: the numbers of docs/why_not_reproduced.md.

Each is a difference between runs (or between two readings of the same runs) that differ in that
choice and share the rest, paired by seed, from the published tables.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from nlalib.metrics import ONE_EPOCH_RULES
from nlalib.paths import ROOT
from nlalib.report.certainty import ACCURACIES
from nlalib.report.claims import MAIN
from nlalib.report.frame import (
    SETTING,
    chosen_by_its_own,
    markdown,
    published_file,
    published_table,
)
from nlalib.report.reading import by_seed, over_seeds

GRIDS = ("ferplus_small", "noise", "imbalance", "noise_networks", "ablation", "weak")


@dataclass(frozen=True)
class Choice:
    """One choice: runs that made it, and runs that made another.

    Attributes
    ----------
    words : str
        What was chosen, in place of what.
    shared : str
        What both kinds of run have in common.
    study, other_study : str
        Their tables; the second is the first where it is empty.
    rows, other_rows : dict
        Column and content of either kind, beside `settings`, which is "" unless named.
    """

    words: str
    shared: str
    study: str
    rows: dict
    other_rows: dict
    other_study: str = ""


_TRANSFORMER = {"method": "ce", "backbone": "vit_tiny_patch6"}
_NOISY = {"method": "ce", "noise_rate": 0.2}
_BF16 = _NOISY | {"precision": "bf16"}
_IMBALANCED = {"imbalance_factor": 100.0}
_RELEASED = {
    "variant=released_2025_05": "the released loss of May 2025, in place of the paper's",
    "variant=released_2025_03": "the released loss of March 2025, in place of the paper's",
    "consistency=released": "the released consistency alone, in place of the paper's",
}
CHOICES = (
    Choice(
        "masked pre-training on the set's own images, in place of random weights",
        "ce, small transformer",
        "weak",
        _TRANSFORMER | {"init": "ferplus-masked-seed0-b25e8a8c1e"},
        _TRANSFORMER | {"init": "random"},
    ),
    Choice(
        "ResNet-18, in place of a network of a tenth of its cost",
        "ce, 20 % wrong labels, from random weights",
        "noise_networks",
        _BF16 | {"backbone": "resnet18"},
        _BF16 | {"backbone": "resnet10_narrow16_stride2"},
    ),
    Choice(
        "bf16, in place of fp32",
        "ce, 20 % wrong labels",
        "noise_networks",
        _BF16 | {"backbone": "resnet10_narrow16_stride2"},
        _NOISY,
        other_study="noise",
    ),
    Choice(
        "classes evened out in the loss (logit adjustment), in place of nothing",
        "imbalance 100",
        "imbalance",
        _IMBALANCED | {"method": "logit_adjusted"},
        _IMBALANCED | {"method": "ce"},
    ),
    *(
        Choice(words, "nla", "ablation", {"method": "nla", "settings": settings}, {"method": "nla"})
        for settings, words in _RELEASED.items()
    ),
)


def differences(choice: Choice, metric: str) -> pd.Series:
    """Return the differences of a choice at the last epoch, one a seed that both kinds have."""
    wanted = {"settings": "", "selection": "last", "metric": metric}
    own, other = published_table(choice.study), published_table(choice.other_study or choice.study)
    gains = by_seed(own, **wanted | choice.rows) - by_seed(other, **wanted | choice.other_rows)
    return gains.dropna()


def effects() -> pd.DataFrame:
    """Return what each of `CHOICES` is worth, a row each, in words for readers."""
    rows = []
    for choice in CHOICES:
        row = {"choice": choice.words, "the same in both": choice.shared}
        for metric in ACCURACIES:
            gains = differences(choice, metric)
            row[metric.replace("_", " ")] = over_seeds(100 * gains)
        studies = " and ".join(filter(None, [choice.study, choice.other_study]))
        rows.append(row | {"seeds": len(gains), "study": f"`{studies}`"})
    return pd.DataFrame(rows)


def selection_worth() -> pd.DataFrame:
    """Return what a run's best test epoch has over other rules, in points: mean and largest.

    Each accuracy with the epoch that held-out images choose by that accuracy; "" where the runs did
    not record it. Without wrong labels and with them, of the methods that were run under both.
    """
    main = published_table(MAIN)
    of_both = main[np.isclose(main["noise_rate"], 0)]["method"].unique()
    main = main[main["method"].isin(of_both)]
    by_own = chosen_by_its_own(published_table(MAIN, "_epochs"), "mean_accuracy")
    kinds = {
        "six epochs, from random weights": pd.concat([published_table(study) for study in GRIDS]),
        "training ended, from face weights": main[main["noise_rate"] == 0],
        "the same, 20 % wrong labels": main[np.isclose(main["noise_rate"], 0.2)],
    }
    table = []
    for kind, rows in kinds.items():
        rows = rows[rows["metric"].isin(ACCURACIES) & rows["selection"].isin(ONE_EPOCH_RULES)]
        rows = rows.drop_duplicates(["run_id", "selection", "metric"])  # some serve two studies
        by_overall = (rows["metric"] == "mean_accuracy") & (rows["selection"] == "best_validation")
        rows = pd.concat([rows[~by_overall], by_own[by_own["run_id"].isin(rows["run_id"])]])
        wide = rows.pivot(index=["run_id", "metric"], columns="selection", values="value") * 100
        count = wide.index.get_level_values(0).nunique()
        for rule, words in {"last": "last", "best_validation": "best on held-out images"}.items():
            row = {"runs of": kind, "runs": count, "best test epoch less": words}
            for metric in ACCURACIES:
                gains = (wide["best_test"] - wide[rule]).xs(metric, level="metric").dropna()
                words = f"{gains.mean():+.1f} (largest {gains.max():+.1f})" if len(gains) else ""
                row[metric.replace("_", " ")] = words
            table.append(row)
    return pd.DataFrame(table)


def seed_spread() -> pd.DataFrame:
    """Return how far the seeds of one setting lie apart, in points: median and largest."""
    rows = pd.concat([published_table(study) for study in GRIDS])
    rows = rows[rows["selection"] == "last"].drop_duplicates(["run_id", "metric"])
    row = {}
    for metric in ACCURACIES:
        same = rows[rows["metric"] == metric].groupby(SETTING, dropna=False)["value"]
        apart = 100 * same.agg(np.ptp)[same.count() > 1]
        row["settings"] = len(apart)
        words = f"{apart.median():.1f} (largest {apart.max():.1f})"
        row[metric.replace("_", " ")] = words
    return pd.DataFrame([{"highest seed less lowest": "median over settings"} | row])


def label_rule_counts() -> pd.DataFrame:
    """Return how many of FERPlus' images each label rule keeps, and why it drops the others."""
    counts = pd.read_csv(ROOT / "figures" / "02_ferplus_label_rules.csv")
    dropped = ["tie", "no majority", "unknown", "not a face", "contempt"]
    table = counts.pivot(index="rule", columns="reason", values="images").fillna(0).astype(int)
    shown = [name for name in ["kept", *dropped] if name in table]
    return table[shown].map("{:,}".format).rename_axis(None, axis=1).reset_index()


def twins_worth() -> pd.DataFrame:
    """Return the accuracy that test images with a twin in the training set add, in points.

    Twins are looked for in the whole official training set, and in the part a run trained on.
    """
    rows = pd.read_csv(published_file("ferplus_small_leakage.csv"))
    among = {"official split": "the official training images", "run": "those trained on"}
    table = []
    for (method, twins, kind), same in rows.groupby(["method", "twins", "trained_on"]):
        row = {"method": method, "twins": twins, "twin among": among[kind]}
        row["test images with one"] = same["leaked"].iloc[0]
        for metric in ACCURACIES:
            gains = 100 * (same[metric] - same[f"{metric}_without"])
            row[metric.replace("_", " ")] = f"{gains.mean():+.1f}"
        table.append(row | {"seeds": len(same)})
    return pd.DataFrame(table)


SECTIONS = {
    "effects of choices": lambda: markdown(effects()),
    "worth of selection": lambda: markdown(selection_worth()),
    "spread of seeds": lambda: markdown(seed_spread()),
    "label rules": lambda: markdown(label_rule_counts()),
    "twins": lambda: markdown(twins_worth()),
}
