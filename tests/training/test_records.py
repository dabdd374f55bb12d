"""Files of records: where a run that goes on finds them."""

import numpy as np
import pandas as pd

from nlalib.training.records import check_epoch_records, epoch_file, write_epoch_records


def test_records_of_a_run_that_was_begun_under_the_folders_old_name_are_found(tmp_path):
    names, weights = np.array(["a", "b"]), np.array([0.5, 1.0])
    write_epoch_records(tmp_path, 0, names, {"weight": weights})
    (tmp_path / "records").rename(tmp_path / "facts")
    check_epoch_records(tmp_path, 1, rows=2)
    table = pd.read_parquet(epoch_file(tmp_path, 0))
    assert table["image_id"].tolist() == ["a", "b"]
    assert table["weight"].tolist() == [0.5, 1.0]
    assert not (tmp_path / "facts").exists()
