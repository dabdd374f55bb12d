"""What a finished run tells a report: from its folder or, where that is gone, from results/.

`results/predictions/<study>.parquet` keeps of each run of a published study what it predicts for
the test images at the last epoch and at the best one on validation: enough for any later metric,
test or figure, without training. `results/<study>_epochs.csv` keeps the course of its metrics;
until the study is published whole, `<study>_epochs.csv` beside the predictions does.

Kept are logarithms of probabilities in half precision, each within a two-thousandth of what it was.
Probabilities themselves in half precision would lose the smallest, and with them the likelihood.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nlalib.data.labels import probability_columns
from nlalib.data.splits import TEST, TRAIN
from nlalib.files import write_atomically
from nlalib.metrics import picked_epochs
from nlalib.report.frame import published_file, read_once, read_table
from nlalib.report.per_sample import memorisation
from nlalib.training.config import RunConfig

KEPT_RULES = ("last", "best_validation")
# Of a run's metrics those that its course is told by, and that select epochs.
CURVES = (
    "train_loss",
    *(f"{part}_{name}_accuracy" for part in ("validation", "test") for name in ("overall", "mean")),
)
_SMALLEST = 1e-30  # probability


@dataclass(frozen=True)
class Record:
    """A finished run as reports see it.

    Attributes
    ----------
    curves : pandas.DataFrame
        One row an epoch: `epoch` (from 0), `CURVES`, `seconds`.
    predictions : pandas.DataFrame
        Of the test images at the epochs that `KEPT_RULES` pick, as they are kept: `epoch`,
        `image_id`, `label`, `log_p_<expression>` (float16).
    """

    curves: pd.DataFrame
    predictions: pd.DataFrame

    def at(self, rule: str) -> pd.DataFrame:
        """Return the predictions at the epoch that a rule of `KEPT_RULES` picks.

        Rows by `image_id`, sorted; columns `label` (int) and `p_<expression>` (float64).
        """
        (epoch,) = picked_epochs(self.curves, rule)
        chosen = self.predictions[self.predictions["epoch"] == epoch].set_index("image_id")
        names = [name for name in chosen if name.startswith("log_p_")]
        values = np.exp(chosen[names].to_numpy(np.float64))
        # Summed by size, so that equal probabilities of two images stay equal.
        values /= np.sort(values, axis=1).sum(axis=1, keepdims=True)
        columns = [name.removeprefix("log_") for name in names]
        table = pd.DataFrame(values, columns=columns, index=chosen.index.astype(str))
        table.insert(0, "label", chosen["label"].to_numpy(int))
        return table.sort_index()


def read_record(config: RunConfig, study: str) -> Record:
    """Return the record of a run that is done, or kept with the published study.

    Raises
    ------
    FileNotFoundError
        If it is neither.
    """
    if config.is_done:
        curves = read_curves(config)
        kept = {picked_epochs(curves, rule)[0] for rule in KEPT_RULES}
        table = pd.read_parquet(config.folder / "predictions.parquet")
        table = table[(table["part"] == TEST) & table["epoch"].isin(kept)]
        return Record(curves, _logarithms(table))
    if config.run_id not in kept_runs(study):
        raise FileNotFoundError(f"{config.run_id} is neither done nor kept with study {study}")
    table = kept_predictions(study).query("run_id == @config.run_id").drop(columns="run_id")
    return Record(kept_curves(config.run_id, study), table)


def kept_curves(run_id: str, study: str) -> pd.DataFrame:
    """Return `Record.curves` of a run that is kept with a published study."""
    rows = kept_epochs(study).query("run_id == @run_id")
    rows = rows[rows["metric"].isin([*CURVES, "seconds"])]
    return rows.pivot(index="epoch", columns="metric", values="value").reset_index()


def read_curves(config: RunConfig) -> pd.DataFrame:
    """Return `Record.curves` from a finished run's folder."""
    metrics = pd.read_csv(config.folder / "metrics.csv")
    metrics["seconds"] = pd.read_csv(config.folder / "timing.csv")["seconds"]
    return metrics[["epoch", *CURVES, "seconds"]]


def curve_rows(config: RunConfig) -> pd.DataFrame:
    """Return the course of a finished run in long form: columns `epoch`, `metric`, `value`.

    At the last epoch also what the finished network makes of its training images, unaugmented
    (`fitted_...`, as `memorisation` names it), where the run recorded that.
    """
    rows = read_curves(config).melt("epoch", var_name="metric")
    table = pd.read_parquet(config.folder / "predictions.parquet")
    table = table[table["part"] == TRAIN].set_index("image_id")
    if table.empty:
        return rows
    samples = pd.read_parquet(config.folder / "samples.parquet").set_index("image_id")
    samples = samples.loc[table.index]
    samples["predicted"] = table[probability_columns(config.num_classes)].to_numpy().argmax(axis=1)
    fitted = pd.Series(memorisation(samples)).add_prefix("fitted_").rename_axis("metric")
    fitted = fitted.reset_index(name="value").assign(epoch=config.epochs - 1)
    return pd.concat([rows, fitted[rows.columns]], ignore_index=True)


def predictions_of(configs: Iterable[RunConfig], study: str) -> pd.DataFrame:
    """Return what runs predict in one table: `Record.predictions` with a column `run_id`."""
    tables = [
        read_record(config, study).predictions.assign(run_id=config.run_id) for config in configs
    ]
    joined = pd.concat(tables, ignore_index=True)
    return joined.astype({"run_id": "category", "image_id": "category"})


def write_prediction_table(predictions: pd.DataFrame, path: Path) -> None:
    """Write the table of `predictions_of`, about 40 kilobytes for 3,500 images of an epoch."""
    # The bytes of numbers apart, the high ones of which are much alike: a seventh less.
    apart = {name: "BYTE_STREAM_SPLIT" for name in predictions if name.startswith("log_p_")}
    how = {"compression": "zstd", "compression_level": 19, "use_dictionary": ["run_id", "image_id"]}
    write_atomically(
        path,
        lambda unfinished: predictions.to_parquet(
            unfinished, index=False, column_encoding=apart, **how
        ),
    )


def kept_runs(study: str) -> frozenset[str]:
    """Return the ids of the runs whose predictions and course are kept with a published study."""
    if not predictions_file(study).is_file() or not epochs_file(study).is_file():
        return frozenset()
    of_course = kept_epochs(study).query("metric == 'seconds'")["run_id"]
    return frozenset(kept_predictions(study)["run_id"].unique()) & frozenset(of_course)


def predictions_file(study: str) -> Path:
    """Return the path of a published study's predictions."""
    return published_file(f"predictions/{study}.parquet")


def epochs_file(study: str) -> Path:
    """Return the path of a published study's numbers over epochs."""
    kept = kept_epochs_file(study)
    return kept if kept.is_file() else published_file(f"{study}_epochs.csv")


def kept_epochs_file(study: str) -> Path:
    """Return where the numbers over epochs of an unfinished study's runs are kept."""
    return published_file(f"predictions/{study}_epochs.csv")


def kept_predictions(study: str) -> pd.DataFrame:
    """Return the content of `predictions_file`."""
    return read_once(predictions_file(study), pd.read_parquet)


def kept_epochs(study: str) -> pd.DataFrame:
    """Return the content of `epochs_file`."""
    return read_once(epochs_file(study), read_table)


def _logarithms(table: pd.DataFrame) -> pd.DataFrame:
    columns = [name for name in table if name.startswith("p_")]
    found = table[["epoch", "image_id", "label"]].reset_index(drop=True)
    found = found.astype({"epoch": np.int16, "label": np.int8})
    values = np.log(np.maximum(table[columns].to_numpy(np.float64), _SMALLEST))
    return found.join(
        pd.DataFrame(values.astype(np.float16), columns=[f"log_{c}" for c in columns])
    )
