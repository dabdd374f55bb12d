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
from nlalib.report.reading import in_points

# Under which rules an epoch is chosen, in words of a reader.
RULES = {"last": "last epoch", "best_validation": "epoch chosen on held-out images"}


def answer_section() -> str:
    """Return what the main study says, in a table and sentences, as Markdown."""
    claims = ledger()
    sentences = [_stopped_early(), _people(), _better_label(), _votes()]
    sentences += [_rare(), _weight(), _machines()]
    bullets = "\n".join(f"- {sentence}" for sentence in [*sentences, verdicts(claims)])
    return f"{_accuracies()}\n\n{markdown(_beside_each_other())}\n\n{bullets}"


def _accuracies() -> str:
    """Return how accurate NLA is beside cross-entropy and EAC, in sentences."""

    def both(method: str) -> list[str]:
        return [f"{_percent(method, 'overall_accuracy', 0.2, rule)} %" for rule in RULES]

    (nla, nla_chosen), (ce, ce_chosen), (eac, eac_chosen) = map(both, ("nla", "ce", "eac"))
    clean = _difference("overall_accuracy", 0.0, "last")
    return (
        f"**Does NLA work?** With 20 % of the labels wrong, NLA ends at {nla} of overall accuracy "
        f"where cross-entropy ends at {ce}. Where held-out images choose the epoch, it is "
        f"{nla_chosen} against {ce_chosen}. EAC, an older method, has {eac} and {eac_chosen}. "
        f"Without wrong labels NLA is {in_points(clean)} points from cross-entropy at the last "
        f"epoch; {100 * clean['detectable']:.1f} would have shown, in four tries of five."
    )


def _percent(method: str, metric: str, noise_rate: float, rule: str) -> str:
    """Return a method's mean over seeds in the main study, in percent; "" where it was not run."""
    table = published_table(MAIN)
    table = table[np.isclose(table["noise_rate"], noise_rate) & (table["method"] == method)]
    values = table.loc[(table["metric"] == metric) & (table["selection"] == rule), "value"]
    return f"{100 * values.mean():.1f}" if len(values) else ""


def _difference(metric: str, noise_rate: float, rule: str) -> pd.Series:
    """Return NLA less cross-entropy in the main study."""
    table = published_table(MAIN, "_differences").query("method == 'nla' and reference == 'ce'")
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
    words = []
    for metric in ACCURACIES:
        early = paired_differences(
            published_table(MAIN), metric, "last", reference_selection="best_validation"
        )
        found = early[(early["method"] == "nla") & np.isclose(early["noise_rate"], 0.2)].iloc[0]
        words.append(f"{in_points(found)} points of {metric.replace('_', ' ')}")
    return (
        "**Is it more than stopping early?** NLA's last epoch less cross-entropy that stops where "
        f"held-out images say: {' and '.join(words)} (not corrected)."
    )


def _machines() -> str:
    """Return what the machine does to NLA's gain without wrong labels, on the seeds of both."""
    on_cpu, on_gpu = published_table("face_parts"), published_table(MAIN)
    tables = {"on a GPU": on_gpu, "on CPUs": on_cpu}
    last, chosen = (gains_by_machine(tables, "overall_accuracy", rule) for rule in RULES)
    both = {
        name: f"{in_points(last.loc[name])} and {in_points(chosen.loc[name])}"
        for name in last.index
    }
    return (
        f"**Which machine?** Without wrong labels, {last['n'].iloc[0]:.0f} of the seeds trained on "
        "both: NLA less cross-entropy at the last epoch and at the chosen one, "
        f"{'; '.join(f'{both[name]} points {name}' for name in tables)}. Of all "
        f"{last.loc[TOGETHER, 'n']:.0f} pairs of runs, {both[TOGETHER]} (neither declared nor "
        "corrected). Twelve new seeds are declared (`configs/face_seeds.yaml`)."
    )


def _people() -> str:
    """Return what NLA gains on labels that people got wrong, and on as many drawn by lot."""
    source, twin = "fer2013", "fer2013, matched"
    plain = "method == 'nla' and settings == ''"
    gaps = published_table("human_noise", "_differences").query(plain)
    gaps = gaps[gaps["reference"] == "ce"].set_index(["label_source", "metric", "selection"])
    gains = {
        (labels, metric): " and ".join(in_points(gaps.loc[labels, metric, rule]) for rule in RULES)
        for labels in (source, twin)
        for metric in ACCURACIES
    }
    overall, mean = ACCURACIES
    epochs = published_table("human_noise", "_epochs").query(plain)
    at_end = epochs[epochs["epoch"] == epochs["epochs"] - 1]
    found = at_end.pivot_table(index="label_source", columns="metric", values="value")
    found = found["auroc_within_label_low_weight"]
    wrong = pd.read_csv(ROOT / "figures" / "02_ferplus_wrong_labels.csv")
    of_classes = wrong[wrong["by"] == "class"]
    share = np.average(of_classes[source], weights=of_classes["images"])
    return (
        f"**Labels that people got wrong.** On FER2013's own labels, {100 * share:.0f} % of which "
        "contradict the ten annotators, NLA less cross-entropy at the last and the chosen epoch: "
        f"{gains[source, overall]} points of overall accuracy, {gains[source, mean]} of mean "
        f"accuracy, {gaps.loc[source, overall, 'last']['n']} seeds; where as many wrong labels are "
        f"drawn by lot, {gains[twin, overall]} of overall accuracy. A low weight finds people's "
        f"with an AUROC of {found[source]:.2f}, drawn ones with {found[twin]:.2f}."
    )


def _better_label() -> str:
    """Return what the votes are worth in place of FER2013's label, beside NLA on that label."""
    plain = published_table("human_noise").query("settings == ''")
    rows = chosen_rows(plain, ACCURACIES[0], "last")
    of_seeds = rows.pivot(index=["label_source", "method"], columns="seed", values="value")
    gains = of_seeds - of_seeds.loc["fer2013", "ce"]
    majority, distribution, loss = (
        in_points(pd.Series(student_interval(gains.loc[labels])))
        for labels in ((RULE, "ce"), (RULE, "ldl"), ("fer2013", "nla"))
    )
    return (
        "**A better label, or a better loss?** From FER2013's label to the majority of ten votes "
        f"cross-entropy gains {majority} points of overall accuracy at the last epoch, to their "
        f"distribution (LDL) {distribution}; NLA on FER2013's label gains {loss}. (The labels of "
        "the test are of those votes.)"
    )


def _rare() -> str:
    """Return what overall accuracy hides, at 20 % noise."""
    recalls = [
        f"{name} {_percent(method, 'recall_disgust', 0.2, 'last')} %"
        for method, name in (("ce", "cross-entropy"), ("nla", "NLA"), ("eac", "EAC"))
    ]
    return f"**Rare classes.** Of disgust the last epoch recognises: {', '.join(recalls)}."


def _weight() -> str:
    """Return what a wrong label weighs, beside a right one, over the epochs."""
    table = published_table(RECORDED, "_epochs").query("noise_rate == 0.2")
    means = table.pivot_table(index="epoch", columns="metric", values="value")
    share = 100 * means["mean_weight_of_flipped"] / means["mean_weight_of_clean"]
    return (
        f"**The weight.** A wrong label gets {share.min():.0f} % of a right one's weight in epoch "
        f"{share.idxmin() + 1}, and {share.iloc[-1]:.0f} % at the end, when it is learnt by heart; "
        "the paper's figure has about none."
    )


def _votes() -> str:
    """Return what learning from the votes' distribution and from candidate sets gives."""
    clean = "noise_rate == 0 and settings == '' and method in ('ce', 'nla')"
    votes, parts = published_table("face_votes"), published_table("face_parts").query(clean)
    told = []
    for table, method, name in (
        (votes, "ldl", "the distribution of the votes (LDL)"),
        (votes, "proden", "candidate sets (PRODEN), which stand for the second paper"),
        (parts, "nla", "NLA on the label"),
    ):
        gaps = [paired_differences(table, metric, "last") for metric in (*ACCURACIES, "ece")]
        overall, mean, calibration = (in_points(g[g["method"] == method].iloc[0]) for g in gaps)
        gains = f"{overall} of overall and {mean} of mean accuracy, {calibration}"
        told.append(f"{name}: {gains} of calibration error")
    on_gpu = published_table(MAIN).query("method == 'ce' and noise_rate == 0")
    mixed = pd.concat([votes.query("method == 'ldl'"), on_gpu.assign(study="face_votes")])
    gaps = [paired_differences(mixed, metric, "last").iloc[0] for metric in ACCURACIES]
    return (
        "**Learning from votes.** In points from cross-entropy on the label, at the last epoch, "
        f"{votes['seed'].nunique()} seeds on CPUs: {'; '.join(told)}. "
        "From the same runs of cross-entropy on a GPU LDL is "
        f"{' and '.join(map(in_points, gaps))} (neither corrected)."
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
