"""The sections of README.md that are made from the tables in results/, and `results/claims.csv`."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import yaml

from nlalib.files import write_csv
from nlalib.paths import ROOT
from nlalib.report.certainty import ACCURACIES, certainty, paired_differences
from nlalib.report.claims import MAIN, RECORDED
from nlalib.report.frame import headline, markdown, published_file, published_table
from nlalib.report.gate import published_gate
from nlalib.report.ledger import in_short, ledger
from nlalib.report.machines import TOGETHER, gains_by_machine
from nlalib.report.reading import in_points
from nlalib.report.reproducing import SECTIONS

# Under which rules an epoch is chosen, in words of a reader.
RULES = {"last": "last epoch", "best_validation": "epoch chosen on held-out images"}


def headline_section() -> str:
    """Return the tables of the studies that the README shows, each with its gate, as Markdown."""
    parts = []
    for content in _shown_studies():
        study, gate = content["study"], published_gate(content)
        table = accuracy_table(headline(published_table(study)))
        parts.append(f"`{study}`: {table}\n\nGate of `{study}`: {gate}.")
    return "\n\n".join(parts)


def accuracy_table(rows: pd.DataFrame) -> str:
    """Return a study's headline rows in one line of what all share, and a column a selection rule.

    Parameters
    ----------
    rows : pandas.DataFrame
        As `nlalib.report.frame.headline` returns.
    """
    rows = rows.assign(both=rows["overall accuracy %"] + " / " + rows["mean accuracy %"])
    named = ["data set", "network", "init", "epochs", "seeds"]
    shared = [name for name in named if rows[name].nunique() == 1]
    index = ["method", "setting", *(name for name in named if name not in shared)]
    wide = rows.pivot(index=index, columns="epoch chosen", values="both").reset_index()
    wide = wide[[*index, *dict.fromkeys(rows["epoch chosen"])]].fillna("")
    return f"{', '.join(f'{n} {rows[n].iloc[0]}' for n in shared)}\n\n{markdown(wide)}"


def _shown_studies() -> list[dict]:
    """Return the files of the published studies that the README shows, real faces first.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    files = sorted((ROOT / "configs").glob("*.yaml"))
    contents = [yaml.safe_load(path.read_text()) for path in files]
    there = [
        content
        for content in contents
        if content.get("readme") and published_file(f"{content['study']}.csv").is_file()
    ]
    if not there:
        raise FileNotFoundError("no table in results/; publish a finished study first")
    return sorted(there, key=lambda content: content["fixed"].get("dataset") == "rendered")


def claims_section() -> str:
    """Return the ledger of claims in short, as Markdown."""
    return markdown(in_short(ledger()))


def answer_section() -> str:
    """Return what the main study says, in a table and sentences, as Markdown."""
    claims = ledger()
    sentences = [_stopped_early(), _machines(), _rare(), _weight(), _votes(), verdicts(claims)]
    bullets = "\n".join(f"- {sentence}" for sentence in sentences)
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
    """Return what learning from candidate sets gives, and what it costs."""
    table = published_table("face_votes")
    gaps = [paired_differences(table, metric, "last") for metric in ("ece", *ACCURACIES)]
    calibration, overall, mean = (in_points(g[g["method"] == "proden"].iloc[0]) for g in gaps)
    return (
        "**Learning from votes.** PRODEN on candidate sets, which stands for the second paper, "
        f"less cross-entropy at the last epoch, {table['seed'].nunique()} seeds: {calibration} "
        f"points of calibration error, {overall} of overall and {mean} of mean accuracy."
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


README_SECTIONS: dict[str, Callable[[], str]] = {
    "answer": answer_section,
    "claims": claims_section,
    "headline table": headline_section,
}


MADE_SECTIONS = {"README.md": README_SECTIONS, "docs/why_not_reproduced.md": SECTIONS}


def readme_marks(section: str) -> tuple[str, str]:
    """Return what stands before and behind a made section of a file."""
    return f"<!-- {section}: made by `make readme` -->", f"<!-- end of {section} -->"


def readme() -> None:
    """Write results/claims.csv, and `MADE_SECTIONS` into their files, each between its marks."""
    write_csv(published_file("claims.csv"), ledger().round(6))
    for file, sections in MADE_SECTIONS.items():
        path = ROOT / file
        text = path.read_text()
        for name, section in sections.items():
            first, last = readme_marks(name)
            before, begin, rest = text.partition(first)
            _, end, after = rest.partition(last)
            if not begin or not end or text.count(first) + text.count(last) > 2:
                raise ValueError(f"{file} must hold once, in this order, {first} and {last}")
            text = f"{before}{first}\n\n{section()}\n\n{last}{after}"
        path.write_text(text)
