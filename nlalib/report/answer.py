"""The first screen: what the main study says of NLA, and the other studies beside it."""

import numpy as np
import pandas as pd

from nlalib.data.label_sources import RULE
from nlalib.paths import ROOT
from nlalib.report.certainty import ACCURACIES, certainty, paired_differences, student_interval
from nlalib.report.claims import MAIN, RECORDED
from nlalib.report.frame import chosen_rows, markdown, published_table
from nlalib.report.ledger import ledger
from nlalib.report.machines import TOGETHER, gains_by_machine
from nlalib.report.reading import in_points, side, sides

# Under which rules an epoch is chosen, in words of a reader.
RULES = {"last": "last epoch", "best_validation": "epoch chosen on held-out images"}
_BOTH = {metric: metric.replace("_", " ") for metric in ACCURACIES}


def answer_section() -> str:
    """Return what the main study says, in a table and sentences, as Markdown."""
    claims = ledger()
    sentences = [_stopped_early(), _people(), _better_label(), _votes()]
    sentences += [_rare(), _weight(), _machines()]
    bullets = "\n".join(f"- {sentence}" for sentence in [*sentences, verdicts(claims)])
    return f"{_accuracies()}\n\n{markdown(_beside_each_other())}\n\n{bullets}"


def _accuracies() -> str:
    """Return how far NLA and EAC are from cross-entropy, in sentences."""
    noisy = {rule: _difference("overall_accuracy", 0.2, rule) for rule in RULES}
    of_eac = {rule: _difference("overall_accuracy", 0.2, rule, "eac") for rule in RULES}
    last, chosen = (f"{in_points(row)} points ({certainty(row)})" for row in noisy.values())
    is_behind = all(of_eac[rule]["difference"] > noisy[rule]["difference"] for rule in RULES)
    clean = _difference("overall_accuracy", 0.0, "last")
    return (
        f"**Does NLA work?** With 20 % of the labels drawn wrong it is {side(noisy['last'])}, "
        f"beside cross-entropy: {last} of overall accuracy at the last epoch, {chosen} at the one "
        f"that held-out images choose. EAC, an older method, gains{' more' if is_behind else ''}: "
        f"{_points(of_eac)}. Without wrong labels NLA is {side(clean)}: {in_points(clean)}; "
        f"{100 * clean['detectable']:.1f} would have shown, in four tries of five."
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
            for method, name in (("ce", "cross-entropy"), ("nla", "NLA"), ("eac", "EAC")):
                values = [_percent(method, metric, noise_rate, rule) for metric in ACCURACIES]
                row[name] = " / ".join(filter(None, values)) or "not run"
            for metric, name in zip(ACCURACIES, ("overall", "mean"), strict=True):
                found = _difference(metric, noise_rate, rule)
                row[f"NLA - cross-entropy, {name}"] = f"{in_points(found)} {certainty(found)}"
            rows.append(row)
    return pd.DataFrame(rows)


def _stopped_early() -> str:
    """Return NLA's last epoch less cross-entropy that is stopped early, at 20 % noise."""
    found = {}
    for metric, words in _BOTH.items():
        early = paired_differences(
            published_table(MAIN), metric, "last", reference_selection="best_validation"
        )
        of_nla = early[(early["method"] == "nla") & np.isclose(early["noise_rate"], 0.2)]
        found[words] = of_nla.iloc[0]
    return (
        f"**Against cross-entropy that stops early, NLA's last epoch is {sides(found)}**: "
        f"{_points(found)} points, where held-out images say when to stop (not corrected; "
        f"{_link(14)})."
    )


def _points(found: dict[str, pd.Series]) -> str:
    """Return differences in points, with their intervals."""
    return " and ".join(map(in_points, found.values()))


def _link(number: int) -> str:
    """Return a link to a notebook."""
    (path,) = (ROOT / "notebooks").glob(f"{number:02}_*.ipynb")
    return f"[{number:02}](notebooks/{path.name})"


def _machines() -> str:
    """Return what the machine does to NLA's gain without wrong labels, on the seeds of both."""
    on_cpu, on_gpu = published_table("face_parts"), published_table(MAIN)
    tables = {"on a GPU": on_gpu, "on CPUs": on_cpu}
    last, chosen = (gains_by_machine(tables, "overall_accuracy", rule) for rule in RULES)
    both = {
        name: f"{in_points(last.loc[name])} and {in_points(chosen.loc[name])}"
        for name in last.index
    }
    apart = 100 * abs(last.loc["on CPUs", "difference"] - last.loc["on a GPU", "difference"])
    return (
        f"**The machine moves NLA's gain without wrong labels by {apart:.1f} points**: the same "
        f"{last['n'].iloc[0]:.0f} seeds give {'; '.join(f'{both[name]} {name}' for name in tables)}"
        f", at the last epoch and at the chosen one. All {last.loc[TOGETHER, 'n']:.0f} pairs of "
        f"runs give {both[TOGETHER]} (neither declared nor corrected; {_link(14)}). Twelve new "
        "seeds are declared (`configs/face_seeds.yaml`)."
    )


def _people() -> str:
    """Return what NLA gains on labels that people got wrong, and on as many drawn by lot."""
    source, twin = "fer2013", "fer2013, matched"
    gaps = published_table("human_noise", "_differences").query("settings == ''")
    gaps = gaps.set_index(["reference", "label_source", "method", "selection", "metric"]).loc["ce"]

    def gains(labels: str, method: str, rule: str) -> dict[str, pd.Series]:
        return {words: gaps.loc[labels, method, rule, name] for name, words in _BOTH.items()}

    last, chosen = (gains(source, "nla", rule) for rule in RULES)
    drawn = gains(twin, "nla", "last")["overall accuracy"]
    epochs = published_table("human_noise", "_epochs").query("method == 'nla' and settings == ''")
    at_end = epochs[epochs["epoch"] == epochs["epochs"] - 1]
    found = at_end.pivot_table(index="label_source", columns="metric", values="value")
    found = found["auroc_within_label_low_weight"]
    wrong = pd.read_csv(ROOT / "figures" / "02_ferplus_wrong_labels.csv")
    of_classes = wrong[wrong["by"] == "class"]
    share = np.average(of_classes[source], weights=of_classes["images"])
    return (
        f"**On labels that people got wrong, beside cross-entropy, NLA is {sides(last)}**: "
        f"{_points(last)} points at the last epoch, {_points(chosen)} at the chosen one. These are "
        f"FER2013's own labels, {100 * share:.0f} % of which contradict the ten annotators; "
        f"{last['overall accuracy']['n']} seeds. Where as many are drawn by lot, it is "
        f"{in_points(drawn)} in overall accuracy. A low weight finds people's with an AUROC of "
        f"{found[source]:.2f}, drawn ones with {found[twin]:.2f} ({_link(13)})."
    )


def _better_label() -> str:
    """Return what the votes are worth in place of FER2013's label, beside NLA on that label."""
    plain = published_table("human_noise").query("settings == ''")
    rows = chosen_rows(plain, ACCURACIES[0], "last")
    of_seeds = rows.pivot(index=["label_source", "method"], columns="seed", values="value")
    gains = of_seeds - of_seeds.loc["fer2013", "ce"]
    majority, distribution, loss = (
        pd.Series(student_interval(gains.loc[labels]))
        for labels in ((RULE, "ce"), (RULE, "ldl"), ("fer2013", "nla"))
    )
    is_label = min(majority["low"], distribution["low"]) > loss["high"]
    answer = "Better labels are worth more than NLA" if is_label else "A better label, or NLA?"
    return (
        f"**{answer}**: from FER2013's label to the majority of ten votes cross-entropy gains "
        f"{in_points(majority)} points of overall accuracy, to their distribution (LDL) "
        f"{in_points(distribution)}; NLA on FER2013's label gains {in_points(loss)}. (The labels "
        f"of the test are of those votes; {_link(13)}.)"
    )


def _rare() -> str:
    """Return what overall accuracy hides, at 20 % noise."""
    names = {"ce": "cross-entropy", "nla": "NLA", "eac": "EAC"}
    recalls = {name: _percent(of, "recall_disgust", 0.2, "last") for of, name in names.items()}
    least = min(recalls, key=lambda name: float(recalls[name]))
    shown = ", ".join(f"{name} {recall} %" for name, recall in recalls.items())
    return (
        f"**{least} recognises the rarest expression least**: of disgust, at the last epoch with "
        f"20 % wrong labels, {shown} ({_link(14)})."
    )


def _weight() -> str:
    """Return what a wrong label weighs, beside a right one, over the epochs."""
    table = published_table(RECORDED, "_epochs").query("noise_rate == 0.2")
    means = table.pivot_table(index="epoch", columns="metric", values="value")
    share = 100 * means["mean_weight_of_flipped"] / means["mean_weight_of_clean"]
    return (
        f"**A wrong label keeps {share.min():.0f} % of a right one's weight at best**, in epoch "
        f"{share.idxmin() + 1}, and {share.iloc[-1]:.0f} % at the end, when it is learnt by heart; "
        f"the paper's figure has about none ({_link(12)})."
    )


def _votes() -> str:
    """Return what learning from the votes' distribution and from candidate sets gives."""
    votes = published_table("face_votes")
    gaps = pd.concat(paired_differences(votes, name, "last") for name in (*ACCURACIES, "ece"))
    of_method = gaps.set_index(["method", "metric"])
    ldl, sets = (
        {words: of_method.loc[method, name] for name, words in _BOTH.items()}
        for method in ("ldl", "proden")
    )
    of_ldl, of_sets = (in_points(of_method.loc[method, "ece"]) for method in ("ldl", "proden"))
    on_gpu = published_table(MAIN).query("method == 'ce' and noise_rate == 0")
    mixed = pd.concat([votes.query("method == 'ldl'"), on_gpu.assign(study="face_votes")])
    elsewhere = {
        words: paired_differences(mixed, name, "last").iloc[0] for name, words in _BOTH.items()
    }
    return (
        f"**Learning from the distribution of the votes (LDL) is {sides(ldl)}**: {_points(ldl)} "
        f"points from cross-entropy on the label, at the last epoch, {of_ldl} of calibration "
        f"error. Candidate sets (PRODEN), which stand for the second paper, are {sides(sets)}: "
        f"{_points(sets)}, and {of_sets}. {votes['seed'].nunique()} seeds on CPUs, not corrected; "
        f"from cross-entropy on a GPU LDL is {_points(elsewhere)} ({_link(9)})."
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
