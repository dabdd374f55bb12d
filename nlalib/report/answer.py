"""The first screen: what the main study says of NLA, and the other studies beside it."""

import numpy as np
import pandas as pd
import yaml

from nlalib.data.label_sources import RULE
from nlalib.paths import ROOT
from nlalib.report.certainty import ACCURACIES, certainty, paired_differences, student_interval
from nlalib.report.claims import MAIN, RECORDED
from nlalib.report.frame import chosen_by_its_own, chosen_rows, markdown, published_table
from nlalib.report.leakage import gains_by_part
from nlalib.report.ledger import ledger
from nlalib.report.machines import TOGETHER, apart, from_main, gains_by_machine
from nlalib.report.primary import told
from nlalib.report.reading import in_points, standing

_CE = "cross-entropy"
_NAMES = {"ce": _CE, "nla": "NLA", "eac": "EAC"}
# Under which rules an epoch is chosen, in words of a reader.
RULES = {"last": "last epoch", "best_validation": "epoch chosen on held-out images"}


def answer_section() -> str:
    """Return what the main study says, in a table and sentences, as Markdown."""
    claims = ledger()
    sentences = [_stopped_early(), _people(), _better_label(), _votes()]
    sentences += [_rare(), _weight(), _machines(), _below_published()]
    bullets = "\n".join(f"- {sentence}" for sentence in [*sentences, verdicts(claims)])
    return f"{_accuracies()}\n\n{markdown(_beside_each_other())}\n\n{bullets}"


def _accuracies() -> str:
    """Return how far NLA and EAC are from cross-entropy, in sentences."""
    noisy = {rule: _difference("overall_accuracy", 0.2, rule) for rule in RULES}
    of_eac = {rule: _difference("overall_accuracy", 0.2, rule, "eac") for rule in RULES}
    last, chosen = map(_sure, noisy.values())
    eac = " and ".join(map(_sure, of_eac.values()))
    is_behind = all(of_eac[rule]["difference"] > noisy[rule]["difference"] for rule in RULES)
    clean = _difference("overall_accuracy", 0.0, "last")
    return (
        "**Does NLA work?** With 20 % of the labels drawn wrong NLA is "
        f"{standing(noisy['last'], _CE)}: {last} points of overall accuracy at the last epoch, "
        f"{chosen} at the one that held-out images choose. EAC, an older method, gains"
        f"{' more' if is_behind else ''}: {eac}. Without wrong labels NLA is "
        f"{standing(clean, _CE)} at the last epoch: {in_points(clean)} points; with {clean['n']} "
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
        f"{in_points(mean)} where overall accuracy does, and {_sure(late)} from cross-entropy's "
        f"last epoch (only the last is corrected; {_link(14)})."
    )


def _sure(row) -> str:
    """Return a difference in points, with its interval and how sure it is."""
    return f"{in_points(row)} ({certainty(row)})"


def _link(number: int) -> str:
    """Return a link to a notebook."""
    (path,) = (ROOT / "notebooks").glob(f"{number:02}_*.ipynb")
    return f"[{number:02}](notebooks/{path.name})"


def _machines() -> str:
    """Return what the machine does to NLA's gain without wrong labels, on the seeds of both."""
    tables = {"on a GPU": published_table(MAIN), "on CPUs": published_table("face_parts")}
    last, chosen = (gains_by_machine(tables, "overall_accuracy", rule) for rule in RULES)
    both = {
        name: f"{in_points(last.loc[name])} and {in_points(chosen.loc[name])}"
        for name in last.index
    }
    more = in_points(last.loc[apart(tables)])
    of_ce = {
        name: chosen_rows(
            table.query("method == 'ce' and noise_rate == 0"), "overall_accuracy", "last"
        ).set_index("seed")["value"]
        for name, table in tables.items()
    }
    less = student_interval((of_ce["on CPUs"] - of_ce["on a GPU"]).dropna())
    return (
        f"**Another machine is nearly another seed**: without wrong labels NLA's gain on CPUs is "
        f"{more} points from that on a GPU. The same {last['n'].iloc[0]:.0f} seeds give "
        f"{'; '.join(f'{both[name]} {name}' for name in tables)}, at the last epoch and at the "
        f"chosen one. All {last.loc[TOGETHER, 'n']:.0f} pairs of runs give {both[TOGETHER]} "
        f"(neither declared nor corrected; {_link(14)}). Cross-entropy itself is "
        f"{in_points(pd.Series(less))} points on CPUs from its last epoch on a GPU. Twelve new "
        "seeds are declared (`configs/face_seeds.yaml`)."
    )


def _people() -> str:
    """Return what NLA gains on labels that people got wrong, and on as many drawn by lot."""
    source, twin = "fer2013", "fer2013, matched"
    gaps = published_table("human_noise", "_differences").query("settings == ''")
    gaps = told(gaps[gaps["reference"] == "ce"])
    gaps = gaps.set_index(["label_source", "method", "selection", "metric"]).sort_index()

    def gains(labels: str, method: str, rule: str) -> str:
        rows = gaps.loc[labels, method, rule].loc[[*ACCURACIES]]
        return " and ".join(map(_sure, rows.itertuples()))

    overall = gaps.loc[source, "nla", "last", "overall_accuracy"]
    drawn = gaps.loc[twin, "nla", "last", "overall_accuracy"]
    epochs = published_table("human_noise", "_epochs").query("method == 'nla' and settings == ''")
    at_end = epochs[epochs["epoch"] == epochs["epochs"] - 1]
    found = at_end.pivot_table(index="label_source", columns="metric", values="value")
    found = found["auroc_within_label_low_weight"]
    wrong = pd.read_csv(ROOT / "figures" / "02_ferplus_wrong_labels.csv")
    of_classes = wrong[wrong["by"] == "class"]
    share = np.average(of_classes[source], weights=of_classes["images"])
    told_of = [
        f"{name} is {gains(source, method, 'last')} points from cross-entropy in overall and in "
        f"mean accuracy at the last epoch, {gains(source, method, 'best_validation')} at the "
        f"chosen one ({gaps.loc[source, method]['n'].min()} seeds)"
        for method, name in (("nla", "NLA"), ("eac", "EAC"))
        if (source, method) in gaps.index.droplevel(["selection", "metric"])
    ]
    return (
        f"**On labels that people got wrong NLA is {standing(overall, _CE)}**: on FER2013's own, "
        f"{100 * share:.0f} % of which contradict the ten annotators, {'; '.join(told_of)}. "
        f"Where as many are drawn by lot NLA is {_sure(drawn)} from cross-entropy in overall "
        "accuracy at the last epoch. Within a label a low weight finds "
        f"drawn wrong labels with an AUROC of {found[twin]:.2f}, people's with "
        f"{found[source]:.2f} (0.5 is chance; {_link(13)})."
    )


def _better_label() -> str:
    """Return what the votes are worth in place of FER2013's label, beside NLA on that label."""
    plain = published_table("human_noise").query("settings == ''")
    rows = chosen_rows(plain, ACCURACIES[0], "last")
    of_seeds = rows.pivot(index=["label_source", "method"], columns="seed", values="value")
    gains = of_seeds - of_seeds.loc["fer2013", "ce"]
    majority, distribution, loss = (
        pd.Series(student_interval(gains.loc[labels].dropna()))
        for labels in ((RULE, "ce"), (RULE, "ldl"), ("fer2013", "nla"))
    )
    is_more = majority["low"] > loss["high"] and distribution["low"] > loss["high"]
    answer = (
        "In overall accuracy, tested on the votes' labels, training on them is worth more than NLA "
        "on FER2013's"
        if is_more
        else "Is a better label worth more than NLA?"
    )
    over_classes = chosen_rows(plain, ACCURACIES[1], "best_validation")
    over_classes = over_classes.pivot(
        index=["label_source", "method"], columns="seed", values="value"
    )
    apart = (over_classes.loc[RULE, "ce"] - over_classes.loc["fer2013", "nla"]).dropna()
    of_means = pd.Series(student_interval(apart))
    return (
        f"**{answer}**{':' if is_more else ''} from FER2013's label to the majority of ten votes "
        f"cross-entropy gains {in_points(majority)} points of overall accuracy, to their "
        f"distribution (LDL) {in_points(distribution)}; NLA on FER2013's label "
        f"gains {in_points(loss)} (last epoch, {majority['n']:.0f} seeds, not corrected; a part "
        "of it is that training and test then mean the same by a label). In mean accuracy the "
        f"majority is {in_points(of_means)} from NLA on FER2013's label at the chosen epoch "
        f"({_link(13)})."
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
        f"last and at the chosen epoch with 20 % wrong labels, {shown} ({_link(14)})."
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
        f"about none ({_link(12)})."
    )


def _votes() -> str:
    """Return what learning from the votes' distribution and from candidate sets gives."""
    votes = published_table("face_votes")
    gaps = told(published_table("face_votes", "_differences").query("reference == 'ce'"))
    gaps = gaps[gaps["selection"] == "last"].set_index(["method", "metric"])
    of_ece = paired_differences(votes, "ece", "last").set_index("method")

    def words(method: str) -> str:
        overall, mean = (gaps.loc[method, metric] for metric in ACCURACIES)
        return (
            f"{_sure(overall)} of overall and {_sure(mean)} of mean accuracy, "
            f"{in_points(of_ece.loc[method])} of calibration error"
        )

    of_ldl = votes[votes["method"] == "ldl"]
    elsewhere = (from_main(of_ldl, name, "last").iloc[0] for name in ACCURACIES)
    by_part = gains_by_part(published_table("face_votes", "_leakage"))
    without_twins = by_part.loc["ldl, 0%"].iloc[1]
    return (
        f"**Learning from the distribution of the votes (LDL) is "
        f"{standing(gaps.loc['ldl', 'overall_accuracy'], _CE + ' on the label')}**: in points, at "
        f"the last epoch, {words('ldl')}. Candidate sets (PRODEN), "
        f"which stand for the second paper: {words('proden')}. {votes['seed'].nunique()} seeds on "
        f"CPUs; from the same runs of cross-entropy on a GPU LDL is "
        f"{' and '.join(map(in_points, elsewhere))}; on test images without a twin in training it "
        f"is {without_twins} from the CPUs' in overall accuracy (none of these, nor calibration, "
        f"is corrected; {_link(9)})."
    )


def _below_published() -> str:
    """Return what all of the training images give cross-entropy, and what is published."""
    chosen = "method == 'ce' and noise_rate == 0 and selection == 'last'"
    full, part = (published_table(name).query(chosen) for name in ("face_full", "face_parts"))
    seeds = sorted({*full["seed"]} & {*part["seed"]})

    def percent(rows: pd.DataFrame) -> str:
        means = rows[rows["seed"].isin(seeds)].groupby("metric")["value"].mean()
        return " / ".join(f"{100 * means[metric]:.1f}" for metric in ACCURACIES)

    printed = pd.read_csv(ROOT / "data" / "published_results.csv")
    clean = "dataset == 'FERPlus' and setting == 'clean' and metric == 'overall_accuracy'"
    printed = printed.query(clean)["percent"].dropna()
    runs = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    fixed = yaml.safe_load((ROOT / "configs" / "face_parts.yaml").read_text())["fixed"]
    return (
        "**How far from published accuracies?** On FERPlus methods from MS-Celeb-1M weights have "
        f"{printed.min():.1f} to {printed.max():.1f} % without wrong labels. From all training "
        f"images of FERPlus (a tenth held out) cross-entropy ends here at {percent(full)} %, from "
        f"{fixed['train_images']:,} of them at {percent(part)} % (overall / mean; {runs}, "
        f"CPUs). What else differs is in {_link(6)}."
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
