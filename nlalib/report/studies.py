"""A study's YAML file, and the training runs and notebooks that it asks for.

study: embedded                    # names the study's table, results/<study>.csv
title: one line for people
notebooks:                         # executed beside the training, with these parameters
  02_dataset_statistics: {faces: 3000}
references: [ce]                   # optional: methods that the others are compared with
primary: [nla]                     # optional: methods whose difference to the first reference was
                                   # declared before the runs; corrected among themselves
asks_again: face                   # optional: the published study whose declared contrasts this one
                                   # asks once more; corrected together with them
positive_control: eac              # optional: a method known to help under noise; see report.gate
gate: face_long                    # optional: the study of the same recipe whose gate speaks here
readme: true                       # optional: the README shows its table
pretraining: {epochs: 40}          # optional: parameters of 05_masked_pretraining; runs that have
                                   # `initial_weights: pretraining` start from what it leaves
fixed: {dataset: rendered}         # parameters of 04_training that all runs share
grid: {method: [ce, nla], seed: [0, 1]}  # every combination is one run; or a list of such grids
"""

import itertools
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from nlalib.names import refuse_unknown
from nlalib.parameters import checked_type
from nlalib.paths import ROOT, display_path, resolve, runs_folder
from nlalib.training.config import RunConfig

if TYPE_CHECKING:
    from nlalib.training.pretrain_config import PretrainConfig

TRAINING_NOTEBOOK = "04_training"
PRETRAINING_NOTEBOOK = "05_masked_pretraining"
FROM_PRETRAINING = "pretraining"  # as initial_weights
# The keys of a file, and their types; a grid may be a list of such. What may be left out has the
# name and the default of a field of `Study`.
_NEEDED = {"study": str, "title": str, "notebooks": dict, "fixed": dict, "grid": dict}
_OPTIONAL = {
    "references": list,
    "pretraining": dict,
    "primary": list,
    "asks_again": str,
    "positive_control": str,
    "gate": str,
    "readme": bool,
}


@dataclass(frozen=True)
class Study:
    """A checked study.

    Attributes
    ----------
    name, title : str
    notebooks : dict of str to dict
        Parameters of each notebook that is executed beside the training.
    runs : dict of str to RunConfig
        By run id, in the order of the grid.
    references : list of str
        Methods, with their own settings, that all others are compared with.
    pretraining : PretrainConfig, or None
        The run of masked pre-training that some of the runs start from.
    primary : list of str
        Methods whose plain setting is compared with the first reference as declared before.
    asks_again : str
        The published study whose declared contrasts this one asks once more; "" for none.
    positive_control : str
        A method that is known to help under label noise; "" for the gate's own choice.
    gate : str
        The study whose gate speaks for this one as well; "" for its own.
    readme : bool
        Whether the README shows its table.
    declared : dict of str to RunConfig
        All runs of its file, also where `runs` are those alone that have ended.
    """

    name: str
    title: str
    notebooks: dict[str, dict]
    runs: dict[str, RunConfig]
    references: list[str] = field(default_factory=lambda: ["ce"])
    pretraining: "PretrainConfig | None" = None
    primary: list[str] = field(default_factory=list)
    asks_again: str = ""
    positive_control: str = ""
    gate: str = ""
    readme: bool = False
    declared: dict[str, RunConfig] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the study's table, figures and executed notebooks go, ignored by git."""
        return runs_folder() / f"study-{self.name}"


def read_study(path: str | Path) -> Study:
    """Read and check a study's file; every parameter of every run is checked before any work.

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message lists the studies that there are.
    ValueError, TypeError
        For a misspelt or missing key, an unknown value, a value of the wrong type, or two
        combinations that are one run.
    """
    path = resolve(path)
    if not path.is_file():
        known = ", ".join(display_path(p) for p in sorted((ROOT / "configs").glob("*.yaml")))
        raise FileNotFoundError(f"no study at {display_path(path)}; there are {known}")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{display_path(path)} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{display_path(path)} holds no mapping of keys to values")
    try:
        return _study(content)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{display_path(path)}: {error}") from error


def _study(content: dict) -> Study:
    """Return the checked study of a file's content."""
    # Imported here, as by RunConfig: PyTorch takes seconds, and tables are read without it.
    from nlalib.methods import METHODS

    kinds = _NEEDED | _OPTIONAL
    refuse_unknown(content, list(kinds), "key")
    missing = [key for key in _NEEDED if key not in content]
    if missing:
        raise ValueError(f"missing key {', '.join(missing)}")
    for key, value in content.items():
        if key != "grid" and (value is not None or kinds[key] is str):
            checked_type(key, value, kinds[key])
    if not re.fullmatch(r"\w+", content["study"]):
        raise ValueError(
            f"study is {content['study']!r}; it names files: letters, digits and _ only"
        )
    notebooks = {name: given or {} for name, given in (content["notebooks"] or {}).items()}
    there = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    refuse_unknown(notebooks, there, "notebook")
    options = {key: content[key] for key in _OPTIONAL if content.get(key) is not None}
    if "pretraining" in options:
        # Imported when asked for: it takes seconds, and most studies have none.
        from nlalib.training.pretrain_config import PretrainConfig

        options["pretraining"] = PretrainConfig.from_parameters(options["pretraining"])
    runs = _runs(content["fixed"] or {}, content["grid"], options.get("pretraining"))
    options["declared"] = runs
    study = Study(content["study"], content["title"], notebooks, runs, **options)
    if not study.references:
        raise ValueError("references is empty; name the method that others are compared with")
    control = [study.positive_control] if study.positive_control else []
    named = {"references": study.references, "primary": study.primary, "positive_control": control}
    for key, methods in named.items():
        refuse_unknown(methods, list(METHODS), f"method in {key}")
    return study


def _runs(fixed: dict, grid, pretraining: "PretrainConfig | None") -> dict[str, RunConfig]:
    """Return the checked runs of a grid, or of several, by run id."""
    grids = grid if isinstance(grid, list) else [grid or {}]
    if not all(isinstance(part, dict) for part in grids):
        raise TypeError(
            f"grid is {grid!r}; expected lists of values by parameter, or a list of such grids"
        )
    configs = [_run(given, pretraining) for part in grids for given in _products(fixed, part)]
    runs = {config.run_id: config for config in configs}
    if len(runs) < len(configs):
        raise ValueError(f"grid: {len(configs)} combinations are only {len(runs)} runs")
    return runs


def _run(parameters: dict, pretraining: "PretrainConfig | None") -> RunConfig:
    """Return the checked run, with the path of the weights that pre-training leaves."""
    if parameters.get("initial_weights") == FROM_PRETRAINING:
        if pretraining is None:
            raise ValueError(
                f"initial_weights is {FROM_PRETRAINING!r}, but the study has no such key with "
                f"the parameters of {PRETRAINING_NOTEBOOK}"
            )
        weights = display_path(pretraining.folder / "weights.safetensors")
        parameters = {**parameters, "initial_weights": weights}
    return RunConfig.from_parameters(parameters)


def _products(fixed: dict, grid: dict) -> list[dict]:
    both = sorted(set(fixed) & set(grid))
    if both:
        raise ValueError(f"{', '.join(both)} stands both in fixed and in grid")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"grid: {name} is {values!r}; expected a list of values")
    return [
        {**fixed, **dict(zip(grid, values, strict=True))}
        for values in itertools.product(*grid.values())
    ]


def training_command(config: RunConfig) -> str:
    """Return the papermill command that makes one run by hand, from the project's root.

    It gives the parameters that differ from the notebook's defaults.
    """
    default = RunConfig()
    words = ["papermill", f"notebooks/{TRAINING_NOTEBOOK}.ipynb", f"runs/{config.run_id}.ipynb"]
    for name, value in vars(config).items():
        if value == getattr(default, name):
            continue
        if isinstance(value, dict):
            settings = yaml.safe_dump({name: value}, default_flow_style=True, width=10**6)
            words += ["-y", settings.strip()]
        else:  # -r keeps text as text, also where it looks like a number
            words += ["-r" if isinstance(value, str) else "-p", name, str(value)]
    # papermill wants the folder of its output to be there.
    return f"mkdir -p runs && {shlex.join(words)}"
