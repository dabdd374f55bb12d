"""How finished runs stand up to corrupted test images, and how far their confidence can be trusted.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019) corrupt test images, never training images, in five severities. Their set
is made for photographs of 224 pixels (ImageNet-C) and of 32 (CIFAR-10-C); for faces of 48 pixels we
take three of its corruptions with the parameters of CIFAR-10-C, and add an occlusion.

==============  ============================================================================
gaussian_noise  normal noise on each pixel, standard deviation as a share of the grey scale;
                one draw for all three channels, so that a grey photograph stays grey
gaussian_blur   standard deviation of the kernel in pixels of an image of 32; it grows with
                the image's side
contrast        distance of each pixel to the mean of its image and channel, times this factor
occlusion       (ours) a square in one place at random, all of it inside the image, in the mean
                colour of the image; its side as a share of the image's side
==============  ============================================================================

All that is random depends on a seed, the image's id and the corruption alone: an image has the same
noise and the same place of the block at every severity, for every run, in every subset.
"""

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from safetensors.torch import load_file
from skimage.filters import gaussian

from nlalib.data.labels import expressions, probability_columns
from nlalib.data.pixels import image_array
from nlalib.data.splits import TEST, load_dataset
from nlalib.files import write_csv
from nlalib.methods import make_method
from nlalib.metrics import classification_metrics, reliability_bins
from nlalib.report.collect import identity_columns, require_runs
from nlalib.report.frame import published_file, published_table, read_table
from nlalib.report.studies import Study
from nlalib.training.config import RunConfig
from nlalib.training.devices import make_accelerator
from nlalib.training.learner import METHOD_FILE, load_learner
from nlalib.training.loop import predict

# Noise, blur and contrast: make_cifar_c.py in hendrycks/robustness at 3050544; occlusion: ours.
SEVERITIES = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "occlusion": (0.2, 0.3, 0.4, 0.5, 0.6),
}
CLEAN = "clean"
METRICS = ("overall_accuracy", "mean_accuracy", "nll", "ece")
_BLUR_SIDE = 32  # pixels
_SEED = 0  # of noise and places
# Corrupting costs about as much as a small network's verdict: these many runs share it.
_RUNS_AT_ONCE = 8


def corrupt_images(
    images: np.ndarray, image_ids: list[str], corruption: str, severity: int, seed: int = _SEED
) -> np.ndarray:
    """Return corrupted copies of images.

    Parameters
    ----------
    images : numpy.ndarray, (N, side, side, 3) uint8
    image_ids : list of str, N
        They and the seed fix what is random.
    corruption : str
        One of `SEVERITIES`.
    severity : int
        From 1 to 5.
    seed : int

    Returns
    -------
    numpy.ndarray, (N, side, side, 3) uint8
    """
    amount, side = SEVERITIES[corruption][severity - 1], images.shape[1]
    values = images.astype(np.float32)
    means = values.mean(axis=(1, 2), keepdims=True)  # (N, 1, 1, 3)
    if corruption == "contrast":
        values = means + amount * (values - means)
    elif corruption == "gaussian_blur":
        reach = amount * side / _BLUR_SIDE
        values = gaussian(values, sigma=(0, reach, reach, 0), preserve_range=True)
    else:
        for value, mean, image_id in zip(values, means, image_ids, strict=True):
            digests = [zlib.crc32(text.encode()) for text in (corruption, image_id)]
            generator = np.random.default_rng([seed, *digests])
            if corruption == "gaussian_noise":
                noise = generator.standard_normal((side, side, 1), dtype=np.float32)
                value += 255 * amount * noise
            else:
                block = round(amount * side)
                # Fractions of the free way, so that the centre moves little with the severity.
                top, left = np.rint(generator.random(2) * (side - block)).astype(int)
                value[top : top + block, left : left + block] = mean
    return np.rint(values).clip(0, 255).astype(np.uint8)


def run_robustness(configs: list[RunConfig], index: pd.DataFrame, images: np.ndarray) -> dict:
    """Return what corruption does to finished runs on one data set.

    The networks are those of the last epoch.

    Parameters
    ----------
    configs : list of RunConfig
        Finished runs that share `index`, device and precision.
    index : pandas.DataFrame
        Of `load_dataset`.
    images : numpy.ndarray, (len(index), side, side, 3) uint8

    Returns
    -------
    dict of str to pandas.DataFrame
        By run id: columns `corruption` ("clean" for images as they are), `severity` (0 for those),
        `metric` (of `METRICS`), `value`.

    Raises
    ------
    ValueError
        If a run's accuracy on clean images is not the one that it reported.
    """
    accelerator = make_accelerator(configs[0].device, configs[0].precision)
    positions = np.flatnonzero(index["part"] == TEST)
    test, test_images = index.iloc[positions], images[positions]
    learners = {c.run_id: load_learner(c).to(accelerator.device) for c in configs}
    settings = [(CLEAN, 0), *((name, s) for name in SEVERITIES for s in range(1, 6))]
    rows = {run_id: [] for run_id in learners}
    for corruption, severity in settings:
        seen = test_images
        if corruption != CLEAN:
            ids = test["image_id"].tolist()
            seen = corrupt_images(test_images, ids, corruption, severity)
        for run_id, learner in learners.items():
            probabilities = predict(learner, seen, np.arange(len(seen)), accelerator)
            for metric, value in _metrics(test, probabilities).items():
                rows[run_id].append((corruption, severity, metric, value))
    names = ["corruption", "severity", "metric", "value"]
    tables = {run_id: pd.DataFrame(found, columns=names) for run_id, found in rows.items()}
    for config in configs:
        _check_clean(config, tables[config.run_id])
    return tables


def _metrics(test: pd.DataFrame, probabilities: np.ndarray) -> dict[str, float]:
    num_classes = probabilities.shape[1]
    found = classification_metrics(test["label"].to_numpy(), probabilities, num_classes)
    return {metric: found[metric] for metric in METRICS}


def _check_clean(config: RunConfig, table: pd.DataFrame) -> None:
    """Compare with what the run itself reported; another machine may round a few logits apart."""
    clean = table.query("corruption == @CLEAN and metric == 'overall_accuracy'")["value"].item()
    reported = pd.read_csv(config.folder / "metrics.csv")["test_overall_accuracy"].iloc[-1]
    if abs(clean - reported) > 0.005:
        raise ValueError(
            f"{config.run_id} reported an accuracy of {reported:.4f} on its test images, but its "
            f"stored weights have {clean:.4f}; has the data set or the network's code changed? "
            "Restore it, or remove the run's folder and train anew"
        )


def study_robustness(study: Study) -> pd.DataFrame:
    """Return the long table of robustness of all runs of a study.

    A run's own rows are kept in its folder, so that a command that was killed goes on.

    Returns
    -------
    pandas.DataFrame
        Columns `study`, `run_id`, `frame.SETTING`, `seed`, and those of `run_robustness`.

    Raises
    ------
    FileNotFoundError
        If a run is neither done nor published; the message gives the command that makes it.
    """
    require_runs(_not_published(study, "robustness"), kept=False)
    name = _file_name()
    groups = {}
    for config in study.runs.values():
        if config.is_done and not (config.folder / name).is_file():
            key = (config.data, config.image_size, config.device, config.precision)
            groups.setdefault(key, []).append(config)
    for configs in groups.values():
        index, _ = load_dataset(configs[0].data)
        images = image_array(index, root=configs[0].data.root, size=configs[0].image_size)
        for start in range(0, len(configs), _RUNS_AT_ONCE):
            some = configs[start : start + _RUNS_AT_ONCE]
            for run_id, table in run_robustness(some, index, images).items():
                write_csv(study.runs[run_id].folder / name, table)
            print(f"corrupted images: {start + len(some)} of {len(configs)} runs", flush=True)
    return _collect(study, "robustness", lambda config: pd.read_csv(config.folder / name))


def _not_published(study: Study, name: str) -> Study:
    """Return the study with the runs alone that one of its published tables has no rows of."""
    path = published_file(f"{study.name}_{name}.csv")
    there = set(read_table(path)["run_id"]) if path.is_file() else set()
    return replace(study, runs={r: c for r, c in study.runs.items() if c.is_done or r not in there})


def _file_name() -> str:
    """Return a name that another set of corruptions, metrics or another seed would change."""
    content = json.dumps([SEVERITIES, METRICS, _BLUR_SIDE, _SEED])
    return f"robustness-{hashlib.sha256(content.encode()).hexdigest()[:8]}.csv"


def run_calibration(config: RunConfig) -> pd.DataFrame:
    """Return `reliability_bins` of a finished run: test images, last epoch."""
    table = pd.read_parquet(config.folder / "predictions.parquet")
    table = table[(table["part"] == TEST) & (table["epoch"] == config.epochs - 1)]
    probabilities = table[probability_columns(config.num_classes)].to_numpy()
    return reliability_bins(table["label"].to_numpy(), probabilities)


def run_label_similarities(config: RunConfig) -> pd.DataFrame:
    """Return the cosine similarity of the vectors that stand for two classes in a finished run.

    They are those that the run's method says, see `Method.class_vectors`.

    Returns
    -------
    pandas.DataFrame
        A row for each pair of classes: `first`, `second`, `similarity` (-1 to 1).
    """
    path = config.folder / METHOD_FILE
    network = load_file(config.folder / "weights.safetensors")
    method = make_method(config.method, config.method_settings)
    vectors = method.class_vectors(network, load_file(path) if path.exists() else {})
    vectors = vectors.numpy().astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names, (i, j) = np.array(expressions(config.num_classes)), np.triu_indices(len(vectors), k=1)
    similarity = (vectors @ vectors.T)[i, j]
    return pd.DataFrame({"first": names[i], "second": names[j], "similarity": similarity})


def _collect(study: Study, name: str, of_run: Callable[[RunConfig], pd.DataFrame]) -> pd.DataFrame:
    """Return the tables of all runs below each other, each row with the run it is of.

    Of a run whose folder is gone the published rows.
    """
    tables = []
    for config in study.runs.values():
        identity = identity_columns(config, study.name)
        if config.is_done:
            table = of_run(config)
            tables.append(table.assign(**identity)[[*identity, *table.columns]])
        else:
            rows = published_table(study.name, f"_{name}").query("run_id == @config.run_id")
            if rows.empty:
                require_runs(replace(study, runs={config.run_id: config}), kept=False)
            tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def study_tables(study: Study) -> dict[str, pd.DataFrame]:
    """Return the study's tables `robustness`, `calibration` and `label_embeddings`.

    Raises
    ------
    FileNotFoundError
        If a run is neither done nor published; the message gives the command that makes it.
    """
    return {
        "robustness": study_robustness(study),
        "calibration": _collect(study, "calibration", run_calibration),
        "label_embeddings": _collect(study, "label_embeddings", run_label_similarities),
    }
