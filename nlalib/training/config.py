"""A training run: its typed parameters, its identity, and the folder it leaves behind.

A run's folder `runs/<run_id>/` holds `config.json`, `environment.json`, `metrics.csv` (one row an
epoch), `timing.csv` (seconds of training and evaluation, without those of writing),
`samples.parquet` (part, given and true label of each image), `predictions.parquet` (of the
selected epochs; of the training images the last epoch's), `naw.parquet` (facts of each training
image at each epoch; NLA's True case is where p_gt >= p_nn), `weights.safetensors` (last epoch),
`method.safetensors` (of a method with a head of its own), `notebook.ipynb`, and last of all `done`.
A study adds `executed`, when the run's notebook has run to its end.
"""

import ast
import difflib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from nlalib.data.candidates import CANDIDATE_RULES, THRESHOLD_RANGES, VOTE_RULES
from nlalib.data.label_noise import NOISE_KINDS
from nlalib.data.labels import expressions
from nlalib.data.sets.base import alignment_settings
from nlalib.data.votes import LABEL_RULES
from nlalib.files import writing
from nlalib.methods import make_method
from nlalib.networks.initial_weights import FACE_WEIGHTS, file_digest, initialisation_name
from nlalib.networks.registry import BACKBONES
from nlalib.paths import ROOT, resolve, runs_folder
from nlalib.training.augmentation import named_recipe

# Raise it when a change of the code changes results, so that old runs are not taken for new ones.
RESULTS_VERSION = 1
_TOLD_IN_SETTINGS = (
    "label_rule",
    "noise_kind",
    "candidate_rule",
    "candidate_threshold",
    "view_order",
    "precision",
    "processes",
)
DATASETS = ("rendered", "ferplus", "rafdb", "affectnet")
# Where a run reads, writes and computes does not change what it computes. Nor do compilation, the
# choice of algorithms and the order of channels: like a device, they order sums in other ways.
_NOT_IDENTITY = (
    *("data_root", "initial_weights", "label_file", "candidate_scores"),
    *("device", "compile", "deterministic", "channels_last"),
)
# Parameters that came after the first runs: left out of the identity where they are as they
# were before there was a choice, so that those runs keep their names.
_LATER = (
    "noise_kind",
    "label_file",
    "imbalance_factor",
    "candidate_rule",
    "candidate_threshold",
    "processes",
)
# Tables are encoded a group of rows at a time; Arrow keeps the memory of the largest for later.
_ROWS_OF_A_GROUP = 16_384


class Parameters:
    """What the kinds of runs share: checked parameters, and a folder that is named by them.

    Base of frozen dataclasses with the fields `dataset` and `data_root`, and with two properties:
    `identity`, a dict of what changes the result, and `label`, what stands in the run's name for
    people.
    """

    def check_types(self) -> None:
        """Raise TypeError for a parameter of the wrong type; turn whole numbers into floats."""
        for parameter in fields(self):
            value = checked_type(parameter.name, getattr(self, parameter.name), parameter.type)
            object.__setattr__(self, parameter.name, value)

    @classmethod
    def from_parameters(cls, parameters: dict):
        """Return the configuration; an unknown name is an error that suggests the nearest one."""
        refuse_unknown(parameters, [parameter.name for parameter in fields(cls)], "parameter")
        return cls(**parameters)

    @property
    def run_id(self) -> str:
        """A readable name and a digest of the identity, the same on every machine."""
        text = json.dumps(self.identity, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return f"{self.dataset}-{self.label}-{digest}"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return runs_folder() / self.run_id

    @property
    def of_aligned_images(self) -> dict:
        """What the identity holds of aligned images: another folder is no other run, they are."""
        settings = alignment_settings(resolve(self.data_root or f"data/{self.dataset}"))
        return {} if settings is None else {"alignment": settings}

    @property
    def is_done(self) -> bool:
        """Whether the run is finished: its last file is there."""
        return (self.folder / "done").exists()


@dataclass(frozen=True)
class RunConfig(Parameters):
    """The parameters of one training run, with the defaults of `04_training.ipynb`."""

    dataset: str = "rendered"
    data_root: str = ""
    label_rule: str = "argmax"
    num_classes: int = 7
    train_images: int = 600
    test_images: int = 200
    data_seed: int = 0
    noise_rate: float = 0.0
    noise_kind: str = "symmetric"
    label_file: str = ""
    imbalance_factor: float = 1.0
    candidate_rule: str = "count"
    candidate_threshold: float = 1.0
    candidate_scores: str = ""
    held_out: float = 0.1
    image_size: int = 48
    method: str = "nla"
    method_settings: dict = field(default_factory=dict)
    backbone: str = "resnet18_narrow16"
    initial_weights: str = ""
    epochs: int = 3
    batch_size: int = 64
    optimizer: str = "adamw"
    lr: float = 3.0e-3
    weight_decay: float = 1.0e-4
    lr_schedule: str = "one_cycle"
    augmentation: str = "affine"
    view_order: str = "joint"
    precision: str = "fp32"
    seed: int = 0
    device: str = "auto"
    processes: int = 1
    compile: bool = False
    deterministic: bool = False
    channels_last: bool = True

    def __post_init__(self):
        self.check_types()
        self._check_values()

    def _check_values(self) -> None:
        expressions(self.num_classes)
        named_recipe(self.augmentation)
        method = make_method(self.method, self.method_settings)
        choices = {
            "dataset": DATASETS,
            "backbone": tuple(BACKBONES),
            "label_rule": tuple(LABEL_RULES),
            "noise_kind": NOISE_KINDS,
            "candidate_rule": CANDIDATE_RULES,
            "optimizer": ("adam", "adamw"),
            "lr_schedule": ("exponential", "compressed_exponential", "one_cycle", "constant"),
            "view_order": ("joint", "separate"),
            "precision": ("fp32", "bf16", "fp16"),
            "device": ("auto", "cpu", "cuda"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}"
                )
        at_least = {"epochs": 1, "batch_size": 2, "image_size": 16, "processes": 1}
        not_negative = ("train_images", "test_images", "seed", "data_seed", "lr", "weight_decay")
        for name, least in {**at_least, **dict.fromkeys(not_negative, 0)}.items():
            if not least <= getattr(self, name) < float("inf"):  # false for NaN as well
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        refusal = BACKBONES[self.backbone].refusal(self.image_size)
        if refusal:
            raise ValueError(
                f"image_size is {self.image_size}; the backbone {self.backbone} {refusal}"
            )
        if self.initial_weights == FACE_WEIGHTS and self.backbone != "face_resnet":
            raise ValueError(
                f"initial_weights is {FACE_WEIGHTS!r}, which fit the backbone 'face_resnet' and "
                f"not {self.backbone!r}"
            )
        if not 0 < self.held_out < 0.5:
            raise ValueError(f"held_out is {self.held_out}; it must lie between 0 and 0.5")
        if not 0 <= self.noise_rate < 1:
            raise ValueError(f"noise_rate is {self.noise_rate}; it must be from 0 to below 1")
        if self.processes > 1 and method.keeps_samples:
            raise ValueError(
                f"processes is {self.processes}, but method {self.method!r} remembers something of "
                "each sample, which one process would not tell the others; leave it at 1"
            )
        if self.processes > 1 and method.sums_over_batch:
            raise ValueError(
                f"processes is {self.processes}, but the released consistency of method "
                f"{self.method!r} is a sum over the batch, of which each process would see a part; "
                "leave it at 1"
            )
        if self.batch_size < 2 * self.processes:
            raise ValueError(
                f"batch_size is {self.batch_size} for {self.processes} processes; batch "
                "normalisation needs at least two images in each"
            )
        # No parameter may change a run's id alone and nothing else.
        if self.dataset != "ferplus" and self.label_rule != "argmax":
            raise ValueError(
                f"label_rule is {self.label_rule!r}, which is for FERPlus: the labels of "
                f"{self.dataset} are given; leave it at 'argmax'"
            )
        if self.dataset == "rafdb" and self.num_classes != 7:
            raise ValueError(f"num_classes is {self.num_classes}; RAF-DB's basic part has 7")
        if self.noise_kind != "symmetric" and (self.dataset == "rendered" or not self.noise_rate):
            raise ValueError(
                f"noise_kind is {self.noise_kind!r}: it needs a noise_rate above 0, and rendered "
                "faces have symmetric noise only"
            )
        if self.label_file and (self.dataset != "rafdb" or self.noise_rate):
            raise ValueError(
                "label_file is a list of noisy labels for rafdb; leave it empty for other sets, "
                "and noise_rate at 0.0 with it"
            )
        from_votes = "votes" in method.needs or (
            "candidates" in method.needs and self.candidate_rule in VOTE_RULES
        )
        if self.noise_rate and from_votes:
            raise ValueError(
                f"noise_rate is {self.noise_rate}, but method {self.method!r} learns from votes, "
                "which the noise leaves as they are: it would look immune. Leave it at 0.0, or "
                "take candidate_rule 'random', whose sets hold the given labels"
            )
        if not 1 <= self.imbalance_factor < float("inf"):
            raise ValueError(f"imbalance_factor is {self.imbalance_factor}; it is at least 1")
        if self.imbalance_factor > 1 and self.dataset == "rendered":
            raise ValueError("imbalance_factor is for the real sets; leave it at 1.0 for rendered")
        lowest, highest = THRESHOLD_RANGES[self.candidate_rule]
        if not lowest <= self.candidate_threshold <= highest:
            raise ValueError(
                f"candidate_threshold is {self.candidate_threshold}; for candidate_rule "
                f"{self.candidate_rule!r} it lies from {lowest:g} to {highest:g}"
            )
        if bool(self.candidate_scores) != (self.candidate_rule == "model"):
            raise ValueError(
                f"candidate_scores is {self.candidate_scores!r} for candidate_rule "
                f"{self.candidate_rule!r}: the rule 'model', and no other, needs the file of "
                "scores that `python -m nlalib scores RUN_ID` writes"
            )
        if self.candidate_rule == "model" and self.candidate_threshold % 1:
            raise ValueError(
                f"candidate_threshold is {self.candidate_threshold}; for candidate_rule 'model' it "
                "is a number of classes, like 2.0"
            )
        candidates = (self.candidate_rule, self.candidate_threshold)
        if "candidates" not in method.needs and candidates != ("count", 1.0):
            raise ValueError(
                f"candidate_rule and candidate_threshold are {candidates}, but method "
                f"{self.method!r} learns from labels; leave them at ('count', 1.0)"
            )

    @property
    def initialisation(self) -> str:
        """How results name the initial weights."""
        return initialisation_name(self.initial_weights)

    @property
    def identity(self) -> dict:
        """What changes the result: the parameters without places and devices.

        Initial weights count by their content: a renamed copy of the file is the same.
        """
        kept = {name: v for name, v in asdict(self).items() if name not in _NOT_IDENTITY}
        for parameter in fields(self):
            if parameter.name in _LATER and kept.get(parameter.name) == parameter.default:
                del kept[parameter.name]
        if self.label_file:
            kept["labels"] = file_digest(resolve(self.label_file))
        if self.candidate_scores:
            kept["scores"] = file_digest(resolve(self.candidate_scores))
        kept |= self.of_aligned_images
        weights = self.initialisation.rpartition("@")[2]
        return {**kept, "initialisation": weights, "results_version": RESULTS_VERSION}

    @property
    def settings(self) -> str:
        """How tables tell this run's choices from a plain run of its method: "" for a plain one.

        The method's settings and the other choices that are neither a column of their own nor
        the same throughout a comparison, as `name=value`.
        """
        default = type(self)()
        chosen = dict(self.method_settings)
        for name in _TOLD_IN_SETTINGS:
            if getattr(self, name) != getattr(default, name):
                chosen[name] = getattr(self, name)
        return ", ".join(f"{name}={value}" for name, value in sorted(chosen.items()))

    @property
    def label(self) -> str:
        """What stands in the run's name for people."""
        return f"{self.method}-seed{self.seed}"


def read_config(folder: Path) -> RunConfig:
    """Return the configuration of a finished run.

    Raises
    ------
    FileNotFoundError
        If there is no such run, or it is not done; the message names some that are.
    """
    if not (folder / "done").is_file() or not (folder / "config.json").is_file():
        known = sorted(path.parent.name for path in runs_folder().glob("*/done"))
        some = ", ".join(known[:3]) + f" and {len(known) - 3} more" * (len(known) > 3)
        raise FileNotFoundError(f"no finished run at {folder}; finished are {some or 'none'}")
    parameters = json.loads((folder / "config.json").read_text())
    parameters.pop("identity")
    return RunConfig.from_parameters(parameters)


def checked_type(name: str, value, expected: type):
    """Return `value` as `expected`; TypeError unless it is one (a whole number may be a float)."""
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        hint = ""
        if expected is float and isinstance(value, str):
            hint = "; YAML reads 1e-4 as text: write 1.0e-4"
        raise TypeError(
            f"parameter {name} is {value!r} of type {type(value).__name__}; "
            f"expected {expected.__name__}{hint}"
        )
    return value


def refuse_unknown(given, known, what: str) -> None:
    """Raise ValueError if a name in `given` is not `known`, and suggest the nearest."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ValueError(f"unknown {what} {name!r}; {hint}")


def parameters_in_cells(history: list[str], expected: Collection[str]) -> list[str] | None:
    """Return the names that the parameters cell and papermill's cell after it assign.

    Parameters
    ----------
    history : list of str
        Sources of the cells that a kernel ran, oldest first (IPython's `In`).
    expected : collection of str
        Names of parameters; the parameters cell is the latest with types that assigns one.

    Returns
    -------
    list of str or None
        None where no parameters cell was run.
    """
    injected: list[str] = []
    for source in reversed(history):
        try:
            statements = ast.parse(source).body
        except SyntaxError:
            continue
        typed = [one.target for one in statements if isinstance(one, ast.AnnAssign)]
        plain = [
            target for one in statements if isinstance(one, ast.Assign) for target in one.targets
        ]
        names = [target.id for target in typed + plain if isinstance(target, ast.Name)]
        if typed and set(names) & set(expected):
            return names + injected
        if source.startswith("# Parameters"):  # papermill's first line
            injected = names + injected
    return None


def notebook_parameters(namespace: dict, **expected: type) -> dict:
    """Return a notebook's parameters from its `globals()`, checked.

    papermill only warns of a misspelt parameter, and injects it as one more variable. What counts
    is what the parameters cell and papermill's cell assign; whatever else a kernel holds, from an
    earlier run of all cells or from a start-up file, is none of it.

    Parameters
    ----------
    namespace : dict
        `globals()` of the notebook.
    **expected
        Name and type of each parameter. Without any: those of `RunConfig`.

    Raises
    ------
    ValueError
        For a variable that is no parameter, with the nearest name.
    TypeError
        For a value of another type.
    """
    if not expected:
        expected = {parameter.name: parameter.type for parameter in fields(RunConfig)}
    # Outside a notebook (a script made of it) there is no history, and nothing was injected.
    given = parameters_in_cells(namespace.get("In", []), expected)
    if given is None:
        given = [name for name in expected if name in namespace]
    paths = ("PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH", "PAPERMILL_CWD_PATH")
    refuse_unknown([name for name in given if name not in paths], list(expected), "parameter")
    missing = [name for name in expected if name not in given]
    if missing:
        raise ValueError(f"the parameters cell lacks {', '.join(missing)}")
    return {name: checked_type(name, namespace[name], kind) for name, kind in expected.items()}


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then rename.

    So the file at `path` is whole or absent, whenever the process is killed.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; a file that was at `path` stays.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with writing(path):  # looks at the disk before the unfinished file gives its room back
            path.parent.mkdir(parents=True, exist_ok=True)
            write(unfinished)
            unfinished.replace(path)
    finally:
        with suppress(OSError):  # where the folder itself is out of reach
            unfinished.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run's folder; the lock ends with the process that holds it.

    Raises
    ------
    RuntimeError
        If another process holds it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(
                f"another process is training {folder.name}; wait for it, or stop it"
            ) from error
        yield


def write_json(path: Path, content: dict) -> None:
    """Write `content` as JSON, atomically."""
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    write_atomically(path, lambda unfinished: unfinished.write_text(text))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write `table`, without its row labels, as a parquet file, atomically."""
    write_atomically(
        path,
        lambda unfinished: table.to_parquet(
            unfinished, index=False, row_group_size=_ROWS_OF_A_GROUP
        ),
    )
    pa.default_memory_pool().release_unused()


def join_tables(path: Path, files: list[Path]) -> None:
    """Write the rows of all parquet `files` to one at `path`, atomically, a group at a time.

    Raises
    ------
    ValueError
        If one of them is damaged.
    """

    def join(unfinished: Path) -> None:
        with _reading(files[0], path):
            schema = pq.read_schema(files[0])
        with pq.ParquetWriter(unfinished, schema) as writer:
            for file in files:
                with _reading(file, path):
                    given = pq.ParquetFile(file)
                for group in range(given.num_row_groups):
                    with _reading(file, path):
                        # Threads would keep memory of their own, which is not released.
                        rows = given.read_row_group(group, use_threads=False)
                    writer.write_table(rows)

    write_atomically(path, join)
    pa.default_memory_pool().release_unused()


@contextmanager
def _reading(file: Path, wanted: Path) -> Iterator[None]:
    """Tell which parquet file is damaged, of those that `wanted` is made of."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{file} is no whole parquet table ({error}): delete {wanted.parent} to make it anew"
        ) from error


def environment() -> dict:
    """Return what the run ran on: versions, machine, threads, commit of the project.

    The commit is None where the project is no git clone, or where git is not installed.
    """
    commit = None
    if shutil.which("git"):
        commit = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    packages = ("torch", "torchvision", "numpy", "accelerate", "scikit-learn", "opencv-python")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor_name(),
        "threads": torch.get_num_threads(),
        "cuda_device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": commit or None,
        "packages": {name: version(name) for name in packages},
    }


def _processor_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
