"""FERPlus-N: the training labels that people give, beside those of the votes, as one table.

python -m nlalib labels ferplus                          prints what they are, and their digest
python -m nlalib labels ferplus --output data/ferplus_n.csv    writes them

The table has names and labels, nothing of the images: whoever has the two public files makes the
same one. A run needs no such table (`label_source`, `noise_kind: matched`); its twins are drawn for
its own images, with its own seed.
"""

import argparse
import hashlib

import numpy as np
import pandas as pd

from nlalib.data.choice import DataChoice
from nlalib.data.label_sources import RULE, matched_labels
from nlalib.data.labels import expressions
from nlalib.data.sets import SETS
from nlalib.files import write_csv
from nlalib.paths import display_path, resolve


def label_columns(choice: DataChoice, index: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the labels of all sources, and of their twins, for images of the training split.

    Parameters
    ----------
    choice : DataChoice
        Its `data_seed` draws annotators.
    index : pandas.DataFrame
        Of the set's `read`.
    seed : int
        Draws the twins.

    Returns
    -------
    pandas.DataFrame
        `image_id`, and a column of class ids for each of the set's `label_sources` and
        `<source>_matched` for each but the rule, whose twin it is itself.

    Raises
    ------
    FileNotFoundError, ValueError
        If FER2013's labels are wanted and not there, or of other images.
    """
    train = index[index["split"] == "train"].reset_index(drop=True)
    table = train[["image_id"]].assign(**{RULE: train["label"]})
    for place, source in enumerate(choice.set.label_sources[1:], start=1):
        chosen = DataChoice(**{**vars(choice), "label_source": source})
        table[source] = choice.set.given_labels(train, chosen)
        labels, given = train["label"].to_numpy(), table[source].to_numpy()
        table[f"{source}_matched"] = matched_labels(labels, given, [seed, place])
    return table


def labels_digest(table: pd.DataFrame) -> str:
    """Return the SHA-256 of the table's names and labels, whatever the order of its rows."""
    rows = table.sort_values("image_id")
    digest = hashlib.sha256(" ".join(table.columns).encode())
    digest.update("\n".join(rows["image_id"]).encode())
    digest.update(np.ascontiguousarray(rows.drop(columns="image_id").to_numpy("<i8")))
    return digest.hexdigest()


def summary(table: pd.DataFrame, num_classes: int) -> pd.DataFrame:
    """Return of each column the images of each class, and the share that is not the rule's."""
    labels = table.drop(columns="image_id")
    counts = labels.apply(lambda column: np.bincount(column, minlength=num_classes)).T
    counts.columns = list(expressions(num_classes))
    wrong = labels.ne(labels[RULE], axis=0).mean()
    return counts.assign(wrong=wrong.map("{:.2%}".format)).rename_axis("labels of")


def main(arguments: list[str]) -> None:
    """Print the labels' summary and digest, and write them where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m nlalib labels", description=__doc__)
    having = [name for name, data_set in SETS.items() if data_set.has_votes]
    parser.add_argument("dataset", choices=having)
    parser.add_argument("--root", default="", help="the set's folder; data/<dataset> without it")
    parser.add_argument("--rule", default="argmax", help="the label rule")
    parser.add_argument("--data-seed", type=int, default=0, help="draws the annotators asked")
    parser.add_argument("--seed", type=int, default=0, help="draws the twins")
    parser.add_argument("--output", help="CSV file to write")
    given = parser.parse_args(arguments)
    choice = DataChoice(
        dataset=given.dataset, data_root=given.root, label_rule=given.rule, num_classes=7,
        data_seed=given.data_seed, train_images=0, test_images=0,
    )  # fmt: skip
    index, _ = choice.set.read(choice)
    table = label_columns(choice, index, given.seed)
    if given.output:
        names = dict(enumerate(expressions(7)))
        words = table.set_index("image_id").replace(names).reset_index()
        path = resolve(given.output)
        write_csv(path, words)
        print(f"wrote {display_path(path)}")
    print(summary(table, 7).to_string())
    print(f"\n{len(table):,} training images; digest {labels_digest(table)}")
