"""The arguments of one row: those that need nothing are told from those that must be converted or refused."""

from collections.abc import Callable
from typing import Any

__all__ = ["are_plain", "converted"]

def are_plain(reals: tuple[object, ...], integers: object) -> bool:
    """Whether each of `reals` is a contiguous 1-D array of float64 or None, `integers` one of int64 or None, and all
    that are not None have one length.
    """

def converted(
    values: tuple[object, ...],
    kinds: bytes,
    converters: tuple[Callable[[Any, str], object], ...],
    names: tuple[str, ...],
) -> list[Any]:
    """`values`, each as `converter(value, name)` gives it unless its kind says that it needs no conversion.

    A letter a value: `t` text, `T` text or None, `r` a float or None, `i` an integer of 32 bits or None, `j` an empty
    dict, which is `{}` as text; every other value is converted. Raises ValueError where the four differ in length,
    and what a converter raises.
    """
