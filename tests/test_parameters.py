"""Parameters are checked where they are declared, and found in what a notebook's cells assign."""

from dataclasses import asdict, dataclass

import pytest

from nlalib.parameters import Parameters, notebook_parameters, parameter


@dataclass(frozen=True)
class Run(Parameters):
    epochs: int = parameter(3, at_least=1)
    lr: float = parameter(3.0e-3, at_least=0)
    share: float = parameter(0.1, above=0, below=0.5)
    kind: str = parameter("plain", told=True, choices=("plain", "other"))
    compile: bool = parameter(False, identity=False)
    method_settings: dict = parameter(factory=dict)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be at least 1$"),
        ({"lr": float("inf")}, "lr is inf; it must be at least 0 and finite$"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"share": 0.0}, "share is 0.0; it must be above 0 and below 0.5$"),
        ({"share": 0.5}, "share is 0.5; it must be above 0 and below 0.5$"),
        ({"kind": "Other"}, "kind is 'Other'; it must be one of plain, other$"),
    ],
)
def test_ranges_and_choices_stand_at_the_parameter(given, message):
    with pytest.raises(ValueError, match=message):
        Run(**given)


# What papermill makes of -p, -r and of YAML, and how each is written so that it works.
@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"method_settings": "{variant: v_naw}"}, r"-y 'method_settings: \{\.\.\.\}'"),
        ({"compile": "true"}, "-p compile True$"),
        ({"lr": "0.001"}, "-p lr 0.001 gives a number, where -r gives text$"),
        ({"lr": "1e-4"}, r"write 1\.0e-4\. For papermill, -p lr 1e-4 gives a number"),
        ({"lr": "fast"}, "expected float$"),
        ({"epochs": "5"}, "-p epochs 5 gives a number"),
        ({"epochs": 3.0}, "expected int$"),
        ({"kind": 5}, "-r kind 5 gives it as text$"),
    ],
)
def test_value_of_another_type_says_how_to_give_it(given, hint):
    with pytest.raises(TypeError, match=hint):
        Run(**given)


def test_the_hint_of_each_kind_is_what_papermill_reads(tmp_path):
    """Its own parser, as its command line calls it."""
    from papermill.cli import _resolve_type

    assert Run(compile=_resolve_type("True"), lr=_resolve_type("1e-4")).lr == 1e-4
    with pytest.raises(TypeError, match="-p compile True"):
        Run(compile=_resolve_type("true"))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("learning_rate", "lr"),
        ("Learning_Rate", "lr"),
        ("num_epochs", "epochs"),
        ("epoch", "epochs"),
    ],
)
def test_peoples_other_names_lead_to_ours(given, meant):
    with pytest.raises(ValueError, match=f"unknown parameter {given!r}; did you mean {meant!r}"):
        Run.from_parameters({given: 1})


def test_settings_that_tables_tell_are_those_not_at_their_default():
    assert Run(epochs=9).chosen == {}
    assert Run(kind="other").chosen == {"kind": "other"}


def kernel_after(*cells: str, **already) -> dict:
    """Return `globals()` as the cell after `cells` sees it, in a kernel that held `already`."""
    namespace = dict(already)
    for cell in cells:
        exec(cell, namespace)
    return {**namespace, "In": ["", *cells, "the cell that checks them"]}


PARAMETERS_CELL = "\n".join(f"{name}: object = {value!r}" for name, value in asdict(Run()).items())


def test_notebook_parameters_come_back_checked():
    namespace = kernel_after(PARAMETERS_CELL, "# Parameters\nepochs = 5\nlr = 1\n")
    assert Run.from_notebook(namespace) == Run(epochs=5, lr=1.0)


@pytest.mark.parametrize("value", ["x", 1, 1.0, True, None, [1], {"a": 1}])
def test_notebook_refuses_a_misspelt_injected_variable(value):
    with pytest.raises(ValueError, match="unknown parameter 'epohcs'; did you mean 'epochs'"):
        Run.from_notebook(kernel_after(PARAMETERS_CELL, f"# Parameters\nepohcs = {value!r}"))


def test_notebook_with_parameters_of_its_own():
    assert notebook_parameters(kernel_after("faces: int = 3"), faces=int) == {"faces": 3}
    with pytest.raises(ValueError, match="the parameters cell lacks size"):
        notebook_parameters(kernel_after("faces: int = 3", size=2), faces=int, size=int)
    with pytest.raises(TypeError, match="parameter faces is '3' of type str; expected int"):
        notebook_parameters(kernel_after("faces: int = '3'"), faces=int)


def test_what_else_a_kernel_holds_is_no_parameter():
    """Of a start-up file, of all cells run before, of a cell before the parameters were mended."""
    cells = ["faces: int = 3\nszie: int = 2", "names = ['a']", "faces: int = 4\nsize: int = 2"]
    namespace = kernel_after(*cells, started="by a start-up file")
    assert notebook_parameters(namespace, faces=int, size=int) == {"faces": 4, "size": 2}


def test_paths_that_papermill_injects_on_demand_are_taken():
    injected = "# Parameters\nfaces = 5\nPAPERMILL_INPUT_PATH = 'a'\nPAPERMILL_OUTPUT_PATH = 'b'"
    assert notebook_parameters(kernel_after("faces: int = 3", injected), faces=int) == {"faces": 5}


def test_a_script_made_of_a_notebook_has_its_parameters():
    assert notebook_parameters({"faces": 3, "other": 1}, faces=int) == {"faces": 3}
