"""The sections of README.md that are made from the tables in results/, and `results/claims.csv`."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import yaml

from nlalib.files import write_csv
from nlalib.paths import ROOT
from nlalib.report.certainty import paired_differences
from nlalib.report.claims import CLAIMS, CONVERGED, MAIN
from nlalib.report.frame import headline, markdown, published_table
from nlalib.report.gate import published_gate
from nlalib.report.ledger import in_short, ledger, measured
from nlalib.report.reading import difference_table, in_points
from nlalib.report.records import kept_runs
from nlalib.report.reproducing import SECTIONS
from nlalib.report.studies import read_study


def headline_section() -> str:
    """Return the tables of the studies that the README shows, each with its gate, as Markdown."""
    parts = []
    for content in _published_studies("table"):
        study = content["study"]
        table = headline(published_table(study)).assign(study=study)
        parts.append(f"{markdown(table)}\n\nGate of `{study}`: {published_gate(content)}.")
    return "\n\n".join(parts)


def differences_section() -> str:
    """Return NLA's differences to its reference in those and other studies, as Markdown."""
    parts = []
    for content in _published_studies("table", "differences"):
        rows = published_table(content["study"], "_differences")
        table = difference_table(rows, "nla", published_gate(content).passed)
        parts.append(table.assign(study=content["study"]))
    return markdown(pd.concat(parts))


def _published_studies(*shown: str) -> list[dict]:
    """Return the files of published studies whose `readme` is one of `shown`, real faces first.

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
        if content.get("readme") in shown
        and (ROOT / "results" / f"{content['study']}.csv").is_file()
    ]
    if not there:
        raise FileNotFoundError("no table in results/; publish a finished study first")
    return sorted(there, key=lambda content: content["fixed"].get("dataset") == "rendered")


def claims_section() -> str:
    """Return the answer in sentences, and the ledger of claims in short, as Markdown."""
    claims = ledger()
    return f"{answer(claims)}\n\n{markdown(in_short(claims))}"


def answer(claims: pd.DataFrame) -> str:
    """Return what the ledger says as a whole: of runs that could tell, and of those that could not.

    Parameters
    ----------
    claims : pandas.DataFrame
        As `nlalib.report.ledger.ledger` returns.
    """
    early = published_gate(yaml.safe_load((ROOT / "configs" / "noise.yaml").read_text()))
    sentences = [
        f"**Does it work?** {_verdicts(claims)}",
        *_of_main_study(claims[claims["regime"] == CONVERGED]),
        "The older grids start from random weights and stop after six epochs. They see how a "
        "network begins to learn, and cannot tell which method ends ahead: whatever they show is "
        f"called *inconclusive* ([10](notebooks/10_claims.ipynb)). Their gate is {early}.",
    ]
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _verdicts(claims: pd.DataFrame) -> str:
    """Return the claims that have a verdict, and under which rule if not under all."""
    rules = {
        "last": "at the last epoch",
        "best_validation": "where held-out images choose the epoch",
    }
    told, open_ones = [], set(claims["number"])
    for verdict in ("verified", "falsified"):
        words = []
        for (number, _), same in claims.groupby(["number", "regime"]):
            having = same[same["verdict"] == verdict]
            if len(having):
                alone = having["selection"].item() if len(having) < len(same) else None
                only = f", {rules[alone]} alone" if alone else ""
                words.append(f"{same['claim'].iloc[0].rstrip('.')} ({number}{only}).")
                open_ones.discard(number)
        told += [f"**{verdict.capitalize()}:** {' '.join(words)}"] if words else []
    if not told:
        return "Not settled yet."
    return f"{' '.join(told)} **No verdict yet:** the other {len(open_ones)} claims."


def _of_main_study(claims: pd.DataFrame) -> list[str]:
    """Return what the study that can tell says so far, in sentences."""
    main = read_study(f"configs/{MAIN}.yaml")
    path = f"configs/{main.name}.yaml"
    run = len(kept_runs(main.name) & set(main.runs))
    begun = (
        "The study that can tell starts from a network that knows faces and trains until "
        f"cross-entropy has fitted its labels and gains no more ([{path}]({path})); {run} of its "
        f"{len(main.runs)} runs are done. A contrast has no verdict before all of its declared "
        "seeds have run and the gate is passed."
    )
    of = claims[claims["verdict"] != "not run"].set_index(["number", "selection"])
    if (8, "last") not in of.index:
        return [begun]

    def both(number: int) -> str:
        last, chosen = (in_points(of.loc[(number, r)]) for r in ("last", "best_validation"))
        return f"{last} points at the last epoch, {chosen} at the one that held-out images choose"

    gate = of.loc[(8, "last"), "gate"]
    return [
        f"**With 20 % of the labels wrong**, NLA less cross-entropy: {both(8)}; in mean accuracy "
        f"{_noisy_mean('last')} and {_noisy_mean('best_validation')}.",
        f"**Without wrong labels**: {both(1)}; in mean accuracy {both(2)}.",
        f"NLA less EAC, with 20 % wrong: {both(10)}.",
        "**Is it more than stopping early?** NLA's last epoch less cross-entropy that stops where "
        f"held-out images say: {_less_early()} points of overall accuracy; where both stop so, "
        f"{in_points(of.loc[(8, 'best_validation')])}.",
        f"{begun} The gate asks whether training without wrong labels has ended, and whether a "
        f"method that is known to help under them does help. It is {gate}.",
    ]


def _noisy_mean(rule: str) -> str:
    """Return NLA's difference in mean accuracy at 20 % noise, which is no claim of its own."""
    (gain,) = (claim.converged for claim in CLAIMS if claim.number == 8)
    return in_points(pd.Series(measured(replace(gain, metric="mean_accuracy"), rule)))


def _less_early() -> str:
    """Return NLA's last epoch less cross-entropy that is stopped early, at 20 % noise."""
    early = paired_differences(
        published_table(MAIN), "overall_accuracy", "last", reference_selection="best_validation"
    )
    is_noisy = np.isclose(early["noise_rate"], 0.2)
    return in_points(early[(early["method"] == "nla") & is_noisy].iloc[0])


README_SECTIONS: dict[str, Callable[[], str]] = {
    "claims": claims_section,
    "headline table": headline_section,
    "differences": differences_section,
}


MADE_SECTIONS = {"README.md": README_SECTIONS, "docs/why_not_reproduced.md": SECTIONS}


def readme_marks(section: str) -> tuple[str, str]:
    """Return what stands before and behind a made section of a file."""
    return f"<!-- {section}: made by `make readme` -->", f"<!-- end of {section} -->"


def readme() -> None:
    """Write results/claims.csv, and `MADE_SECTIONS` into their files, each between its marks."""
    write_csv(ROOT / "results" / "claims.csv", ledger().round(6))
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
