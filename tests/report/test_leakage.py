"""Metrics with and without leaked test images, of runs made by hand on a small tree."""

import numpy as np
import pandas as pd
import pytest
from made_runs import study_of
from PIL import Image

from made_sets import TEST, file_of, write_rafdb
from nlalib.data.labels import BASIC_EXPRESSIONS
from nlalib.data.splits import load_dataset
from nlalib.report.leakage import leakage_table
from nlalib.report.records import CURVES
from nlalib.report.twins import gains_with_and_without_twins
from nlalib.training.config import RunConfig

FIRST_TEST = 140  # after 7 x 20 training images


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a finished run that predicts the first test image right and all others wrong.

    The first two test images have an exact twin among the images it trained on, the third one
    among those it held out, and the fourth a near one among those it trained on.
    """
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    root = write_rafdb(tmp_path / "set", {"train": dict.fromkeys(TEST, 20), "test": TEST})
    run = RunConfig(dataset="rafdb", data_root=str(root), train_images=0, test_images=0, epochs=2)
    part = load_dataset(run.data)[0].set_index("image_id")["part"]
    trained, held_out = (
        [int(name.split("_")[1]) for name in part.index[part == of]] for of in ("train", "held_out")
    )
    twins = zip(range(FIRST_TEST, FIRST_TEST + 3), [*trained[:2], held_out[0]], strict=True)
    for test, twin in twins:
        file_of(root, twin).write_bytes(file_of(root, test).read_bytes())
    pixels = np.asarray(Image.open(file_of(root, FIRST_TEST + 3)))
    Image.fromarray(pixels // 2 + 40).save(file_of(root, trained[2]), "PNG")

    labels = [number for number, name in enumerate(BASIC_EXPRESSIONS) for _ in range(TEST[name])]
    rows = []
    for number, label in enumerate(labels):
        answer = label if number == 0 else (label + 1) % 7
        shares = {f"p_{n}": float(i == answer) for i, n in enumerate(BASIC_EXPRESSIONS)}
        name = f"test_{FIRST_TEST + number:05d}"
        rows.append({"image_id": name, "part": "test", "label": label} | shares)
    last = pd.DataFrame(rows).assign(epoch=1)
    # Held-out images and an earlier epoch, all right, take no part.
    right = {f"p_{n}": float(n == "fear") for n in BASIC_EXPRESSIONS}
    right["label"] = BASIC_EXPRESSIONS.index("fear")
    names = [f"train_{number:05d}" for number in held_out]
    others = pd.DataFrame({"image_id": names, "part": "held_out", "epoch": 1}).assign(**right)
    run.folder.mkdir(parents=True)
    tables = [last.assign(epoch=0, **right), others, last]
    pd.concat(tables).to_parquet(run.folder / "predictions.parquet")
    course = pd.DataFrame(0.5, index=range(2), columns=CURVES)
    course.rename_axis("epoch").to_csv(run.folder / "metrics.csv")
    pd.DataFrame({"seconds": [1.0, 1.0]}).to_csv(run.folder / "timing.csv")
    (run.folder / "done").touch()
    return run


def test_metrics_with_and_without_leaked_images(run):
    table = leakage_table(study_of(run)).set_index(["trained_on", "twins"])
    images = sum(TEST.values())
    assert (table["test_images"] == images).all()
    assert table["leaked"].to_dict() == {
        ("run", "exact"): 2,
        ("run", "exact or near"): 3,
        ("official split", "exact"): 3,
        ("official split", "exact or near"): 4,
    }
    for row in table.to_dict("records"):
        assert row["overall_accuracy"] == pytest.approx(1 / images)
        assert row["overall_accuracy_leaked"] == pytest.approx(1 / row["leaked"])
        assert row["overall_accuracy_without"] == 0


def test_runs_that_cannot_leak_are_refused(run):
    with pytest.raises(FileNotFoundError, match="no run of study tiny is done"):
        leakage_table(study_of())
    rendered = RunConfig()
    rendered.folder.mkdir(parents=True)
    (rendered.folder / "done").touch()
    with pytest.raises(ValueError, match=r"on \['rendered'\]"):
        leakage_table(study_of(rendered))
    with pytest.raises(ValueError, match=r"on \['rafdb', 'rendered'\]"):
        leakage_table(study_of(run, rendered))


def test_gains_with_and_without_twins_are_those_of_the_shared_seeds():
    """Made by hand: on twins the reference leads, without them the method."""
    rows = []
    accuracies = {
        ("ce", 0): (0.7, 0.6, 0.9), ("ce", 1): (0.7, 0.5, 0.9), ("ce", 2): (0.1, 0.1, 0.1),
        ("ldl", 0): (0.8, 0.7, 0.8), ("ldl", 1): (0.8, 0.7, 0.6),
    }  # fmt: skip
    for (method, seed), values in accuracies.items():
        ends = dict(zip(("", "_without", "_leaked"), values, strict=True))
        rows.append({"method": method, "seed": seed, "noise_rate": 0.0, "test_images": 1500}
                    | {"leaked": 30, "trained_on": "run", "twins": "exact or near"}
                    | {"settings": "", "label_source": "rule"}
                    | {f"overall_accuracy{end}": value for end, value in ends.items()})  # fmt: skip
    table = pd.DataFrame(rows)
    zero = {f"overall_accuracy{end}": 0.0 for end in ("", "_without", "_leaked")}
    others = [
        table.assign(twins="exact", **zero),
        table.assign(trained_on="official split", **zero),
        table.assign(noise_rate=0.2, **zero),
        table[table["method"] == "ldl"].assign(settings="slope=1.0", **zero),
        table.assign(label_source="fer2013", **zero),
    ]
    found = gains_with_and_without_twins(pd.concat([table, *others]))
    assert list(found) == ["all 1,500", "1,470 without twins", "30 twins alone"]
    means = [float(words.split(" ")[0]) for words in found.loc["ldl, 0%"]]
    assert means == [10.0, 15.0, -20.0]
    further = {"ldl, 20%", "ldl, slope=1.0, 0%", "ldl, 0%, labels of fer2013"}
    assert set(found.index) == {"ldl, 0%", *further}
    assert gains_with_and_without_twins(table[table["method"] == "ce"]).empty
