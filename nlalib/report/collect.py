"""From the runs of a study to its long tables: results, and numbers over epochs.

Every metric is computed here, from what a run predicts for the test images, so that a new one needs
no training.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pandas as pd

from nlalib.data.choice import DataChoice
from nlalib.data.content import CONTENT_FILE, content_of, require_content
from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.labels import probability_columns
from nlalib.data.pixels import image_array
from nlalib.data.splits import TEST, class_votes, load_dataset
from nlalib.metrics import (
    agreement_accuracies,
    classification_metrics,
    picked_epochs,
    selective_risks,
    vote_metrics,
)
from nlalib.paths import display_path
from nlalib.report.certainty import CONDITION, reference_rows
from nlalib.report.epoch_numbers import run_epoch_numbers
from nlalib.report.frame import RESULT_COLUMNS, SETTING, stacked
from nlalib.report.records import (
    KEPT_RULES,
    curve_rows,
    kept_curves,
    kept_epochs,
    kept_runs,
    read_curves,
    read_record,
)
from nlalib.report.studies import Study, training_command
from nlalib.training.config import RunConfig

# By which a training is known.
_COURSE = ["train_loss", "test_overall_accuracy"]
# Rules that average or pick epochs of which no predictions are kept: accuracies alone.
_RULES_OF_CURVES = ("last_five", "best_test")


def identity_columns(config: RunConfig, study: str) -> dict:
    """Return what tells a run apart in long tables: `study`, `run_id`, `SETTING`, `seed`."""
    parameters = asdict(config)
    own = {"init": config.initialisation, "settings": config.settings}
    own["label_source"] = config.data.labels
    setting = {name: own.get(name, parameters.get(name)) for name in SETTING}
    return {"study": study, "run_id": config.run_id, **setting, "seed": config.seed}


def run_rows(config: RunConfig, study: str, votes: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return a run's results, one row a number (columns `RESULT_COLUMNS`).

    "last" and "best_validation" pick one epoch, `selected_epoch` (counted from 0), and give all
    metrics of it. "last_five" is the mean over epochs, of overall and mean accuracy; "best_test"
    gives these two, each of its own best test epoch, as the released code of NLA does.

    Parameters
    ----------
    config : RunConfig
    study : str
    votes : pandas.DataFrame, optional
        Votes for the classes, (N, K), by `image_id` of the test images; without them there are
        no metrics of agreement with people.
    """
    record = read_record(config, study)
    rows = []
    for rule in KEPT_RULES:
        table = record.at(rule)
        labels = table["label"].to_numpy()
        probabilities = table[probability_columns(config.num_classes)].to_numpy()
        found = classification_metrics(labels, probabilities, config.num_classes)
        if votes is not None:
            require_test_images(config, table, votes)
            of_images = votes.loc[table.index].to_numpy()
            predicted = probabilities.argmax(axis=1)
            found |= vote_metrics(of_images, probabilities)
            found |= agreement_accuracies(labels, of_images, predicted)
        found |= selective_risks(labels, probabilities)
        found["selected_epoch"] = picked_epochs(record.curves, rule)[0]
        rows += [(rule, name, value) for name, value in found.items()]
    for rule in _RULES_OF_CURVES:
        for name in ("overall_accuracy", "mean_accuracy"):
            epochs = record.curves["epoch"].isin(picked_epochs(record.curves, rule, name))
            rows.append((rule, name, record.curves.loc[epochs, f"test_{name}"].mean()))
    rows.append(("last", "training_seconds", record.curves["seconds"].sum()))
    table = pd.DataFrame(rows, columns=["selection", "metric", "value"])
    return table.assign(**identity_columns(config, study))[RESULT_COLUMNS]


def require_test_images(config: RunConfig, tested: pd.DataFrame, votes: pd.DataFrame) -> None:
    """Raise ValueError if a run was tested on images (by index) that there are no votes of now."""
    if not tested.index.isin(votes.index).all():
        raise ValueError(
            f"{config.run_id} was tested on images that its data set does not have now; "
            "has the data set changed? Restore it, or train the run anew"
        )


def require_runs(study: Study, *, kept: bool = True) -> None:
    """Raise FileNotFoundError if a run is not done, nor (with `kept`) kept with the study.

    So no hole is averaged away. The message gives the command that makes the run.
    """
    enough = kept_runs(study.name) if kept else ()
    for config in study.runs.values():
        if not config.is_done and config.run_id not in enough:
            raise FileNotFoundError(
                f"run {config.run_id} of study {study.name} is not done; make it with\n"
                f"  {training_command(config)}"
            )


def require_same_data(study: Study) -> None:
    """Raise ValueError if a run's folder records other images or labels than its data set has now.

    So nobody is shown results of one folder for those of another. Faces that are made, runs
    without a record, and sets that are not there at all are passed over.
    """

    @cache  # methods of a seed share their data
    def content(choice: DataChoice, size: int) -> dict[str, str]:
        index, _ = load_dataset(choice)
        return content_of(index, image_array(index, root=choice.root, size=size))

    for config in study.runs.values():
        data, is_recorded = config.data, (config.folder / CONTENT_FILE).is_file()
        if is_recorded and not data.set.is_made and data.root.is_dir():
            require_content(config.folder, content(data, config.image_size))


def require_one_machine(study: Study) -> None:
    """Raise ValueError if a finished run is not its kept self, while others are kept alone.

    A run that is trained once more on another machine has the same id and other numbers; beside
    kept runs it would be told as one of theirs.
    """
    kept = kept_runs(study.name)
    gone = [run_id for run_id, c in study.runs.items() if not c.is_done and run_id in kept]
    twice = [c for run_id, c in study.runs.items() if c.is_done and run_id in kept]
    for config in twice if gone else []:
        here, kept_ones = (
            curves.set_index("epoch")[_COURSE]
            for curves in (read_curves(config), kept_curves(config.run_id, study.name))
        )
        if not np.allclose(here.round(6), kept_ones.reindex(here.index), rtol=0, atol=1.5e-6):
            raise ValueError(
                f"{display_path(config.folder)} has other losses or accuracies than the same run "
                f"kept in results/ with study {study.name}, and {len(gone)} kept runs, such as "
                f"{gone[0]}, have no folder here: two trainings would stand in one table. Point "
                "NLA_RUNS at the folder of the kept training, or train those runs here too"
            )


def runs_at_hand(study: Study) -> dict[str, RunConfig]:
    """Return the study's runs that are done or kept, by run id."""
    kept = kept_runs(study.name)
    return {run_id: c for run_id, c in study.runs.items() if c.is_done or run_id in kept}


def some_runs_at_hand(study: Study) -> dict[str, RunConfig]:
    """Return `runs_at_hand`; FileNotFoundError if there are none."""
    runs = runs_at_hand(study)
    if not runs:
        raise FileNotFoundError(f"no run of study {study.name} is done or kept")
    return runs


def finished_part(study: Study) -> Study:
    """Return the study with its finished runs alone: those that are done or kept.

    One whose reference, of the same seed and condition, is not there waits for it.

    Raises
    ------
    FileNotFoundError
        If there is no such run.
    """
    declared = pd.DataFrame([identity_columns(c, study.name) for c in study.runs.values()])
    references = [
        reference_rows(same, reference)
        for _, same in declared.groupby(CONDITION, dropna=False)
        for reference in study.references
    ]
    key = [*CONDITION, "seed"]
    at_hand = runs_at_hand(study)
    needed = pd.concat(references).drop_duplicates("run_id")
    missing = needed.loc[~needed["run_id"].isin(at_hand), key]
    waiting = set(declared.merge(missing)["run_id"])
    runs = {run_id: c for run_id, c in at_hand.items() if run_id not in waiting}
    if not runs:
        require_runs(study)
    return replace(study, runs=runs)


def study_table(study: Study) -> pd.DataFrame:
    """Return the long table of a study: one row a number, all runs.

    Raises
    ------
    FileNotFoundError
        If a run is neither done nor kept, see `require_runs`.
    """
    require_runs(study)
    index_of = index_reader()
    tables = [
        run_rows(config, study.name, votes_of_test(index_of(config.data), config.num_classes))
        for config in study.runs.values()
    ]
    return pd.concat(tables, ignore_index=True)


def study_epochs(study: Study) -> pd.DataFrame:
    """Return the long table of numbers over epochs: the course of metrics, and per-sample records.

    Columns `study`, `run_id`, `SETTING`, `seed`, `epoch`, `metric`, `value`. Of a run whose folder
    is gone the published rows.

    Raises
    ------
    FileNotFoundError
        If a run is neither done nor kept, see `require_runs`.
    """
    require_runs(study)
    index_of, tables = index_reader(), []
    for config in study.runs.values():
        if config.is_done:
            rows = [run_epoch_numbers(config, index_of(config.data)), curve_rows(config)]
            table = stacked(rows)
        else:
            table = kept_epochs(study.name).query("run_id == @config.run_id")
        identity = identity_columns(config, study.name)
        tables.append(table.assign(**identity)[[*identity, "epoch", "metric", "value"]])
    return pd.concat(tables, ignore_index=True)


def index_reader() -> Callable[[DataChoice], pd.DataFrame]:
    """Return a function that reads the index of a choice, once for all runs that share it."""
    return cache(lambda choice: load_dataset(choice)[0])


def votes_of_test(index: pd.DataFrame, num_classes: int) -> pd.DataFrame | None:
    """Return the votes for the classes by `image_id` of the test images; None without any."""
    if not set(VOTE_COLUMNS) <= set(index):
        return None
    test = index[index["part"] == TEST]
    return pd.DataFrame(class_votes(test, num_classes), index=test["image_id"])
