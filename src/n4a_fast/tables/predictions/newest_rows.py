"""Rows in memory, of which the newest one of each id counts; those that came after the last flush are *fresh*.

The values of all rows lie behind each other in one list, so that a column is a slice of it. A tuple for each row, and
an iterator over each to turn them into columns, would be objects that Python's garbage collector looks at again and
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class NewestRows:
    """Rows of so many values; the first of them is the id. No value is a container."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._cells: list[Any] = []  # of all rows that were put, those that others have replaced included
        self.places: dict[str, int] = {}  # by id, which of them is its newest one, in the order of first sight
        self._kept = 0  # how many of them are not fresh

    def __len__(self) -> int:
        """How many ids there are."""
        return len(self.places)

    def __contains__(self, identifier: str) -> bool:
        return identifier in self.places

    @property
    def fresh(self) -> int:
        """How many fresh rows were put; some may have replaced others of them."""
        return len(self._cells) // self._width - self._kept

    def put(self, row: Sequence[Any]) -> None:
        """Keep a row, in place of the one with its id. After an interrupt it is there, or no id refers to it."""
        place = len(self._cells) // self._width
        self._cells.extend(row)
        self.places[row[0]] = place

    def fill(self, row: Sequence[Any], place: int) -> None:
        """Whatever of a row was kept before an interrupt, let there be so many rows with this one."""
        self._cells[self._width * place :] = row

    def drop(self, identifier: str) -> None:
        """Forget the row of an id, if there is one."""
        self.places.pop(identifier, None)

    def get(self, identifier: str) -> list[Any] | None:
        """The newest row of an id."""
        place = self.places.get(identifier)
        return None if place is None else self._cells[self._width * place : self._width * (place + 1)]

    def mark_logged(self) -> None:
        """What is fresh is not any more."""
        self._kept = len(self._cells) // self._width

    def fresh_places(self) -> Sequence[int]:
        """Where the fresh rows are, counted from the first of them, in the order of the last put of each."""
        count, kept = len(self._cells) // self._width, self._kept
        if len(self.places) == count:
            return range(count - kept)
        names = self._cells[self._width * kept :: self._width]
        return [place for place, name in enumerate(names) if self.places.get(name) == kept + place]

    def fresh_columns(self, places: Sequence[int]) -> list[list[Any]]:
        """The columns of rows that `fresh_places` has told."""
        begin = self._width * self._kept
        columns = [self._cells[begin + column :: self._width] for column in range(self._width)]
        return columns if isinstance(places, range) else [[column[place] for place in places] for column in columns]

    def columns(self) -> list[list[Any]]:
        """The columns of the newest rows, in the order of first sight of their ids."""
        columns = [self._cells[column :: self._width] for column in range(self._width)]
        if self.is_plain:
            return columns
        return [[column[place] for place in self.places.values()] for column in columns]

    @property
    def is_plain(self) -> bool:
        """Whether no row was replaced or forgotten: the newest rows are all, one after the other."""
        return len(self.places) * self._width == len(self._cells)
