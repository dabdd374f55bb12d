"""The methods that are compared, one file each.

A method turns what the network says of a batch into a loss. To add one: write
`nlalib/methods/<name>.py` with a class that is decorated by `@register("<name>")`, and name the
file in the import at the end of this one. Training and tables find it by its name.
"""

from nlalib.methods.base import METHODS, Method, ModelOutput, make_method, register

from . import ce, nla  # isort: skip

__all__ = ["METHODS", "Method", "ModelOutput", "ce", "make_method", "nla", "register"]
