"""Settings of a method: declared on its class, with their defaults and the values they may have.

class Focal(Method):
    gamma: float = Setting(2.0)  # a number, 0 or more
"""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One declared setting of a `Method`.

    Attributes
    ----------
    default
        A number, a truth value or text. None leaves the choice to the method, and is then a value
        that may be given too.
    lowest, highest : float
        The range of a number; both belong to it, where `without` does not name them.
    without : tuple of float
        Values that are not allowed although they lie in the range.
    choices : tuple of str
        All values of a text.
    kind : {bool, int}, optional
        What it is, where the default does not say; a number that need not be whole without it.
    called : str
        How users call it, where that is not the attribute's name.
    """

    default: Any
    lowest: float = 0
    highest: float = math.inf
    without: tuple[float, ...] = ()
    choices: tuple[str, ...] = ()
    kind: type | None = None
    called: str = ""

    def checked(self, name: str, value: Any) -> Any:
        """Return `value` if the setting may have it, a number that need not be whole as a float.

        Raises
        ------
        ValueError
            For anything else: NaN, infinities, text and truth values in place of numbers included.
        """
        if value is None and self.default is None:
            return value
        kind = self.kind or type(self.default)
        if self.choices:
            fits, allowed = value in self.choices, f"known are {', '.join(self.choices)}"
        elif kind is bool:
            fits, allowed = type(value) is bool, "it is True or False"
        elif kind is int:
            fits = type(value) is int and value >= self.lowest
            allowed = f"it is a whole number of at least {self.lowest:g}"
        else:
            is_number = type(value) in (int, float) and math.isfinite(value)
            fits = is_number and self.lowest <= value <= self.highest and value not in self.without
            allowed = f"it lies from {self.lowest:g} to {self.highest:g}"
            if self.without:
                allowed += f", but not at {' or '.join(map(str, self.without))}"
        if not fits:
            raise ValueError(f"{name} is {value!r}; {allowed}")
        return float(value) if type(value) is int and kind is not int else value
