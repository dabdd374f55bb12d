"""What finished runs owe to test images that the training split holds too."""

import pandas as pd

from nlalib.data.labels import expressions
from nlalib.data.sets import SETS
from nlalib.data.splits import load_dataset
from nlalib.files import write_csv
from nlalib.metrics import classification_metrics
from nlalib.paths import display_path, figures_folder
from nlalib.prepare.audit import examine_images
from nlalib.prepare.duplicates import (
    Duplicates,
    find_duplicates,
    leaked_test_images,
    without_leaked,
)
from nlalib.report.studies import read_study
from nlalib.training.config import RunConfig

_METRICS = (
    "overall_accuracy",
    "mean_accuracy",
    "worst_class_recall",
    "macro_f1",
    "mean_average_precision",
    "nll",
    "brier",
    "ece",
)
# Whose test images count as leaked: those with a twin among the images that the run trained on,
# or among all that the set ships for training.
SCOPES = ("run", "official split")


def leakage_table(runs: list[RunConfig]) -> pd.DataFrame:
    """Return the metrics of finished runs with and without leaked test images.

    The predictions are those of a run's last epoch.

    Parameters
    ----------
    runs : list of RunConfig
        Finished runs on one data set with files, not rendered faces.

    Returns
    -------
    pandas.DataFrame
        A row for each run, `trained_on` (of `SCOPES`), `twins` ("exact" or "exact or near"):
        `run_id`, `method`, `seed`, `test_images`, `leaked`, and for each metric its value on all
        test images, on the leaked ones (`..._leaked`; NaN without any) and on the others
        (`..._without`), fractions.

    Raises
    ------
    ValueError
        If there is no run, or they are on several sets.
    """
    places = {(run.dataset, run.data.root) for run in runs}
    if len(places) != 1 or runs[0].data.set.is_made:
        raise ValueError(
            f"{len(runs)} finished runs on {sorted({run.dataset for run in runs}) or 'no set'}; "
            "leakage is counted for finished runs on one set with image files: run the study first"
        )
    dataset, root = places.pop()
    images, _ = SETS[dataset].read_all(root)
    prints, files = examine_images(images, root, None)
    images, duplicates = images[files["decoded"]], find_duplicates(prints)
    leaked_of = {run.data: _leaked_by_scope(run, images, duplicates) for run in runs}
    rows = []
    for run in runs:
        for (scope, twins), leaked in leaked_of[run.data].items():
            names = {"run_id": run.run_id, "method": run.method, "seed": run.seed}
            values = _compare(pd.read_parquet(run.folder / "predictions.parquet"), leaked, run)
            rows.append(names | {"trained_on": scope, "twins": twins} | values)
    return pd.DataFrame(rows)


def _leaked_by_scope(
    run: RunConfig, images: pd.DataFrame, duplicates: Duplicates
) -> dict[tuple[str, str], list[str]]:
    part = load_dataset(run.data)[0].set_index("image_id")["part"]
    in_run = images["image_id"].map(part).fillna("")
    of_set = in_run.where(in_run == "test", images["split"].where(images["split"] == "train", ""))
    scopes = images.assign(**dict(zip(SCOPES, (in_run, of_set), strict=True)))
    return {
        (scope, twins): leaked_test_images(scopes, duplicates, near=twins != "exact", split=scope)
        for scope in SCOPES
        for twins in ("exact", "exact or near")
    }


def _compare(predictions: pd.DataFrame, leaked: list[str], run: RunConfig) -> dict[str, float]:
    last = predictions[predictions["epoch"] == run.epochs - 1]
    test = last[last["part"] == "test"]
    is_leaked = test["image_id"].isin(leaked)
    parts = {"": test, "_leaked": test[is_leaked], "_without": without_leaked(test, leaked)}
    columns = [f"p_{name}" for name in expressions(run.num_classes)]
    values: dict[str, float] = {"test_images": len(test), "leaked": int(is_leaked.sum())}
    for ending, part in parts.items():
        if part.empty:
            found = dict.fromkeys(_METRICS, float("nan"))
        else:
            given = part["label"].to_numpy(), part[columns].to_numpy()
            found = classification_metrics(*given, run.num_classes)
        values |= {f"{metric}{ending}": found[metric] for metric in _METRICS}
    return values


def leakage(config: str) -> None:
    """Write `figures/02_<dataset>_leakage.csv` from a study's finished runs, and print it."""
    study = read_study(config)
    table = leakage_table([run for run in study.runs.values() if run.is_done])
    dataset = next(iter(study.runs.values())).dataset
    path = figures_folder() / f"02_{dataset}_leakage.csv"
    write_csv(path, table, float_format="%.6g")
    print(table.drop(columns="run_id").to_string(index=False, float_format="{:.4f}".format))
    print(f"wrote {display_path(path)}")
