"""The ledger: what was measured of each claim of the two papers, and a verdict in one word.

Every number comes from the tables in results/, and so does the verdict:

============  ====================================================================================
verified      the runs could tell (`nlalib.report.gate`), every declared seed has run, and the
              interval over seeds lies on the claim's side, and that over test images where there is
              one; and p-values corrected for their number (Holm) are below 5 % too: of contrasts
              that the study declared before its runs among these, of all others among the claims.
              Where the main study has the same runs of the reference from another machine, the
              interval over seeds against those lies on that side as well
falsified     as there, but the intervals lie on the other side
inconclusive  anything else; the limit says what kept a claim from a verdict
============  ====================================================================================

A claim that comes out differently for the last epoch and for the epoch chosen on held-out images
has both verdicts.
"""

import numpy as np
import pandas as pd
import yaml

from nlalib.paths import ROOT
from nlalib.report.certainty import INCONCLUSIVE, equivalence, holm, student_interval
from nlalib.report.claims import CLAIMS, CONVERGED, MAIN, SHORT, Contrast
from nlalib.report.frame import published_file, published_table
from nlalib.report.gate import Gate, published_gate
from nlalib.report.reading import in_points, with_interval

COLUMNS = [
    *("number", "paper", "claim", "regime", "measured", "selection", "n", "difference"),
    *("low", "high", "unit", "p", "p_holm", "images_low", "images_high", "gate", "verdict"),
    *("limit", "hours", "study", "command", "shown_in"),
]
_ONE, _CHANCE = "one data set, one network", "corrected for their number, it may be chance"
_ELSEWHERE = (
    "against cross-entropy of another machine the interval holds zero, or lies on the other side"
)
VERDICTS = {1: "verified", -1: "falsified", 0: INCONCLUSIVE}
LEVEL = 0.05  # of the tests
# How a difference is shown: accuracies and calibration times 100; a correlation, a share as it is.
POINTS, AS_IT_IS = "points", "as it is"
_OF_DIFFERENCES = ["images_low", "images_high", "primary", "p_seeds_holm", "p_images_holm"]


def ledger() -> pd.DataFrame:
    """Return the ledger: a row a claim, regime and selection rule, columns `COLUMNS`.

    What was not run is blank. `low` and `high` are over seeds, `images_low` and `images_high` over
    test images, of the differences that the study's table has; `p` is over seeds. `p_holm` is the
    corrected one that the verdict needs: of a contrast that its study declared, the larger of
    those over seeds and over images; else `p` among all claims of the regime, under both rules. A
    positive difference speaks for the claim. `hours` is the sum of the times that the study's runs
    took to train, on whatever they ran.
    """
    rows = []
    for claim in CLAIMS:
        for regime, contrast in ((SHORT, claim.short), (CONVERGED, claim.converged)):
            for rule in rules_of(contrast):
                row = dict.fromkeys(COLUMNS)
                row |= {"number": claim.number, "paper": claim.paper, "claim": claim.words}
                row |= {"regime": regime, "measured": contrast.words, "selection": rule}
                row["unit"] = AS_IT_IS if contrast.is_of_training else POINTS
                row["shown_in"] = contrast.shown_in
                rows.append(row | measured(contrast, rule))
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"p": float, "p_holm": float})
    among_claims = table.groupby("regime")["p"].transform(holm)
    table["p_holm"] = table["p_holm"].fillna(among_claims)
    has_verdict = table["verdict"].isin(["verified", "falsified"])
    table.loc[has_verdict & ~(table["p_holm"] < LEVEL), ["verdict", "limit"]] = (
        INCONCLUSIVE,
        _CHANCE,
    )
    return table


def rules_of(contrast: Contrast) -> tuple[str, ...]:
    """Return the selection rules under which a contrast can be looked at."""
    # Facts of training belong to no selected epoch; corrupted images were shown to the last.
    of_last = contrast.is_of_training or contrast.study.endswith("_robustness")
    return ("last",) if of_last else ("last", "best_validation")


def measured(contrast: Contrast, rule: str) -> dict:
    """Return what the published tables say of a contrast; nothing where they are not there."""
    study = contrast.study.removesuffix("_robustness")
    if not study or not published_file(f"{contrast.study}.csv").is_file():
        return {"verdict": "not run"}
    gains = contrast.sign * _gains(contrast, rule)
    if not len(gains):
        return {"verdict": "not run"}
    found = student_interval(gains)
    told = _published_difference(contrast, rule)
    images = sorted(contrast.sign * told[["images_low", "images_high"]].to_numpy(dtype=float))
    config = _config(study)
    gate, declared = published_gate(config), declared_seeds(config)
    # One seed has no interval, nor have several that differ all by the same.
    can_tell = gate.passed and found["n"] >= declared and not np.isnan(found["low"])
    side = _side([found["low"], found["high"], *images]) if can_tell else 0
    is_elsewhere = bool(side) and _is_other_side(
        side, contrast.sign * _against_main(contrast, rule)
    )
    is_declared = told["primary"] == 1  # NaN, of a table that does not say, is none
    results = published_table(study)
    of_runs = (results["metric"] == "training_seconds") & (results["selection"] == "last")
    return {
        **{name: found[name] for name in ("n", "difference", "low", "high")},
        "p": found["p_seeds"],
        "p_holm": told[["p_seeds_holm", "p_images_holm"]].max() if is_declared else None,
        **dict(zip(("images_low", "images_high"), images, strict=True)),
        **{"gate": str(gate), "study": study},
        "verdict": INCONCLUSIVE if is_elsewhere else VERDICTS[side],
        "limit": _ELSEWHERE
        if is_elsewhere
        else _limit(side, gains, declared, gate, contrast, images),
        "hours": float(results.loc[of_runs, "value"].sum() / 3600),
        "command": f"make study CONFIG=configs/{study}.yaml",
    }


def declared_seeds(content: dict) -> int:
    """Return how many seeds a study's file asks for; a contrast of fewer is interim."""
    grids = content["grid"] if isinstance(content["grid"], list) else [content["grid"] or {}]
    fixed = [content["fixed"]["seed"]] if "seed" in (content["fixed"] or {}) else []
    return len({seed for grid in grids for seed in grid.get("seed", fixed)})


def _limit(
    side: int, gains: np.ndarray, declared: int, gate: Gate, contrast: Contrast, images: list[float]
) -> str:
    """Return what keeps a contrast from saying more."""
    if len(gains) < declared:
        return f"interim: {len(gains)} of {declared} declared seeds"
    if not gate.passed:
        return "the runs could not have told (gate)"
    if len(gains) < 2:
        return "one seed, no interval"
    if np.isnan(student_interval(gains)["low"]):
        return "all seeds differ by the same, no interval"
    if side:
        over_seeds_alone = np.isnan(images).all() and not contrast.is_of_training
        return _ONE + (", no interval over images" if over_seeds_alone else "")
    is_equal = not contrast.is_of_training and equivalence(gains) < LEVEL
    return "an interval holds zero" + ("; equal within a point, not corrected" if is_equal else "")


def _side(bounds: list[float]) -> int:
    """Return 1 or -1 where all known bounds of the intervals lie on that side of zero, else 0."""
    sides = {np.sign(bound) for bound in bounds if not np.isnan(bound)}
    return int(sides.pop()) if len(sides) == 1 else 0


def _gains(contrast: Contrast, rule: str) -> np.ndarray:
    """Return the difference of each seed, (n,) float."""
    if contrast.study.endswith("_robustness"):
        return _losses_by_corruption(contrast)
    if contrast.is_of_training:
        own, _ = _pair(published_table(contrast.study, "_epochs"), contrast)
        return _facts(own, contrast)
    table = published_table(contrast.study)
    table = table[(table["metric"] == contrast.metric) & (table["selection"] == rule)]
    one, other = (rows.set_index("seed")["value"] for rows in _pair(table, contrast))
    return (one - other).dropna().to_numpy()


def _against_main(contrast: Contrast, rule: str) -> np.ndarray:
    """Return each seed's difference to the main study's runs of the reference, (n,) float.

    Empty where the main study has not the same runs, or the very same numbers of them.
    """
    none = np.array([])
    if contrast.study == MAIN or contrast.is_of_training or rules_of(contrast) == ("last",):
        return none
    chosen = [
        table[(table["metric"] == contrast.metric) & (table["selection"] == rule)]
        for table in (published_table(contrast.study), published_table(MAIN))
    ]
    (one, other), (_, of_main) = (_pair(table, contrast) for table in chosen)
    both = other.merge(of_main, on=["run_id", "seed"], suffixes=("", "_again"))
    if len(both) < len(other) or np.allclose(both["value"], both["value_again"], atol=2e-6):
        return none
    again = both.set_index("seed")["value_again"]
    return (one.set_index("seed")["value"] - again).dropna().to_numpy()


def _facts(table: pd.DataFrame, contrast: Contrast) -> np.ndarray:
    """Return each seed's fact at the last epoch, less what it is compared with, (n,) float."""

    def at(epoch: pd.Series | int) -> pd.DataFrame:
        chosen = table[table["epoch"] == epoch]
        return chosen.pivot_table(index="seed", columns="metric", values="value")

    last = at(table["epochs"] - 1)
    if contrast.metric not in last:
        return np.array([])
    other = contrast.chance if contrast.since is None else at(contrast.since)[contrast.metric]
    return (last[contrast.metric] - other).dropna().to_numpy()


def _losses_by_corruption(contrast: Contrast) -> np.ndarray:
    """Return the difference in how much accuracy corrupted images lose, mean over corruptions."""
    table = published_table(contrast.study)
    table = table[table["metric"] == contrast.metric]

    def losses(rows: pd.DataFrame) -> pd.Series:
        clean = rows[rows["severity"] == 0].set_index("seed")["value"]
        return clean - rows[rows["severity"] > 0].groupby("seed")["value"].mean()

    one, other = map(losses, _pair(table, contrast))
    return (one - other).dropna().to_numpy()


def _pair(table: pd.DataFrame, contrast: Contrast) -> list[pd.DataFrame]:
    """Return the rows of the contrast's method under its condition, and those of the other."""
    if contrast.init:  # the same method from other weights
        own = table[(table["backbone"] == contrast.backbone) & (table["method"] == contrast.method)]
        is_pretrained = own["init"].str.contains(contrast.init)
        return [own[is_pretrained], own[~is_pretrained]]
    is_there = np.isclose(table["noise_rate"], contrast.noise_rate)
    is_there &= np.isclose(table["imbalance_factor"], contrast.imbalance_factor)
    if contrast.backbone:
        is_there &= table["backbone"] == contrast.backbone
    same = table[is_there]
    return [
        same[(same["method"] == method) & (same["settings"] == settings)]
        for method, settings in ((contrast.method, contrast.settings), (contrast.against, ""))
    ]


def _is_other_side(side: int, gains: np.ndarray) -> bool:
    """Return whether there are such differences, and their interval does not lie on that side."""
    if not len(gains):
        return False
    found = student_interval(gains)
    return _side([found["low"], found["high"]]) != side


def _published_difference(contrast: Contrast, rule: str) -> pd.Series:
    """Return what the study's table of differences says of a contrast; NaN where it says nothing.

    Its interval over test images, whether the study declared it, and its corrected p-values.
    """
    nothing = pd.Series(np.nan, _OF_DIFFERENCES)
    path = published_file(f"{contrast.study}_differences.csv")
    if contrast.is_of_training or contrast.init or not path.is_file():
        return nothing
    table, _ = _pair(published_table(contrast.study, "_differences"), contrast)
    table = table[(table["selection"] == rule) & (table["metric"] == contrast.metric)]
    table = table[table["reference"] == contrast.against]
    return table.iloc[0].reindex(_OF_DIFFERENCES) if len(table) == 1 else nothing


def _config(study: str) -> dict:
    return yaml.safe_load((ROOT / "configs" / f"{study}.yaml").read_text())


def in_short(claims: pd.DataFrame) -> pd.DataFrame:
    """Return the ledger for a first screen: a row a claim, of the regime that can tell."""
    rows = []
    for number, same in claims[claims["regime"] == CONVERGED].groupby("number"):
        last = same.iloc[0]
        claim = f"[{number}](notebooks/{last['shown_in']}.ipynb). {last['claim']}"
        verdicts = " / ".join(dict.fromkeys(same["verdict"]))  # of each rule, where they differ
        if pd.notna(last["n"]):
            interim = " (interim)" if last["limit"].startswith("interim") else ""
            verdicts = f"{verdicts}{interim}, n = {last['n']:.0f}"
        by_rule = {row.selection: in_its_unit(row) for row in same.itertuples() if row.n > 0}
        row = {"claim": claim, "verdict": verdicts, "last epoch": by_rule.get("last", "")}
        row["epoch chosen on held-out images"] = by_rule.get("best_validation", "")
        rows.append({**row, "measured": last["measured"]})
    return pd.DataFrame(rows)


def in_its_unit(row) -> str:
    """Return the difference of a row of the ledger: in points, or as the correlation that it is."""
    if row.unit == POINTS:
        return in_points(row)
    return with_interval(row.difference, row.low, row.high, digits=2)
