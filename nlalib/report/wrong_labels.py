"""Which wrong labels are found and learnt: by how many annotators agree, and by true class."""

from collections.abc import Mapping, Sequence

import pandas as pd

from nlalib.metrics import AGREEMENT_BINS
from nlalib.report.per_sample import detection, memorisation, some_flipped


def by_agreement(samples: pd.DataFrame, own: Mapping[str, str]) -> dict[str, float]:
    """Return how wrong labels are found and learnt where annotators agree alike.

    A label that contradicts ten annotators is an error; one that contradicts five of nine is
    perhaps none. For each bin of `AGREEMENT_BINS`: `<name>_<bin>`, for `auroc_within_label_...` of
    `detection` but the margin's, and for `flipped_as_given` of `memorisation`. Empty without
    flipped labels or votes, and for a bin in which no label is flipped.

    Parameters
    ----------
    samples : pandas.DataFrame
        As in `detection` and `memorisation`, with `leading_votes`: how many of ten annotators name
        the class that most of them name.
    own : mapping of str to {"low", "high"}
        `Method.detectors` of the run's method.
    """
    values = {}
    for name, inside in _bins(samples):
        if not some_flipped(inside):
            continue
        found = detection(inside, own)
        if "predicted" in inside:
            found["flipped_as_given"] = memorisation(inside)["flipped_as_given"]
        chosen = ("auroc_within_label", "flipped_as_given")
        # The margin ranks nearly as the loss does, and these tables are long.
        kept = [m for m in found if m.startswith(chosen) and not m.endswith("margin")]
        values |= {f"{metric}_{name}": found[metric] for metric in kept}
    return values


def flipped_shares(samples: pd.DataFrame) -> dict[str, float]:
    """Return `flipped_share_<bin>`, by bin: of no epoch, as labels do not change.

    Parameters
    ----------
    samples : pandas.DataFrame
        `is_flipped` and `leading_votes`, as in `by_agreement`.
    """
    return {f"flipped_share_{name}": inside["is_flipped"].mean() for name, inside in _bins(samples)}


def _bins(samples: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the bins that hold images; none without flipped labels or votes."""
    if not some_flipped(samples) or "leading_votes" not in samples:
        return []
    bins = [
        (name, samples[samples["leading_votes"].between(least, most)])
        for name, (least, most) in AGREEMENT_BINS.items()
    ]
    return [(name, inside) for name, inside in bins if len(inside)]


def true_recalls(samples: pd.DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """Return `true_recall_<class>`, the share of a class's images that are seen as what they are.

    Of training images by their true label, whatever label they are given; classes without images
    have none. Empty where no label is flipped.

    Parameters
    ----------
    samples : pandas.DataFrame
        `predicted`, `true_label` and `is_flipped`.
    classes : sequence of str
        The K names, by class id.
    """
    if not some_flipped(samples):
        return {}
    is_seen = samples["predicted"] == samples["true_label"]
    shares = is_seen.groupby(samples["true_label"]).mean()
    return {f"true_recall_{classes[int(k)]}": share for k, share in shares.items()}
