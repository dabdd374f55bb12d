"""A study's YAML file, and the training runs and notebooks that it asks for.

study: embedded                    # names the study's table, results/<study>.csv
title: one line for people
notebooks:                         # executed beside the training, with these parameters
  02_dataset_statistics: {faces: 3000}
fixed: {dataset: rendered}         # parameters of 04_training that all runs share
grid: {method: [ce, nla], seed: [0, 1]}  # every combination is one run
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import yaml

from nlalib.paths import ROOT, display_path, resolve, runs_folder
from nlalib.runs import RunConfig, refuse_unknown

TRAINING_NOTEBOOK = "04_training"


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
    """

    name: str
    title: str
    notebooks: dict[str, dict]
    runs: dict[str, RunConfig]

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
        For a misspelt key, an unknown value or a value of the wrong type.
    """
    path = resolve(path)
    if not path.is_file():
        known = ", ".join(display_path(p) for p in sorted((ROOT / "configs").glob("*.yaml")))
        raise FileNotFoundError(f"no study at {display_path(path)}; there are {known}")
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{display_path(path)} holds no mapping of keys to values")
    keys = ("study", "title", "notebooks", "fixed", "grid")
    try:
        refuse_unknown(content, keys, "key")
        missing = [key for key in keys if key not in content]
        if missing:
            raise ValueError(f"missing key {', '.join(missing)}")
        notebooks = {name: given or {} for name, given in (content["notebooks"] or {}).items()}
        there = [p.stem for p in sorted((ROOT / "notebooks").glob("*.ipynb"))]
        refuse_unknown(notebooks, there, "notebook")
        runs = [RunConfig.from_parameters(given) for given in _combinations(content)]
    except (ValueError, TypeError) as error:
        raise type(error)(f"{display_path(path)}: {error}") from error
    return Study(content["study"], content["title"], notebooks, {r.run_id: r for r in runs})


def _combinations(content: dict) -> list[dict]:
    """Return the parameters of each run: `fixed` with every combination of `grid`."""
    fixed, grid = content["fixed"] or {}, content["grid"] or {}
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
    """Return the papermill command that makes one run by hand."""
    default = RunConfig()
    changed = {
        name: value
        for name, value in vars(config).items()
        if value != getattr(default, name) and name != "method_settings"
    }
    words = [f"-p {name} {value}" for name, value in changed.items()]
    if config.method_settings:
        words.append(f'-y "{{method_settings: {yaml.safe_dump(config.method_settings).strip()}}}"')
    output = f"runs/{config.run_id}.ipynb"
    return f"papermill notebooks/{TRAINING_NOTEBOOK}.ipynb {output} {' '.join(words)}"
