"""What a run records of single images: its samples, each epoch's training, the predictions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from nlalib.data.labels import expressions
from nlalib.files import write_table


def write_samples(folder: Path, index: pd.DataFrame) -> None:
    """Write `samples.parquet`: part and given label of each image, and the true one if known."""
    known = [c for c in ("image_id", "part", "label", "true_label", "is_flipped") if c in index]
    write_table(folder / "samples.parquet", index[known])


def epoch_file(folder: Path, epoch: int) -> Path:
    """Return where one epoch's records lie until the finished run joins them."""
    return folder / "records" / f"{epoch:04d}.parquet"


def write_epoch_records(folder: Path, epoch: int, image_ids: np.ndarray, records: dict) -> None:
    """Write one epoch's records, one row a training image."""
    table = pd.DataFrame({"epoch": np.int16(epoch), "image_id": image_ids, **records})
    write_table(epoch_file(folder, epoch), table)


def check_epoch_records(folder: Path, epochs: int, rows: int) -> None:
    """Look at the records of the first `epochs` epochs, as a resumed run needs them at its end.

    Raises
    ------
    ValueError
        If a file of them is lost, damaged or not of `rows` rows.
    """
    for epoch in range(epochs):
        file = epoch_file(folder, epoch)
        try:
            found = pq.read_table(file).num_rows
            cause = "" if found == rows else f"has {found:,} rows, not {rows:,}"
        except FileNotFoundError:
            cause = "is lost"
        except (pa.ArrowException, OSError) as error:
            cause = f"is damaged ({error})"
        if cause:
            raise ValueError(
                f"the records of epoch {epoch + 1}, {file}, cannot be used: the file {cause}. "
                f"Delete {folder} to train anew"
            )


def write_predictions(
    folder: Path,
    index: pd.DataFrame,
    parts: dict[str, np.ndarray],
    predictions: dict[int, dict[str, Tensor]],
) -> None:
    """Write `predictions.parquet`: the probabilities of each image, at each epoch that is kept.

    Parameters
    ----------
    folder : pathlib.Path
    index : pandas.DataFrame
    parts : dict of numpy.ndarray
        The rows of `index` that belong to each part.
    predictions : dict
        epoch -> part -> probabilities, (rows of the part, K) float32.
    """
    tables = []
    for epoch, of_parts in sorted(predictions.items()):
        for part, values in of_parts.items():
            columns = index.iloc[parts[part]][["image_id", "part", "label"]]
            names = [f"p_{name}" for name in expressions(values.shape[1])]
            table = pd.DataFrame(values.numpy(), columns=names, index=columns.index)
            tables.append(pd.concat([columns, table], axis=1).assign(epoch=epoch))
    write_table(folder / "predictions.parquet", pd.concat(tables))
