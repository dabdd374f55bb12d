"""Metrics with and without leaked test images, of runs made by hand on a small tree."""

import pandas as pd
import pytest

from made_sets import TEST, file_of, write_rafdb
from nlalib.data.labels import BASIC_EXPRESSIONS
from nlalib.report.leakage import leakage_table
from nlalib.training.config import RunConfig


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a finished run: of two leaked test images one is predicted right, all others wrong."""
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    root = write_rafdb(tmp_path / "set", {"train": dict.fromkeys(TEST, 20), "test": TEST})
    for test, train in ((140, 0), (141, 21)):
        file_of(root, train).write_bytes(file_of(root, test).read_bytes())
    run = RunConfig(dataset="rafdb", data_root=str(root), train_images=0, test_images=0, epochs=2)
    labels = [number for number, name in enumerate(BASIC_EXPRESSIONS) for _ in range(TEST[name])]
    rows = []
    for number, label in enumerate(labels):
        answer = label if number == 0 else (label + 1) % 7
        shares = {f"p_{n}": float(i == answer) for i, n in enumerate(BASIC_EXPRESSIONS)}
        rows.append(
            {"image_id": f"test_{140 + number:05d}", "part": "test", "label": label} | shares
        )
    last = pd.DataFrame(rows).assign(epoch=1)
    run.folder.mkdir(parents=True)
    # An earlier epoch, all right, takes no part.
    first = last.assign(epoch=0, label=BASIC_EXPRESSIONS.index("fear"), p_fear=1.0)
    pd.concat([first, last]).to_parquet(run.folder / "predictions.parquet")
    return run


def test_metrics_with_and_without_leaked_images(run):
    table = leakage_table([run]).set_index(["trained_on", "twins"])
    row = table.loc[("official split", "exact")]
    images = sum(TEST.values())
    assert (row["test_images"], row["leaked"]) == (images, 2)
    assert row["overall_accuracy"] == pytest.approx(1 / images)
    assert row["overall_accuracy_leaked"] == 0.5
    assert row["overall_accuracy_without"] == 0
    # Some training images are held out, and with them perhaps a twin.
    assert table.loc[("run", "exact"), "leaked"] <= 2


def test_runs_on_no_set_are_refused():
    with pytest.raises(ValueError, match="0 finished runs on no set"):
        leakage_table([])
    with pytest.raises(ValueError, match="rendered"):
        leakage_table([RunConfig()])
