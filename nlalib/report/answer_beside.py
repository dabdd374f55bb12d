"""The first screen, beside the main study: people's labels, votes, machines, published numbers."""

import numpy as np
import pandas as pd
import yaml

from nlalib.data.label_sources import RULE
from nlalib.paths import ROOT
from nlalib.report.certainty import ACCURACIES, certainty, paired_differences, student_interval
from nlalib.report.claims import MAIN
from nlalib.report.frame import chosen_rows, published_table
from nlalib.report.machines import TOGETHER, apart, gains_by_machine, less_main_reference
from nlalib.report.primary import told
from nlalib.report.reading import by_seed, in_points, standing
from nlalib.report.twins import accuracy_without_twins, gains_with_and_without_twins

CE = "cross-entropy"
# Under which rules an epoch is chosen, in words of a reader.
RULES = {"last": "last epoch", "best_validation": "epoch chosen on held-out images"}


def with_certainty(row) -> str:
    """Return a difference in points, with its interval and how sure it is."""
    return f"{in_points(row)} ({certainty(row)})"


def notebook_link(number: int) -> str:
    """Return a link to a notebook."""
    (path,) = (ROOT / "notebooks").glob(f"{number:02}_*.ipynb")
    return f"[{number:02}](notebooks/{path.name})"


def labels_of_people() -> str:
    """Return what NLA gains on labels that people got wrong, and on as many drawn by lot."""
    source, twin = "fer2013", "fer2013, matched"
    gaps = published_table("human_noise", "_differences").query("settings == ''")
    gaps = told(gaps[gaps["reference"] == "ce"])
    gaps = gaps.set_index(["label_source", "method", "selection", "metric"]).sort_index()

    def gains(labels: str, method: str, rule: str) -> str:
        rows = gaps.loc[labels, method, rule].loc[[*ACCURACIES]]
        return " and ".join(map(with_certainty, rows.itertuples()))

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
        f"**On labels that people got wrong NLA is {standing(overall, CE)}**: on FER2013's own, "
        f"{100 * share:.0f} % of which contradict the ten annotators, {'; '.join(told_of)}. "
        f"Where as many are drawn by lot NLA is {with_certainty(drawn)} from cross-entropy in "
        "overall accuracy at the last epoch. Within a label a low weight finds "
        f"drawn wrong labels with an AUROC of {found[twin]:.2f}, people's with "
        f"{found[source]:.2f} (0.5 is chance; {notebook_link(13)})."
    )


def better_labels() -> str:
    """Return what the votes are worth in place of FER2013's label, beside NLA on that label."""
    plain = published_table("human_noise").query("settings == ''")

    def values(metric: str, rule: str) -> pd.DataFrame:
        rows = chosen_rows(plain, metric, rule)
        return rows.pivot(index=["label_source", "method"], columns="seed", values="value")

    of_seeds, over_classes = values(ACCURACIES[0], "last"), values(ACCURACIES[1], "best_validation")
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
    from_nla = (over_classes.loc[RULE, "ce"] - over_classes.loc["fer2013", "nla"]).dropna()
    of_means = pd.Series(student_interval(from_nla))
    return (
        f"**{answer}**{':' if is_more else ''} from FER2013's label to the majority of ten votes "
        f"cross-entropy gains {in_points(majority)} points of overall accuracy, to their "
        f"distribution (LDL) {in_points(distribution)}; NLA on FER2013's label "
        f"gains {in_points(loss)} (last epoch, {majority['n']:.0f} seeds, not corrected; a part "
        "of it is that training and test then mean the same by a label). In mean accuracy the "
        f"majority is {in_points(of_means)} from NLA on FER2013's label at the chosen epoch "
        f"({notebook_link(13)})."
    )


def learning_from_votes() -> str:
    """Return what learning from the votes' distribution and from candidate sets gives."""
    votes = published_table("face_votes")
    gaps = told(published_table("face_votes", "_differences").query("reference == 'ce'"))
    gaps = gaps[gaps["selection"] == "last"].set_index(["method", "metric"])
    of_ece = paired_differences(votes, "ece", "last").set_index("method")

    def words(method: str) -> str:
        overall, mean = (gaps.loc[method, metric] for metric in ACCURACIES)
        return (
            f"{with_certainty(overall)} of overall and {with_certainty(mean)} of mean accuracy, "
            f"{in_points(of_ece.loc[method])} of calibration error"
        )

    of_ldl = votes[votes["method"] == "ldl"]
    elsewhere = (less_main_reference(of_ldl, name, "last").iloc[0] for name in ACCURACIES)
    by_part = gains_with_and_without_twins(published_table("face_votes", "_leakage"))
    without_twins = by_part.loc["ldl, 0%"].iloc[1]
    return (
        f"**Learning from the distribution of the votes (LDL) is "
        f"{standing(gaps.loc['ldl', 'overall_accuracy'], CE + ' on the label')}**: in points, at "
        f"the last epoch, {words('ldl')}. Candidate sets (PRODEN), "
        f"which stand for the second paper: {words('proden')}. {votes['seed'].nunique()} seeds on "
        f"CPUs; from the same runs of cross-entropy on a GPU LDL is "
        f"{' and '.join(map(in_points, elsewhere))}; on test images without a twin in training it "
        f"is {without_twins} from cross-entropy on CPUs in overall accuracy (none of these, nor "
        f"calibration, is corrected; {notebook_link(9)})."
    )


def other_machines() -> str:
    """Return what the machine does to NLA's gain without wrong labels, on the seeds of both."""
    tables = {"on a GPU": published_table(MAIN), "on CPUs": published_table("face_parts")}
    last, chosen = (gains_by_machine(tables, "overall_accuracy", rule) for rule in RULES)
    both = {
        name: f"{in_points(last.loc[name])} and {in_points(chosen.loc[name])}"
        for name in last.index
    }
    more = in_points(last.loc[apart(tables)])
    plain = {"method": "ce", "noise_rate": 0, "metric": "overall_accuracy", "selection": "last"}
    gpu, cpus = (by_seed(table, **plain) for table in tables.values())
    of_ce = pd.Series(student_interval((cpus - gpu).dropna()))
    return (
        f"**Another machine is nearly another seed**: without wrong labels NLA's gain on CPUs is "
        f"{more} points from that on a GPU. The same {last['n'].iloc[0]:.0f} seeds give "
        f"{'; '.join(f'{both[name]} {name}' for name in tables)}, at the last epoch and at the "
        f"chosen one. All {last.loc[TOGETHER, 'n']:.0f} pairs of runs give {both[TOGETHER]} "
        f"(neither declared nor corrected; {notebook_link(14)}). Cross-entropy's last epoch on "
        f"CPUs is {in_points(of_ce)} points from that on a GPU: a machine may shift both methods, "
        "so gains are taken within one. Twelve new seeds are declared (`configs/face_seeds.yaml`)."
    )


def below_published() -> str:
    """Return what all of the training images give cross-entropy, and what is published."""
    chosen = "method == 'ce' and noise_rate == 0 and selection == 'last'"
    full, part = (published_table(name).query(chosen) for name in ("face_full", "face_parts"))
    seeds = sorted({*full["seed"]} & {*part["seed"]})

    def percent(rows: pd.DataFrame) -> str:
        means = rows[rows["seed"].isin(seeds)].groupby("metric")["value"].mean()
        return " / ".join(f"{100 * means[metric]:.1f}" for metric in ACCURACIES)

    without = [accuracy_without_twins(name)[seeds].mean() for name in ("face_full", "face_parts")]
    printed = pd.read_csv(ROOT / "data" / "published_results.csv")
    is_clean = "dataset == 'FERPlus' and setting == 'clean' and metric == 'overall_accuracy'"
    printed = printed.query(is_clean)["percent"].dropna()
    runs = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    fixed = yaml.safe_load((ROOT / "configs" / "face_parts.yaml").read_text())["fixed"]
    return (
        "**How far from published accuracies?** On FERPlus methods from MS-Celeb-1M weights have "
        f"{printed.min():.1f} to {printed.max():.1f} % without wrong labels. From all training "
        f"images of FERPlus (a tenth held out) cross-entropy ends here at {percent(full)} %, from "
        f"{fixed['train_images']:,} of them at {percent(part)} % (overall / mean; {runs}, CPUs); "
        "on the test images without a twin in FERPlus's training split at "
        f"{' and '.join(f'{100 * mean:.1f}' for mean in without)} % overall. What else differs is "
        f"in {notebook_link(6)}."
    )
