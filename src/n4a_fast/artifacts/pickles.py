"""What a pickle would import and make, told without importing or making it.

The native scanner walks over the opcodes, so nothing of the file runs. It reads what `codec` reads: plain and cloud
pickles, and joblib's files, compressed or with arrays between the opcodes. What may be loaded is for others to decide;
this tells what is in it.
"""

from __future__ import annotations

import bz2
import lzma
import pickle
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

from n4a_fast._native import opcodes
from n4a_fast.errors import InvalidInputError

JOBLIB_ARRAY = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_ALWAYS_ALLOWED = 256 * 2**20  # bytes unpacked
_WALKING_ROOM = 64 * 2**20
_EXPANSION = 20  # times the bytes that are there
_LZMA_MEMORY = 80 * 2**20  # for its dictionary: the largest that xz itself writes is 64 MiB
_NOTED_VERSION = re.compile(
    rb"\x10(?:\0\0\0)?_sklearn_version(?:\x94|q.|r....)?[X\x8c].(?:\0\0\0)?([0-9][\w.+]{0,30})", re.DOTALL
)
_PACKED: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x78", zlib.decompressobj),
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    (b"BZ", bz2.BZ2Decompressor),
    (b"\xfd7zXZ", lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)),
    (b"\x5d\x00", lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)),
)


@dataclass(slots=True)
class Budget:
    """How many bytes reading pickles may take, all those of one file together: what compressed ones unpack to."""

    nbytes: int

    def take(self, nbytes: int) -> None:
        """Use some of them; UnpicklingError when there are no more."""
        self.nbytes -= nbytes
        if self.nbytes < 0:
            raise pickle.UnpicklingError("its pickles take more bytes than they may")


class Use(IntFlag):
    """What a pickle does with a global beyond naming it, as the native scanner tells it."""

    CALLED = 1
    MADE_WITH = 4  # arguments, by its __new__
    CHANGED = 8  # itself, or what was made from it is called
    FILLED = 16  # with items, by its own methods


@dataclass(frozen=True, slots=True)
class Contents:
    """Class of the pickled object, "" for plain data, every global that loading would import, sorted, and
    scikit-learn's note of its version.
    """

    class_name: str
    globals: tuple[str, ...]
    sklearn_version: str | None = None


def contents_of(data: bytes | memoryview, budget: Budget | None = None) -> Contents:
    """What the pickle `data` names; InvalidInputError for bytes that are no pickle.

    It takes no more than its budget beside `data`, by default 256 MiB or 20 times the data, and time in proportion
    to the data.
    """
    budget = budget or Budget(room_for(len(data)))
    try:
        raw = unpacked(data, budget.nbytes)
        if raw is not data:
            budget.take(len(raw))
        uses, made, _, _ = opcodes.scan(raw, min(walking_room(len(raw)), budget.nbytes))
        return Contents(".".join(made) if made else "", tuple(sorted(map(".".join, uses))), _sklearn_version(raw))
    except Exception as error:  # a damaged stream can fail in any opcode
        raise InvalidInputError(
            f"these bytes are no pickle that can be read ({type(error).__name__}: {error}); nothing was loaded"
        ) from error


def walking_room(nbytes: int) -> int:
    """How many bytes the values of a pickle of this size may take while it is read: real ones take far less."""
    return max(_WALKING_ROOM, nbytes)


def room_for(nbytes: int) -> int:
    """How many bytes a pickle of this size may unpack to."""
    return max(_ALWAYS_ALLOWED, _EXPANSION * nbytes)


def _sklearn_version(raw: bytes | memoryview) -> str | None:
    found = _NOTED_VERSION.search(raw)
    return found[1].decode() if found else None


def unpacked(data: bytes | memoryview, room: int) -> bytes | memoryview:
    """The pickle in a file that joblib may have compressed; ValueError for one that unpacks to more than `room`."""
    head = bytes(data[:6])
    for mark, opener in _PACKED:
        if head.startswith(mark):
            found: bytes = opener().decompress(data, max(room, 0) + 1)
            if len(found) > room:
                raise ValueError(f"holds more than {room} bytes")
            return found
    return data
