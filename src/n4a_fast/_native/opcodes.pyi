"""Which globals a pickle names and what it would do with them, told without making anything of it."""

from typing import Any

import numpy.typing as npt

__all__ = ["Asking", "array_from_bytes", "scan"]

def array_from_bytes(
    values: object, dtype: object, shape: object, order: object, axes: object = None
) -> npt.NDArray[Any]:
    """What numpy's `_frombuffer` gives: an array of this type and shape on `values`, whose memory it shares; by one
    call of numpy's in the place of three. With `order` "K" its axes are those of one in C order, in the order `axes`.

    Raises ValueError for a type that holds objects, another order or another length; TypeError for what is no type or
    too short.
    """

def scan(
    data: bytes | memoryview, limit: int
) -> tuple[
    dict[tuple[str, str], int],
    tuple[str, str] | None,
    dict[tuple[str, str], list[int]],
    dict[int, tuple[int, int, bool]],
]:
    """The globals of a pickle as module and name, each with its uses; the one that made the object in it, None for
    plain data; where state is given to what was made by a call of each, or in two parts, or to joblib's arrays; and,
    by these places, from where to where the values of joblib's arrays lie and whether they are a pickle of objects.

    Uses are flags: 1 called with arguments, 4 made with arguments by its `__new__`, 8 changed itself (or its result
    called), 16 filled with items by its own methods; 0 for one that is only passed along or made empty and given its
    state. `limit` bounds the memory of the walk in bytes. Raises ValueError, with the reason, for what is no whole
    pickle.
    """

class Asking:
    """A pickle as a file for C's unpickler, with the BUILDs at some places turned into a question.

    `places` are those of BUILD opcodes that `scan` has told, in order, each with the place where the opcodes go on:
    behind it, or behind the array there. At each the unpickler calls its `persistent_load` with the object and its
    state, and goes on with what that returns. A question is two bytes in the place of one, and frames are told to be
    longer by that. The pickle is read in place and kept alive.
    """

    def __init__(self, data: bytes | memoryview, places: list[tuple[int, int]]) -> None: ...
    def read(self, size: int) -> bytes:
        """The next `size` bytes, questions among them; fewer at the end."""

    def readinto(self, target: bytearray | memoryview) -> int:
        """Bytes of a large value, straight to where they belong."""

    def readline(self) -> bytes:
        """The rest of a line: an argument, in which nothing is asked."""
