"""The methods that are compared, one file each.

A method turns what the network says of a batch into a loss. To add one, write
`nlalib/methods/<name>.py` with a class that is decorated by `@register("<name>")`: every file of
this folder is imported, and training and tables find the method by its name.
"""

from importlib import import_module
from pkgutil import iter_modules

from nlalib.methods.base import (
    METHODS,
    Method,
    ModelOutput,
    TrainingSet,
    make_method,
    register,
)

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "ModelOutput", "TrainingSet", "make_method", "register"]
