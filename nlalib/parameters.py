"""Typed parameters: what each may be and what role it plays stands where it is declared.

class Run(Parameters):
    lr: float = parameter(3.0e-3, at_least=0)
    device: str = parameter("auto", identity=False, choices=("auto", "cpu", "cuda"))
"""

import ast
import hashlib
import json
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, asdict, field, fields
from pathlib import Path
from typing import Any

from nlalib.files import locked
from nlalib.names import refuse_unknown
from nlalib.paths import runs_folder


def parameter(
    default: Any = MISSING,
    *,
    factory: Callable[[], Any] | Any = MISSING,
    identity: bool = True,
    later: bool = False,
    told: bool = False,
    choices: Collection[str] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Declare a parameter of a `Parameters` class.

    Parameters
    ----------
    default, factory
        As for `dataclasses.field`.
    identity : bool
        Whether it changes the result, and so the run's name. Where a run reads, writes and
        computes does not.
    later : bool
        Whether it came after the first runs: left out of the identity at its default, which is
        how things were before there was a choice, so that those runs keep their names.
    told : bool
        Whether tables tell it among a run's settings, where it is not at its default.
    choices : collection of str, optional
        All values that it may have.
    at_least, above, below : float, optional
        The range of a number. A number is finite in any case.
    """
    roles = {"identity": identity, "later": later, "told": told}
    roles |= {"choices": choices, "at_least": at_least, "above": above, "below": below}
    return field(default=default, default_factory=factory, metadata=roles)


class Parameters:
    """Base of frozen dataclasses whose fields are checked parameters."""

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for a value that its parameter cannot have."""
        for declared in fields(self):  # type: ignore[arg-type]  # of the subclass
            value = checked_type(declared.name, getattr(self, declared.name), declared.type)
            _check_range(declared.name, value, declared.metadata)
            object.__setattr__(self, declared.name, value)  # a whole number has become a float
        self.check()

    def check(self) -> None:
        """Raise ValueError for values that do not go together; subclasses say which."""

    @classmethod
    def from_parameters(cls, parameters: dict):
        """Return the configuration; an unknown name is an error that suggests the nearest one."""
        refuse_unknown(parameters, [declared.name for declared in fields(cls)], "parameter")
        return cls(**parameters)

    @classmethod
    def from_notebook(cls, namespace: dict):
        """Return the configuration of a notebook's parameters, from its `globals()`."""
        expected = {declared.name: declared.type for declared in fields(cls)}
        return cls(**notebook_parameters(namespace, **expected))

    def share(self, cls: type):
        """Return the `cls` (another dataclass) that has what this has under the same names."""
        names = {declared.name for declared in fields(self)}  # type: ignore[arg-type]
        shared = [declared.name for declared in fields(cls) if declared.name in names]
        return cls(**{name: getattr(self, name) for name in shared})

    @property
    def chosen(self) -> dict:
        """The parameters that tables tell among a run's settings, where not at their defaults."""
        return {
            declared.name: getattr(self, declared.name)
            for declared in fields(self)  # type: ignore[arg-type]
            if declared.metadata.get("told") and getattr(self, declared.name) != declared.default
        }


class RunParameters(Parameters):
    """Parameters of a run, whose folder is named by them.

    Subclasses have a field `dataset`, and two properties: `identity`, a dict of what changes the
    result, and `label`, what stands in the run's name for people.
    """

    @property
    def of_identity(self) -> dict:
        """The values of the parameters that change the result."""
        values = asdict(self)  # type: ignore[call-overload]
        for declared in fields(self):  # type: ignore[arg-type]
            at_default = values[declared.name] == declared.default
            if not declared.metadata["identity"] or (declared.metadata["later"] and at_default):
                del values[declared.name]
        return values

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

    def locked(self):
        """Keep other processes out of the run's folder; RuntimeError if one is in it."""
        busy = f"another process is training {self.run_id}; wait for it, or stop it"
        return locked(self.folder / ".lock", busy)

    @property
    def is_done(self) -> bool:
        """Whether the run is finished: its last file is there."""
        return (self.folder / "done").exists()


_FITS = {"at_least": operator.ge, "above": operator.gt, "below": operator.lt}


def _check_range(name: str, value, roles: Mapping[str, Any]) -> None:
    choices = roles.get("choices")
    if choices is not None and value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    if type(value) not in (int, float):
        return
    limits = {word: roles[word] for word in _FITS if roles.get(word) is not None}
    is_finite = math.isfinite(value)
    if not (is_finite and all(_FITS[word](value, limit) for word, limit in limits.items())):
        words = [f"{word.replace('_', ' ')} {limit:g}" for word, limit in limits.items()]
        words += [] if is_finite else ["finite"]
        raise ValueError(f"{name} is {value}; it must be {' and '.join(words)}")


def checked_type(name: str, value, expected: type):
    """Return `value` as `expected`; TypeError unless it is one (a whole number may be a float)."""
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise TypeError(
            f"parameter {name} is {value!r} of type {type(value).__name__}; "
            f"expected {expected.__name__}{_how_to_write(name, value, expected)}"
        )
    return value


def _how_to_write(name: str, value, expected: type) -> str:
    """Return how papermill's command line and YAML give a value of the expected type."""
    if expected is str:
        return f"; for papermill, -r {name} {value} gives it as text"
    if not isinstance(value, str):
        return ""
    if expected is dict:
        return f"; for papermill, -y '{name}: {{...}}' gives a mapping, where -p gives text"
    if expected is bool and value.lower() in ("true", "false"):
        return f"; for papermill, -p {name} {value.capitalize()}"
    if expected is float and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
        mantissa, exponent = value.lower().split("e")
        return (
            f"; YAML reads {value} as text: write {mantissa}.0e{exponent}. For papermill, "
            f"-p {name} {value} gives a number, where -r gives text"
        )
    if re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", value, re.IGNORECASE):
        return f"; for papermill, -p {name} {value} gives a number, where -r gives text"
    return ""


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
        Name and type of each parameter.

    Raises
    ------
    ValueError
        For a variable that is no parameter, with the nearest name.
    TypeError
        For a value of another type.
    """
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
