"""What runs owe to test images that the training split holds too."""

import pandas as pd

from nlalib.data.labels import probability_columns
from nlalib.data.sets import SETS
from nlalib.data.splits import load_dataset
from nlalib.files import write_csv
from nlalib.metrics import classification_metrics
from nlalib.paths import display_path
from nlalib.prepare.audit import examine_images
from nlalib.prepare.duplicates import (
    Duplicates,
    find_duplicates,
    leaked_test_images,
    without_leaked,
)
from nlalib.report.collect import some_runs_at_hand
from nlalib.report.frame import published_file
from nlalib.report.records import read_record
from nlalib.report.studies import Study, read_study
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


def leakage_table(study: Study) -> pd.DataFrame:
    """Return the metrics of a study's runs, done or kept, with and without leaked test images.

    The predictions are those of a run's last epoch.

    Parameters
    ----------
    study : Study
        Its runs are on one data set with files, not rendered faces.

    Returns
    -------
    pandas.DataFrame
        A row for each run, `trained_on` (of `SCOPES`), `twins` ("exact" or "exact or near"):
        `run_id`, `method`, `noise_rate`, `seed`, `settings`, `label_source`, `test_images`,
        `leaked`, and for each metric its value on all test images, on the leaked ones
        (`..._leaked`; NaN without any) and on the others (`..._without`), fractions.

    Raises
    ------
    FileNotFoundError
        If no run of the study is done or kept.
    ValueError
        If they are on several sets, or on one without files.
    """
    runs = list(some_runs_at_hand(study).values())
    places = {(run.dataset, run.data.root) for run in runs}
    if len(places) != 1 or runs[0].data.set.is_made:
        raise ValueError(
            f"the runs of {study.name} are on {sorted({run.dataset for run in runs})}; leakage is "
            "counted on one set with image files: choose a study of such runs"
        )
    dataset, root = places.pop()
    images, _ = SETS[dataset].read_all(root)
    prints, files = examine_images(images, root, None)
    images, duplicates = images[files["decoded"]], find_duplicates(prints)
    leaked_of = {run.data: _leaked_by_scope(run, images, duplicates) for run in runs}
    rows = []
    for run in runs:
        for (scope, twins), leaked in leaked_of[run.data].items():
            names = {"run_id": run.run_id, "method": run.method, "noise_rate": run.noise_rate}
            names |= {"seed": run.seed, "settings": run.settings, "label_source": run.data.labels}
            test = read_record(run, study.name).at("last").reset_index()
            values = _compare(test, leaked, run.num_classes)
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


def _compare(test: pd.DataFrame, leaked: list[str], num_classes: int) -> dict[str, float]:
    is_leaked = test["image_id"].isin(leaked)
    parts = {"": test, "_leaked": test[is_leaked], "_without": without_leaked(test, leaked)}
    columns = probability_columns(num_classes)
    values: dict[str, float] = {"test_images": len(test), "leaked": int(is_leaked.sum())}
    for ending, part in parts.items():
        if part.empty:
            found = dict.fromkeys(_METRICS, float("nan"))
        else:
            given = part["label"].to_numpy(), part[columns].to_numpy()
            found = classification_metrics(*given, num_classes)
        values |= {f"{metric}{ending}": found[metric] for metric in _METRICS}
    return values


def leakage(config: str) -> None:
    """Write `results/<study>_leakage.csv` of a study's runs, done or kept, and print it."""
    study = read_study(config)
    table = leakage_table(study)
    path = published_file(f"{study.name}_leakage.csv")
    write_csv(path, table, float_format="%.6g")
    print(table.drop(columns="run_id").to_string(index=False, float_format="{:.4f}".format))
    print(f"wrote {display_path(path)}")
