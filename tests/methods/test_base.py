"""The registry: methods by their names, and their settings."""

import pytest

from method_batches import make_output
from nlalib.methods import METHODS, Method, make_method, register
from nlalib.methods.settings import Setting


def test_unknown_method_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown method 'nal'; known are .*\bce, .*\bnla, "):
        make_method("nal")


def test_unknown_setting_lists_the_known():
    with pytest.raises(ValueError, match="'nla' has no setting lambda; it has variant, trade_off"):
        make_method("nla", {"lambda": 0.5})
    with pytest.raises(ValueError, match="'ce' has no setting trade_off; it has none"):
        make_method("ce", {"trade_off": 0.5})


def test_registered_method_is_found_by_its_name(monkeypatch):
    monkeypatch.setattr("nlalib.methods.base.METHODS", dict(METHODS))

    @register("halved")
    class Halved(Method):
        share: float = Setting(0.5)

        def forward(self, output):
            return self.share * output.logits.sum(), {}

    output = make_output()
    assert make_method("halved", {"share": 0.25})(output)[0] == 0.25 * output.logits.sum()
    assert "halved" not in METHODS
