"""Fixtures for the tests of methods."""

import pytest

from method_batches import make_output
from nlalib.methods import ModelOutput


@pytest.fixture
def output() -> ModelOutput:
    """A batch of random numbers in the middle of training."""
    return make_output()
