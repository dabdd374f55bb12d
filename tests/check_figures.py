"""Compare the tables behind the figures, as just drawn again, with the committed ones.

Not collected by name: `make test` gives this file after the notebooks, which write their
figures to the folder `NLA_FIGURES`. PNG files are not compared, as their bytes differ between
versions of matplotlib.
"""

import os
from pathlib import Path

import pandas as pd
import pytest

COMMITTED = Path(__file__).resolve().parents[1] / "figures"
# Read on import, before the fixture of conftest.py gives the variable a value.
REMADE = os.environ.get("NLA_FIGURES")
# Wider than the six digits stored, as sums run in another order on another processor.
TOLERANCE = {"rtol": 1e-3, "atol": 1e-6}


@pytest.fixture(scope="module")
def remade() -> Path:
    if not REMADE:
        pytest.fail(
            "NLA_FIGURES is not set. Set it to an empty folder and run the notebooks first: "
            "pytest --nbval notebooks tests/check_figures.py (`make test` does)"
        )
    return Path(REMADE)


# Aggregates of a licensed set, which only those who have it can draw again.
LICENSED = "02_ferplus_"


@pytest.mark.parametrize(
    "name",
    sorted(p.name for p in COMMITTED.glob("*.csv") if not p.name.startswith(LICENSED)),
)
def test_figure_is_drawn_from_the_committed_numbers(name, remade):
    number = name.split("_")[0]
    assert (remade / name).is_file(), (
        f"notebook {number} no longer writes {name}: remove figures/{name} and its PNG, or see "
        "above why the notebook failed"
    )
    try:
        pd.testing.assert_frame_equal(
            pd.read_csv(remade / name),
            pd.read_csv(COMMITTED / name),
            check_dtype=False,
            **TOLERANCE,
        )
    except AssertionError as difference:
        pytest.fail(
            f"notebook {number} now draws other numbers (left) than figures/{name} (right); if "
            f"they are meant, run `make notebooks` and commit\n{difference}",
            pytrace=False,
        )


def test_every_table_drawn_is_committed(remade):
    new = {path.name for path in remade.glob("*.csv")} - {path.name for path in COMMITTED.iterdir()}
    assert not new, f"figures/ lacks {sorted(new)}: run `make notebooks` and commit"
