"""`LateRow`: a row of nirs4all's `Predictions` whose arrays, scores and parameters are made when they are asked for.

Most of what a workspace holds is arrays and scores, and who loads it looks at few of them. A row is a dict that has
all its keys in their order; `LATE` stands for a value until its key is asked for, or the row as a whole, which
then is a dict without any override. What a row is made of was read with it, so no store is asked, and is
in memory until the last of the rows that share it is whole or gone.

Who reads a dict past its methods, as only extension modules can, finds `LATE`, not a missing or a wrong value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from n4a_fast.platform import at_fork

Maker = Callable[[int], Any]  # makes a value of the row at a place, a new one each time
Makers = Mapping[str, Maker]  # by key


class _Late:
    def __repr__(self) -> str:
        return "<made when it is asked for: see dict(row)>"


LATE = _Late()


class WholeRow(dict[str, Any]):
    """A row of which everything is made. Copies of it, and what is sent to other processes, are plain dicts."""

    __slots__ = ("_makers", "_place")
    _makers: Makers
    _place: int

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _of_whole(method: Callable[..., Any]) -> Any:
    """The method of dict, on rows of which everything is made before."""

    @wraps(method)
    def call(self: WholeRow, *others: Any) -> Any:
        for row in (self, *others):
            if isinstance(row, LateRow):
                row.make_whole()
        return method(self, *others)

    return call


class LateRow(WholeRow):
    """A row with `LATE` in place of some values."""

    __slots__ = ()

    __iter__, __reversed__ = _of_whole(dict.__iter__), _of_whole(dict.__reversed__)
    keys, values, items = _of_whole(dict.keys), _of_whole(dict.values), _of_whole(dict.items)
    __eq__, __ne__ = _of_whole(dict.__eq__), _of_whole(dict.__ne__)
    __or__, __ror__, __repr__ = _of_whole(dict.__or__), _of_whole(dict.__ror__), _of_whole(dict.__repr__)
    copy, pop, popitem = _of_whole(dict.copy), _of_whole(dict.pop), _of_whole(dict.popitem)
    setdefault = _of_whole(dict.setdefault)
    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, key: str) -> Any:
        value = dict.__getitem__(self, key)
        return self._made(key) if value is LATE else value

    def get(self, key: str, default: Any = None) -> Any:
        """Like a dict's."""
        value = dict.get(self, key, default)
        return self._made(key) if value is LATE else value

    def _made(self, key: str) -> Any:
        with _one_at_a_time:  # who asks in two threads gets the same object
            value = dict.__getitem__(self, key)
            if value is LATE:
                value = self._makers[key](self._place)
                dict.__setitem__(self, key, value)
            return value

    def make_whole(self) -> None:
        """Make what is late, and let go of what it is made of."""
        with _one_at_a_time:
            for key, make in self._makers.items():
                if dict.get(self, key) is LATE:
                    dict.__setitem__(self, key, make(self._place))
            self.__class__, self._makers = WholeRow, {}  # type: ignore[assignment]


def late_rows(form: Mapping[str, Any], makers: Makers, count: int) -> list[LateRow]:
    """So many rows with the keys and values of `form`, those late that there are makers for."""
    shown = {**form, **dict.fromkeys(makers, LATE)}
    rows = [LateRow(shown) for _ in range(count)]
    for place, row in enumerate(rows):  # an `__init__` of its own would take longer than all else
        row._makers, row._place = makers, place
    return rows


_one_at_a_time = threading.Lock()
# a child that is forked meanwhile has to find it free
at_fork(before=_one_at_a_time.acquire, in_parent=_one_at_a_time.release, in_child=_one_at_a_time.release)
