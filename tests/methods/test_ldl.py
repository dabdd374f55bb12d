"""Label distribution learning against a plain loop."""

import pytest

from method_batches import divergence, ready, rows_of


def test_ldl_by_hand(output):
    loss, records = ready("ldl")(output)
    by_hand = [divergence(shares, p) for _, p, _, shares, _ in rows_of(output)]
    assert loss.item() == pytest.approx(sum(by_hand) / len(output.labels), rel=1e-5)
    assert records["kl_to_votes"].tolist() == pytest.approx(by_hand, rel=1e-4)
