"""Rows in memory, of which the newest one of each id counts; those that came after the last flush are *fresh*."""

from collections.abc import Sequence
from typing import Any

__all__ = ["NewestRows"]

class NewestRows:
    """Rows of so many values; the first of them is the id, and no value is a container."""

    def __init__(self, width: int) -> None: ...
    def __len__(self) -> int: ...
    def __contains__(self, identifier: object) -> bool:
        """Whether there is a row of this id."""

    @property
    def places(self) -> dict[str, int]: ...
    @property
    def fresh(self) -> int:
        """How many fresh rows were put; some may have replaced others of them."""

    @property
    def is_plain(self) -> bool:
        """Whether no row was replaced or forgotten: the newest rows are all, one after the other."""

    def put(self, row: Sequence[Any]) -> None:
        """Keep a row, in place of the one with its id; ValueError for one of another length."""

    def put_new(self, row: Sequence[Any], key: int, id_of_key: dict[int, str], key_of_id: dict[str, int]) -> bool:
        """Keep a row, and note its id and its key with each other; False, and nothing done, where either is known."""

    def fill(self, row: Sequence[Any], place: int) -> None:
        """Whether an interrupt came before or after a row was kept, let there be so many rows with this one."""

    def drop(self, identifier: str) -> None:
        """Forget the row of an id, if there is one."""

    def get(self, identifier: str) -> list[Any] | None:
        """The newest row of an id."""

    def columns(self) -> list[list[Any]]:
        """The columns of the newest rows, in the order of first sight of their ids."""

    def mark_logged(self) -> None:
        """What is fresh is not any more."""

    def fresh_places(self) -> list[int]:
        """Where the fresh rows are that others have not replaced, counted from the first of them, in the order in
        which they were put.
        """

    def fresh_column(self, places: list[int], column: int) -> list[Any]:
        """One column of these fresh rows."""

    def packed(self, names: tuple[str, ...], places: list[int], with_places: bool = False) -> bytes:
        """These fresh rows for a log record, in msgpack: how many, and each column under its name; `with_places` these
        under the first name.

        A value that all rows have stands for its column, unless it is a number with a fraction. Raises TypeError for
        what is no text, number or None, OverflowError for whole numbers beyond 64 bits.
        """
