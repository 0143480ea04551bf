"""The arguments of one row: those that need nothing are told from those that must be converted or refused."""

from collections.abc import Callable
from typing import Any

__all__ = ["RowMaker", "are_plain"]

def are_plain(reals: tuple[object, ...], integers: object) -> bool:
    """Whether each of `reals` is a contiguous 1-D array of float64 or None, `integers` one of int64 or None, and all
    that are not None have one length.
    """

class RowMaker:
    """Makes rows of fields that `converter(value, name)` gives, each unless its kind says that it needs no conversion.

    A letter a field: `t` text, `T` text or None, `r` a float or None, `i` an integer of 32 bits or None, `j` a dict,
    whose text is `{}` or what `dumps` gives, unless that raises or holds a null; every other value is converted.
    `derived` gives key, id, `nk` and `id_key` for the fields at `key_places`. Raises ValueError where fields, kinds,
    converters and names differ in number.
    """

    def __init__(
        self,
        kinds: bytes,
        converters: tuple[Callable[[Any, str], object], ...],
        names: tuple[str, ...],
        dumps: Callable[[Any], bytes],
        key_places: tuple[int, ...],
        derived: Callable[..., tuple[int, str, int, int]],
    ) -> None: ...
    def row(self, fields: tuple[object, ...]) -> tuple[int, list[Any]]:
        """The natural key of a row, and the row: id, the fields, the time in microseconds, `nk` and `id_key`.

        Raises what a converter raises.
        """
