"""The ledger: each claim of the two papers, what was measured of it, and a verdict in one word.

The words stand here; every number comes from the tables in results/, and so does the verdict:

============  ====================================================================================
verified      the runs could tell (`nlalib.report.gate`) and the whole interval lies on the claim's
              side, over seeds and, where there is one, over test images
falsified     the runs could tell, and the interval lies on the other side, or the two are shown to
              be equal within a point
toy           as these, but on rendered faces
inconclusive  anything else
============  ====================================================================================

A claim that comes out differently for the last epoch and for the epoch chosen on held-out images
has both verdicts.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import yaml

from nlalib.paths import ROOT
from nlalib.report.certainty import INCONCLUSIVE, equivalence, student_interval
from nlalib.report.frame import read_table
from nlalib.report.gate import Gate, study_gate

NLA, VOTES = "NLA, AAAI 2025", "weak supervision, arXiv 2209.15402"
SHORT, CONVERGED = "short, from random weights", "converged, from face weights"
COLUMNS = [
    *("number", "paper", "claim", "regime", "measured", "selection", "n", "difference"),
    *(
        "low",
        "high",
        "images_low",
        "images_high",
        "gate",
        "verdict",
        "study",
        "command",
        "shown_in",
    ),
]


@dataclass(frozen=True)
class Contrast:
    """A difference between two methods, or between a fact and what it would be by chance.

    Attributes
    ----------
    words : str
        What is measured.
    study : str
        Whose published tables hold it.
    method, settings : str
    metric : str
        Of the results; or, with `chance`, of the table over epochs, at the last epoch.
    against : str
        The other method, in its plain setting.
    noise_rate, imbalance_factor : float
    sign : int
        -1 where less is better.
    chance : float or str, optional
        What the fact is compared with: a number, or another metric of the same run.
    backbone, init : str
        Where the study has several.
    shown_in : str
        The notebook.
    """

    words: str
    study: str
    method: str
    metric: str
    settings: str = ""
    against: str = "ce"
    noise_rate: float = 0.0
    imbalance_factor: float = 1.0
    sign: int = 1
    chance: float | str | None = None
    backbone: str = ""
    init: str = ""
    shown_in: str = "07_noise_and_imbalance"


@dataclass(frozen=True)
class Claim:
    """A paper's claim, with a contrast for each regime in which it is asked."""

    number: int
    paper: str
    words: str
    short: Contrast
    converged: Contrast


def _both(number: int, paper: str, words: str, short: Contrast, study: str, **changes) -> Claim:
    # The face network and its weights are the only ones of their studies.
    converged = {"study": study, "backbone": "", "init": "", "shown_in": "10_claims", **changes}
    return Claim(number, paper, words, short, replace(short, **converged))


_NOISY = {"noise_rate": 0.2}
_SMALL = {"backbone": "resnet10_narrow16_stride2", "shown_in": "09_weak_supervision"}
_SETS = "candidate_threshold=2.0"
CLAIMS = (
    _both(1, NLA, "NLA is more accurate than cross-entropy.",
          Contrast("NLA - CE, overall accuracy", "noise", "nla", "overall_accuracy"), "face"),
    _both(2, NLA, "It is so in mean accuracy too, over the classes.",
          Contrast("NLA - CE, mean accuracy", "noise", "nla", "mean_accuracy"), "face"),
    _both(3, NLA, "The adaptive weight helps by itself.",
          Contrast("weighted CE - CE, overall accuracy", "ablation", "nla", "overall_accuracy",
                   settings="consistency=none", shown_in="08_ablation"), "face_parts"),
    _both(4, NLA, "The consistency of both views helps by itself.",
          Contrast("CE with consistency - CE, overall accuracy", "ablation", "nla",
                   "overall_accuracy", settings="weighting=False", shown_in="08_ablation"),
          "face_parts"),
    _both(5, NLA, "Ambiguous samples get more weight.",
          Contrast("rank correlation of weight and vote entropy, at the last epoch", "noise", "nla",
                   "entropy_correlation_weight", chance=0.0, shown_in="03_naw_weights"), "face"),
    _both(6, NLA, "Noisy samples get next to none.",
          Contrast("AUROC of a low weight for flipped labels, within a label, less chance", "noise",
                   "nla", "auroc_within_label_low_weight", chance=0.5, **_NOISY), "face"),
    _both(7, NLA, "Late in training it turns to ambiguous samples of minority classes.",
          Contrast("minorities among the most-weighted tenth less among all, at the last epoch",
                   "noise", "nla", "minority_share_of_top_weight",
                   chance="minority_share_of_samples", shown_in="03_naw_weights"), "face"),
    _both(8, NLA, "Its gain is large under label noise.",
          Contrast("NLA - CE at 20 % noise, overall accuracy", "noise", "nla", "overall_accuracy",
                   **_NOISY), "face"),
    _both(9, NLA, "It helps under class imbalance.",
          Contrast("NLA - CE at imbalance 100, mean accuracy", "imbalance", "nla", "mean_accuracy",
                   imbalance_factor=100.0), "face_imbalance"),
    _both(10, NLA, "It leads its peers.",
          Contrast("NLA - EAC at 20 % noise, overall accuracy", "noise", "nla", "overall_accuracy",
                   against="eac", **_NOISY), "face"),
    _both(11, VOTES, "Learning from candidate label sets beats one-hot labels.",
          Contrast("PRODEN on sets - CE, overall accuracy", "weak", "proden", "overall_accuracy",
                   settings=_SETS, **_SMALL), "face_votes"),
    _both(12, VOTES, "Masked pre-training on faces helps.",
          Contrast("CE of a transformer, pre-trained - from random weights, overall accuracy",
                   "weak", "ce", "overall_accuracy", backbone="vit_tiny_patch6", init="masked",
                   shown_in="09_weak_supervision"), ""),
    _both(13, VOTES, "It is better calibrated.",
          Contrast("PRODEN on sets - CE, expected calibration error (less is better)", "weak",
                   "proden", "ece", settings=_SETS, sign=-1, **_SMALL), "face_votes"),
    _both(14, VOTES, "It is more robust to a shift of the images.",
          Contrast("PRODEN on sets - CE, loss of accuracy by corruption (less is better)",
                   "weak_robustness", "proden", "overall_accuracy", settings=_SETS, sign=-1,
                   **_SMALL),
          "face_votes_robustness"),
)  # fmt: skip


def ledger() -> pd.DataFrame:
    """Return the ledger: a row a claim, regime and selection rule, columns `COLUMNS`.

    What was not run is blank. `low` and `high` are over seeds, `images_low` and `images_high` over
    test images, of the differences that the study's table has. A positive difference speaks for
    the claim.
    """
    rows = []
    for claim in CLAIMS:
        for regime, contrast in ((SHORT, claim.short), (CONVERGED, claim.converged)):
            for rule in rules_of(contrast):
                row = dict.fromkeys(COLUMNS)
                row |= {"number": claim.number, "paper": claim.paper, "claim": claim.words}
                row |= {"regime": regime, "measured": contrast.words, "selection": rule}
                row["shown_in"] = contrast.shown_in
                rows.append(row | measured(contrast, rule))
    return pd.DataFrame(rows, columns=COLUMNS)


def rules_of(contrast: Contrast) -> tuple[str, ...]:
    """Return the selection rules under which a contrast can be looked at."""
    # Facts of training belong to no selected epoch; corrupted images were shown to the last.
    of_last = contrast.chance is not None or contrast.study.endswith("_robustness")
    return ("last",) if of_last else ("last", "best_validation")


def measured(contrast: Contrast, rule: str) -> dict:
    """Return what the published tables say of a contrast; nothing where they are not there."""
    study = contrast.study.removesuffix("_robustness")
    if not study or not (ROOT / "results" / f"{contrast.study}.csv").is_file():
        return {"verdict": "not run"}
    gains = contrast.sign * _gains(contrast, rule)
    if not len(gains):
        return {"verdict": "not run"}
    found = student_interval(gains)
    images = _over_images(contrast, rule)
    gate = _gate(study)
    verdict = _verdict(found, images, gains, gate.passed, contrast)
    return {
        **{name: found[name] for name in ("n", "difference", "low", "high")},
        **dict(zip(("images_low", "images_high"), images, strict=True)),
        **{"gate": str(gate), "verdict": verdict, "study": study},
        "command": f"make study CONFIG=configs/{study}.yaml",
    }


def _verdict(found: dict, images: tuple, gains, passed: bool, contrast: Contrast) -> str:
    bounds = np.array([found["low"], found["high"], *images], dtype=float)
    bounds = bounds[~np.isnan(bounds)]
    if not passed or np.isnan(found["low"]):
        return INCONCLUSIVE
    if (bounds > 0).all():
        return "verified"
    if (bounds < 0).all() or (contrast.chance is None and equivalence(gains) < 0.05):
        return "falsified"
    return INCONCLUSIVE


def _gains(contrast: Contrast, rule: str) -> np.ndarray:
    """Return the difference of each seed, (n,) float."""
    if contrast.study.endswith("_robustness"):
        return _losses_by_corruption(contrast)
    if contrast.chance is not None:
        table = _under(_table(f"{contrast.study}_epochs"), contrast)
        table = table[table["epoch"] == table["epochs"] - 1]
        facts = table.pivot_table(index="seed", columns="metric", values="value")
        if contrast.metric not in facts:
            return np.array([])
        chance = contrast.chance if isinstance(contrast.chance, float) else facts[contrast.chance]
        return (facts[contrast.metric] - chance).to_numpy()
    table = _table(contrast.study)
    table = table[(table["metric"] == contrast.metric) & (table["selection"] == rule)]
    if contrast.init:  # the same method from other weights
        own = table[(table["backbone"] == contrast.backbone) & (table["method"] == contrast.method)]
        is_pretrained = own["init"].str.contains(contrast.init)
        both = (own[is_pretrained], own[~is_pretrained])
    else:
        both = (_under(table, contrast), _other(table, contrast))
    one, other = (rows.set_index("seed")["value"] for rows in both)
    return (one - other).dropna().to_numpy()


def _losses_by_corruption(contrast: Contrast) -> np.ndarray:
    """Return the difference in how much accuracy corrupted images lose, mean over corruptions."""
    table = _table(contrast.study)
    table = table[table["metric"] == contrast.metric]

    def losses(rows: pd.DataFrame) -> pd.Series:
        clean = rows[rows["severity"] == 0].set_index("seed")["value"]
        return clean - rows[rows["severity"] > 0].groupby("seed")["value"].mean()

    both = losses(_under(table, contrast)) - losses(_other(table, contrast))
    return both.dropna().to_numpy()


def _under(table: pd.DataFrame, contrast: Contrast) -> pd.DataFrame:
    """Return the rows of the contrast's method under its condition."""
    return _rows(table, contrast, contrast.method, contrast.settings)


def _other(table: pd.DataFrame, contrast: Contrast) -> pd.DataFrame:
    return _rows(table, contrast, contrast.against, "")


def _rows(table: pd.DataFrame, contrast: Contrast, method: str, settings: str) -> pd.DataFrame:
    chosen = (
        (table["method"] == method)
        & (table["settings"] == settings)
        & np.isclose(table["noise_rate"], contrast.noise_rate)
        & np.isclose(table["imbalance_factor"], contrast.imbalance_factor)
    )
    if contrast.backbone:
        chosen &= table["backbone"] == contrast.backbone
    return table[chosen]


def _over_images(contrast: Contrast, rule: str) -> tuple[float, float]:
    """Return the interval over test images, where the study's table of differences has it."""
    path = ROOT / "results" / f"{contrast.study}_differences.csv"
    accuracies = contrast.metric in ("overall_accuracy", "mean_accuracy")
    if contrast.chance is not None or contrast.init or not accuracies or not path.is_file():
        return (np.nan, np.nan)
    table = _under(read_table(path), contrast)
    table = table[(table["selection"] == rule) & (table["metric"] == contrast.metric)]
    table = table[table["reference"] == contrast.against]
    if len(table) != 1:
        return (np.nan, np.nan)
    bounds = contrast.sign * table[["images_low", "images_high"]].to_numpy()[0]
    return tuple(sorted(bounds))


def _gate(study: str) -> Gate:
    """Return the gate of a published study, or of the one whose recipe it shares."""
    content = yaml.safe_load((ROOT / "configs" / f"{study}.yaml").read_text())
    of = content.get("gate", study)
    control = content.get("positive_control", "eac")
    return study_gate(_table(of), _table(f"{of}_epochs"), control)


def _table(name: str) -> pd.DataFrame:
    return read_table(ROOT / "results" / f"{name}.csv")


def in_short(claims: pd.DataFrame) -> pd.DataFrame:
    """Return the ledger for a first screen: a row a claim, and both regimes in words."""
    rows = []
    for number, same in claims.groupby("number"):
        row = {"claim": f"{number}. {same['claim'].iloc[0]}", "measured": same["measured"].iloc[0]}
        for regime in (SHORT, CONVERGED):
            of_regime = same[same["regime"] == regime]
            row[regime] = _verdicts(of_regime)
        rows.append(row)
    return pd.DataFrame(rows)


def _verdicts(rows: pd.DataFrame) -> str:
    """Return a regime's verdict with its differences; both where the selection rule decides."""
    last, *chosen = rows.itertuples()
    if last.verdict == "not run":
        return "not run"
    words = f"{last.verdict}: {_value(last)}"
    if not chosen:
        return words
    (chosen,) = chosen
    verdict = "" if chosen.verdict == last.verdict else f"{chosen.verdict}: "
    return f"{words}; epoch chosen on held-out images {verdict}{_value(chosen)}"


def _value(row) -> str:
    return f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}], n = {row.n:.0f}"
