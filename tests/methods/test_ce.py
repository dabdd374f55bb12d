"""Cross-entropy against a plain loop."""

import math

import pytest

from method_batches import BATCHES, make_output, mean, ready, rows_of
from nlalib.methods import METHODS


@pytest.mark.parametrize("kind", BATCHES)
def test_loss_equals_a_plain_loop(kind):
    output = make_output(kind)
    loss, records = ready("ce")(output)
    assert loss.item() == pytest.approx(mean(-math.log(r.p[r.label]) for r in rows_of(output)))
    assert records == {}
    assert not METHODS["ce"].two_views
