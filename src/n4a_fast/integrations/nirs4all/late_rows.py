"""`LateRow`: a row of nirs4all's `Predictions` whose arrays, scores and parameters are made when they are asked for.

Most of what a workspace holds is arrays and scores, and who loads it looks at few of them. A row is a dict that has
all its keys in their order; `LATE` stands for a value until its key is asked for, or the row as a whole, which
then is a dict without any override. What a row is made of was read with it, so no store is asked, and is
in memory until the last of the rows that share it is whole or gone.

Whoever looks at rows one after the other, or at every third one, gets those that come next made with them, twice as
many each time: by column that takes half the time, and Python's collector does not look at them meanwhile.

Who reads a dict past its methods, as only extension modules can, finds `LATE`, not a missing or a wrong value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import repeat
from typing import Any

from n4a_fast.errors import StoreError
from n4a_fast.platform import at_fork
from n4a_fast.values.uncollected import uncollected

Maker = Callable[[Sequence[int]], Sequence[Any]]  # makes a value for each of these places, new ones each time
Makers = Mapping[str, Maker]  # by key
_AHEAD = 256  # rows at most whose values are made before they are asked for


class _Late:
    def __repr__(self) -> str:
        return "<made when it is asked for: see dict(row)>"


LATE = _Late()


class Source:
    """What so many rows are made of; the caller holds `_one_at_a_time`."""

    def __init__(self, makers: Makers, count: int) -> None:
        self._makers, self._keys, self._count = makers, tuple(makers), count
        self._last, self._step, self._width = -1, 1, 1  # the place made last, and how the next ones follow
        self._ready: dict[int, tuple[Any, ...]] = {}

    def value(self, key: str, place: int) -> Any:
        """One value of the row at a place."""
        return self._makers[key]((place,))[0]

    def values(self, place: int) -> Iterator[tuple[str, Any]]:
        """All values of the row at a place, by key; those of rows to come are made with them."""
        if place not in self._ready:
            try:
                self._make_ready(self._next_from(place))
            except StoreError:  # maybe of a row to come: who asks for that one is told
                self._make_ready((place,))
        return zip(self._keys, self._ready.pop(place), strict=True)

    def _make_ready(self, places: Sequence[int]) -> None:
        with uncollected():
            made = zip(*(make(places) for make in self._makers.values()), strict=True)
            self._ready = dict(zip(places, made, strict=True))

    def _next_from(self, place: int) -> range:
        step = place - self._last or 1
        self._width = min(2 * self._width, _AHEAD) if step == self._step else 1
        end = min(max(place + step * self._width, -1), self._count)
        self._step, places = step, range(place, end, step)
        self._last = places[-1]
        return places


class WholeRow(dict[str, Any]):
    """A row of which everything is made. Copies of it, and what is sent to other processes, are plain dicts."""

    __slots__ = ("_place", "_source")
    _source: Source | None
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
                assert self._source is not None
                value = self._source.value(key, self._place)
                dict.__setitem__(self, key, value)
            return value

    def make_whole(self) -> None:
        """Make what is late, and let go of what it is made of."""
        with _one_at_a_time:
            if self._source is None:  # another thread was faster
                return
            for key, value in self._source.values(self._place):
                if dict.get(self, key) is LATE:
                    dict.__setitem__(self, key, value)
            self.__class__, self._source = WholeRow, None  # type: ignore[assignment]


def late_rows(
    form: Mapping[str, Any], makers: Makers, columns: Mapping[str, Sequence[Any]], count: int
) -> list[LateRow]:
    """So many rows with the keys and values of `form`, those of each row in `columns` excepted; those values late that
    there are makers for.
    """
    shown = dict(form)  # with room for no more than its keys, as copies of it have
    shown.update((key, LATE) for key in makers)
    source, names, rows = Source(makers, count), tuple(columns), list[LateRow]()
    of_rows = zip(*columns.values(), strict=True) if columns else repeat((), count)
    # row by row: a dict takes more than a kilobyte, and is not looked for again
    for place, values in enumerate(of_rows):
        row = LateRow(shown)
        row.update(zip(names, values, strict=True))
        row._source, row._place = source, place  # an `__init__` of its own would take longer than all else
        rows.append(row)
    return rows


_one_at_a_time = threading.Lock()
# a child that is forked meanwhile has to find it free
at_fork(before=_one_at_a_time.acquire, in_parent=_one_at_a_time.release, in_child=_one_at_a_time.release)
