"""Checks of a method's settings."""

import math


def checked_number(
    setting: str, value: float, lowest: float, highest: float, *, without: tuple[float, ...] = ()
) -> float:
    """Return the value of a setting if it is a number of the range.

    Parameters
    ----------
    setting : str
        Its name and its method's, for the message: "gamma of focal".
    value : float
    lowest, highest : float
        Both belong to the range, where `without` does not name them. May be infinite.
    without : tuple of float
        Values that are not allowed although they lie in the range.

    Raises
    ------
    ValueError
        For anything else, NaN, infinities, text and truth values included.
    """
    is_number = type(value) in (int, float) and math.isfinite(value)
    if is_number and lowest <= value <= highest and value not in without:
        return value
    exception = f", but not at {' or '.join(map(str, without))}" if without else ""
    raise ValueError(f"{setting} is {value!r}; it lies from {lowest} to {highest}{exception}")


def checked_count(setting: str, value: int, lowest: int) -> int:
    """Return the value of a setting if it is a whole number of at least `lowest`.

    Parameters
    ----------
    setting : str
        Its name and its method's, for the message: "draws of uncertainty".
    value, lowest : int

    Raises
    ------
    ValueError
        For anything else, truth values included.
    """
    if type(value) is not int or value < lowest:
        raise ValueError(f"{setting} is {value!r}; it is a whole number of at least {lowest}")
    return value
