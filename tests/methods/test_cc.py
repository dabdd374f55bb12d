"""CC against a plain loop."""

import math

import pytest

from method_batches import ready, rows_of


def test_cc_by_hand(output):
    loss, records = ready("cc")(output)
    by_hand = [-math.log(sum(p[c] for c in members)) for _, p, members, _, _ in rows_of(output)]
    assert loss.item() == pytest.approx(sum(by_hand) / len(output.labels), rel=1e-5)
    identified = [max(members, key=lambda c: p[c]) for _, p, members, _, _ in rows_of(output)]
    assert records["identified"].tolist() == identified
    labels = output.labels.tolist()
    assert records["disambiguated"].tolist() == [
        float(a == b) for a, b in zip(identified, labels, strict=True)
    ]
