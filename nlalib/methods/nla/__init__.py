"""NLA, the subject: its weights, its consistency, its loss, its methods."""

from nlalib.methods.nla import candidates, method, soft  # which register themselves

__all__ = ["candidates", "method", "soft"]
