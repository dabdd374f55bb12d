"""The first screen: what the main study says of NLA, and the claims."""

import numpy as np
import pandas as pd

from nlalib.report.answer_beside import (
    CE,
    RULES,
    below_published,
    better_labels,
    labels_of_people,
    learning_from_votes,
    notebook_link,
    other_machines,
    with_certainty,
)
from nlalib.report.certainty import ACCURACIES, certainty, paired_differences
from nlalib.report.claims import MAIN, RECORDED
from nlalib.report.frame import chosen_by_its_own, markdown, published_table
from nlalib.report.ledger import ledger
from nlalib.report.reading import in_points, standing

_NAMES = {"ce": CE, "nla": "NLA", "eac": "EAC"}


def answer_section() -> str:
    """Return what the main study says, in a table and sentences, as Markdown."""
    claims = ledger()
    sentences = [_stopped_early(), labels_of_people(), better_labels(), learning_from_votes()]
    sentences += [_rare(), _weight(), other_machines(), below_published()]
    bullets = "\n".join(f"- {sentence}" for sentence in [*sentences, verdicts(claims)])
    return f"{_accuracies()}\n\n{markdown(_beside_each_other())}\n\n{bullets}"


def _accuracies() -> str:
    """Return how far NLA and EAC are from cross-entropy, in sentences."""
    noisy = {rule: _difference("overall_accuracy", 0.2, rule) for rule in RULES}
    of_eac = {rule: _difference("overall_accuracy", 0.2, rule, "eac") for rule in RULES}
    last, chosen = map(with_certainty, noisy.values())
    eac = " and ".join(map(with_certainty, of_eac.values()))
    is_behind = all(of_eac[rule]["difference"] > noisy[rule]["difference"] for rule in RULES)
    clean = _difference("overall_accuracy", 0.0, "last")
    return (
        "**Does NLA work?** With 20 % of the labels drawn wrong NLA is "
        f"{standing(noisy['last'], CE)}: {last} points of overall accuracy at the last epoch, "
        f"{chosen} at the one that held-out images choose. EAC, an older method, gains"
        f"{' more' if is_behind else ''}: {eac}. Without wrong labels NLA is "
        f"{standing(clean, CE)} at the last epoch: {in_points(clean)} points; with {clean['n']} "
        f"seeds a true difference of {100 * clean['detectable']:.1f} points would be found in four "
        "tries of five."
    )


def _percent(method: str, metric: str, noise_rate: float, rule: str) -> str:
    """Return a method's mean over seeds in the main study, in percent; "" where it was not run."""
    table = published_table(MAIN)
    table = table[np.isclose(table["noise_rate"], noise_rate) & (table["method"] == method)]
    values = table.loc[(table["metric"] == metric) & (table["selection"] == rule), "value"]
    return f"{100 * values.mean():.1f}" if len(values) else ""


def _difference(metric: str, noise_rate: float, rule: str, method: str = "nla") -> pd.Series:
    """Return a method less cross-entropy in the main study."""
    table = published_table(MAIN, "_differences").query("method == @method and reference == 'ce'")
    table = table[np.isclose(table["noise_rate"], noise_rate) & (table["selection"] == rule)]
    return table.set_index("metric").loc[metric]


def _beside_each_other() -> pd.DataFrame:
    """Return accuracies of the main study and NLA's differences, a row a condition and a rule."""
    rows = []
    for noise_rate in (0.2, 0.0):
        for rule, words in RULES.items():
            row = {"accuracy %, overall / mean": f"{noise_rate:.0%} wrong labels, {words}"}
            for method, name in _NAMES.items():
                values = [_percent(method, metric, noise_rate, rule) for metric in ACCURACIES]
                row[name] = " / ".join(filter(None, values)) or "not run"
            for metric, name in zip(ACCURACIES, ("overall", "mean"), strict=True):
                found = _difference(metric, noise_rate, rule)
                row[f"NLA - cross-entropy, {name}"] = f"{in_points(found)} {certainty(found)}"
            rows.append(row)
    return pd.DataFrame(rows)


def _stopped_early() -> str:
    """Return NLA's last epoch less cross-entropy that is stopped early, at 20 % noise."""
    results, epochs = published_table(MAIN), published_table(MAIN, "_epochs")
    of_last = results[results["selection"] == "last"]

    def less_stopped(metric: str, chosen: pd.DataFrame) -> pd.Series:
        early = paired_differences(
            pd.concat([of_last, chosen]), metric, "last", reference_selection="best_validation"
        )
        of_nla = early[(early["method"] == "nla") & np.isclose(early["noise_rate"], 0.2)]
        return of_nla.iloc[0]

    by_overall = results[results["selection"] == "best_validation"]
    overall, mean = (less_stopped(metric, by_overall) for metric in ACCURACIES)
    by_its_own = less_stopped("mean_accuracy", chosen_by_its_own(epochs, "mean_accuracy"))
    is_equal = overall["p_equivalent"] < 0.05
    answer = "Stopping cross-entropy early buys" if is_equal else "Does stopping early buy"
    late = _difference("mean_accuracy", 0.2, "last")
    return (
        f"**{answer} the same overall accuracy{'**:' if is_equal else '?**'} NLA's last epoch is "
        f"{in_points(overall)} points from cross-entropy at the epoch that held-out images choose"
        f"{', equal within a point' if is_equal else ''}. In mean accuracy it is "
        f"{in_points(by_its_own)} where mean accuracy on held-out images chooses, "
        f"{in_points(mean)} where overall accuracy does, and {with_certainty(late)} from "
        f"cross-entropy's last epoch (only the last is corrected; {notebook_link(14)})."
    )


def _rare() -> str:
    """Return what overall accuracy hides, at 20 % noise."""
    last, chosen = (
        {name: _percent(of, "recall_disgust", 0.2, rule) for of, name in _NAMES.items()}
        for rule in RULES
    )
    least = min(last, key=lambda name: float(last[name]))
    shown = ", ".join(f"{name} {last[name]} and {chosen[name]} %" for name in last)
    return (
        f"**{least} recognises the rarest expression least**: of disgust (23 test images), at the "
        f"last and at the chosen epoch with 20 % wrong labels, {shown} ({notebook_link(14)})."
    )


def _weight() -> str:
    """Return what a wrong label counts in the loss, beside a right one, over the epochs."""
    table = published_table(RECORDED, "_epochs").query("noise_rate == 0.2")
    means = table.pivot_table(index="epoch", columns="metric", values="value")
    wrong, right = means["mean_weight_of_flipped"], means["mean_weight_of_clean"]
    share = 100 * wrong / right
    least = share.idxmin()
    by_heart = 100 * means["fitted_flipped_as_given"].dropna().iloc[-1]
    return (
        f"**A wrong label still counts in full**: the loss is multiplied by 1 + w, which in epoch "
        f"{least + 1}, where the two differ most, is {1 + wrong[least]:.2f} for wrong labels and "
        f"{1 + right[least]:.2f} for right ones, and at the end {1 + wrong.iloc[-1]:.2f} and "
        f"{1 + right.iloc[-1]:.2f}, when {by_heart:.0f} % of the wrong ones are learnt by heart "
        f"({table['seed'].nunique()} seeds on CPUs that recorded it). In the paper's figure w is "
        f"about zero for wrong labels ({notebook_link(12)})."
    )


def verdicts(claims: pd.DataFrame) -> str:
    """Return the claims that have a verdict, and under which rule if not under all.

    Parameters
    ----------
    claims : pandas.DataFrame
        As `nlalib.report.ledger.ledger` returns.
    """
    told, open_ones = [], set(claims["number"])
    for verdict in ("verified", "falsified"):
        words = []
        for (number, _), same in claims.groupby(["number", "regime"]):
            having = same[same["verdict"] == verdict]
            if len(having):
                alone = having["selection"].item() if len(having) < len(same) else None
                only = f", {RULES[alone]} alone" if alone else ""
                words.append(f"{same['claim'].iloc[0].rstrip('.')} ({number}{only}).")
                open_ones.discard(number)
        told += [f"**{verdict.capitalize()}:** {' '.join(words)}"] if words else []
    left = f"**No verdict yet:** the other {len(open_ones)} of {claims['number'].nunique()} claims."
    return " ".join([*told, left])
