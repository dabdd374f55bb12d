"""From a finished run's records of its training images to numbers over epochs."""

from pathlib import Path

import pandas as pd

from nlalib.data.describe import vote_entropy
from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.labels import expressions
from nlalib.data.splits import TRAIN, class_votes, training_candidates
from nlalib.report.per_sample import (
    ambiguity,
    detection,
    disambiguation,
    is_minority,
    mean_weights,
    memorisation,
    minority_shares,
    relabelling,
)
from nlalib.report.wrong_labels import by_agreement, flipped_shares, true_recalls
from nlalib.training.config import RunConfig


def records_file(config: RunConfig) -> Path:
    """Return the file with a run's records of single images; it is large and may be missing.

    All but the numbers of single images over epochs can be computed without it.
    """
    return config.folder / "naw.parquet"


def run_epoch_numbers(config: RunConfig, index: pd.DataFrame) -> pd.DataFrame:
    """Return what the records of a finished run come to at each epoch, one row a number.

    Parameters
    ----------
    config : RunConfig
    index : pandas.DataFrame
        Of `nlalib.data.splits.load_dataset(config.data)`.

    Returns
    -------
    pandas.DataFrame
        Columns `epoch` (from 0), `metric`, `value`. Empty without the run's `records_file`.

    Raises
    ------
    ValueError
        If the index has other labels than the run recorded: the data set has changed since.
    """
    if not records_file(config).is_file():
        return pd.DataFrame(columns=["epoch", "metric", "value"])
    train = index[index["part"] == TRAIN]
    _check_samples(config, train)
    known = train[[c for c in ("image_id", "label", "true_label", "is_flipped") if c in train]]
    known = known.assign(is_minority=is_minority(train["label"].to_numpy(), config.num_classes))
    if set(VOTE_COLUMNS) <= set(train):
        known["vote_entropy"] = vote_entropy(train)
        known["leading_votes"] = class_votes(train, config.num_classes).max(axis=1)
    records = pd.read_parquet(records_file(config))
    if "identified" in records:
        known["candidates"] = training_candidates(config.data, config.candidates, train).sum(axis=1)
    samples = records.merge(known, on="image_id", how="left", validate="many_to_one")
    if samples["label"].isna().any():
        raise ValueError(
            f"{config.run_id} recorded images that are no training images of its data set now; "
            "has the data set changed? Restore it, or remove the run's folder and train anew"
        )
    from nlalib.methods import METHODS  # which imports torch: seconds that other reports need not

    method, rows = METHODS[config.method], []
    classes = expressions(config.num_classes)
    for epoch, of_epoch in samples.groupby("epoch"):
        values = {
            # Runs made before the prediction was recorded know p_gt and p_nn only.
            **(memorisation(of_epoch) if "predicted" in of_epoch else {}),
            **(true_recalls(of_epoch, classes) if "predicted" in of_epoch else {}),
            **detection(of_epoch, method.detectors),
            **by_agreement(of_epoch, method.detectors),
            **mean_weights(of_epoch),
            **ambiguity(of_epoch, method.detectors),
            **minority_shares(of_epoch, method.detectors, method.weight_adds_to_one),
            **disambiguation(of_epoch),
            **relabelling(of_epoch),
        }
        rows += [(epoch, metric, float(value)) for metric, value in values.items()]
    rows += [(records["epoch"].max(), name, share) for name, share in flipped_shares(known).items()]
    return pd.DataFrame(rows, columns=["epoch", "metric", "value"])


def _check_samples(config: RunConfig, train: pd.DataFrame) -> None:
    """Compare the index with the labels that the run wrote down, where it did."""
    path = config.folder / "samples.parquet"
    if not path.is_file():
        return
    recorded = pd.read_parquet(path).query("part == @TRAIN").set_index("image_id")["label"]
    found = train.set_index("image_id")["label"]
    if not recorded.sort_index().equals(found.astype(recorded.dtype).sort_index()):
        raise ValueError(
            f"the training labels of {config.run_id} are not those of its data set now; has the "
            "data set changed? Restore it, or remove the run's folder and train anew"
        )
