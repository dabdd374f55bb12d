"""Finished runs made by hand, and long tables of such."""

import json

import numpy as np
import pandas as pd

from nlalib.data.labels import expressions
from nlalib.report.frame import RESULT_COLUMNS, SETTING
from nlalib.report.per_sample import is_minority
from nlalib.report.studies import Study
from nlalib.training.config import RunConfig

LABELS = np.repeat(np.arange(7), 6)
OWN = {"weight": "low", "attention": "low", "uncertainty": "high"}


def write_run(
    config: RunConfig,
    hits: list[np.ndarray],
    labels: np.ndarray = LABELS,
    validation: list[float] | None = None,
    probability: float = 0.7,
) -> None:
    """Write a run of which `hits` says, for each epoch, which test images are predicted right.

    Images of which it is wrong are taken for the next class. The held-out part has as many images,
    all of them wrong; of the training images, at the last epoch, the first half is right.
    """
    config.folder.mkdir(parents=True, exist_ok=True)
    names = [f"p_{name}" for name in expressions(7)]
    ids = [f"i{number:03d}" for number in range(len(labels))]
    rest = (1 - probability) / 6

    def table(part: str, epoch: int, hit: np.ndarray) -> pd.DataFrame:
        predicted = np.where(hit, labels, (labels + 1) % 7)
        values = rest + (probability - rest) * np.eye(7)[predicted]
        rows = pd.DataFrame(values.astype(np.float32), columns=names)
        own = [f"{part}-{name}" for name in ids] if part != "test" else ids
        return rows.assign(image_id=own, part=part, label=labels, epoch=epoch)

    metrics, tables = [], []
    validation = validation or [-float(epoch) for epoch in range(len(hits))]
    for epoch, hit in enumerate(hits):
        tables += [table("test", epoch, hit), table("held_out", epoch, np.zeros_like(hit))]
        mean = np.mean([hit[labels == k].mean() for k in np.unique(labels)])
        row = {"epoch": epoch, "train_loss": 1.0, "train_accuracy": 0.5}
        row |= {"validation_overall_accuracy": validation[epoch], "validation_mean_accuracy": 0.0}
        row |= {"test_overall_accuracy": hit.mean(), "test_mean_accuracy": mean}
        metrics.append(row)
    first_half = np.arange(len(labels)) < len(labels) // 2
    tables.append(table("train", len(hits) - 1, first_half))
    pd.DataFrame(metrics).to_csv(config.folder / "metrics.csv", index=False)
    timing = pd.DataFrame({"epoch": range(len(hits)), "seconds": 2.5})
    timing.to_csv(config.folder / "timing.csv", index=False)
    predictions = pd.concat(tables).sample(frac=1, random_state=config.seed)
    predictions.to_parquet(config.folder / "predictions.parquet", index=False)
    samples = predictions[predictions["part"] == "train"][["image_id", "part", "label"]]
    samples.to_parquet(config.folder / "samples.parquet", index=False)
    (config.folder / "done").write_text(json.dumps({"seconds": 2.5 * len(hits)}))


def study_of(*configs: RunConfig, **more) -> Study:
    """Return a study of these runs."""
    return Study("tiny", "A tiny study", {}, {c.run_id: c for c in configs}, **more)


def results_of(values: dict[str, list[float]], **setting) -> pd.DataFrame:
    """A long table with one accuracy for each method and seed, the same under each rule."""
    rows = []
    for method, accuracies in values.items():
        for seed, value in enumerate(accuracies):
            for selection in ("last", "best_validation", "best_test"):
                for metric, factor in (("overall_accuracy", 1.0), ("mean_accuracy", 0.5)):
                    row = {"run_id": f"{method}{seed}", "method": method, "seed": seed}
                    row |= {"selection": selection, "metric": metric, "value": factor * value}
                    rows.append(row)
    fixed = {"study": "tiny", "dataset": "rendered", "backbone": "small", "init": "random"}
    fixed |= {
        "precision": "fp32",
        "epochs": 4,
        "noise_rate": 0.1,
        "imbalance_factor": 1.0,
        "settings": "",
        "label_source": "rule",
        **setting,
    }
    return pd.DataFrame(rows).assign(**fixed)[RESULT_COLUMNS]


RESULTS = results_of({"ce": [0.70, 0.72, 0.77], "nla": [0.75, 0.74, 0.83]})


def differences_of(method: str, noise_rate: float, accuracies: list, **other) -> list[dict]:
    """Return rows of a table of differences, as many points as given, one point either way."""
    row = {**dict.fromkeys(SETTING, ""), "noise_rate": noise_rate, "imbalance_factor": 1.0, "n": 3}
    row |= {"dataset": "rendered", "backbone": "small", "precision": "fp32"}
    row["label_source"] = "rule"
    row |= {"method": method, "reference": "ce", "selection": "last", **other}
    rows = []
    for metric, points in accuracies:
        value = points / 100
        seeds = {"difference": value, "low": value - 0.01, "high": value + 0.01}
        images = {"images_low": value - 0.005, "images_high": value + 0.005}
        seeds["p_seeds_holm"], images["p_images_holm"] = (0.01 if points < 0 else 0.2), 0.01
        rows.append({**row, "metric": metric, **seeds, **images, **other})
    return rows


def random_samples(number: int = 300, seed: int = 0) -> pd.DataFrame:
    """Return samples of three classes in training, three in ten of their labels wrong."""
    generator = np.random.default_rng(seed)
    points = generator.dirichlet(np.ones(3), number)
    labels = generator.choice(3, number, p=[0.6, 0.3, 0.1])
    flipped = generator.random(number) < 0.3
    return pd.DataFrame(
        {
            "p_gt": points[:, 0],
            "p_nn": points[:, 1:].max(axis=1),
            "cross_entropy": -np.log(points[:, 0]),
            "weight": generator.random(number),
            "predicted": generator.integers(0, 3, number).astype(float),
            "label": labels,
            "true_label": np.where(flipped, (labels + 1) % 3, labels),
            "is_flipped": flipped,
            "vote_entropy": generator.random(number).round(1),
            "is_minority": is_minority(labels, 3),
        }
    )
