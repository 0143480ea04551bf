"""What a pickle would import and make, told without importing or making it.

Owns a walk over the opcodes in which every global is only its name and every object only a name
with arguments, so nothing of the file runs. It reads what `codec` reads: plain and cloud pickles,
and joblib's files, compressed or with arrays between the opcodes. What may be loaded is for others
to decide; this tells what is in it.
"""

from __future__ import annotations

import bz2
import io
import lzma
import math
import pickle
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, ClassVar

import numpy as np

from n4a_fast._native import opcodes
from n4a_fast.errors import InvalidInputError

JOBLIB_ARRAY = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_ARRAY = ".".join(JOBLIB_ARRAY)
_ALWAYS_ALLOWED = 256 * 2**20  # bytes unpacked
_WALKING_ROOM = 64 * 2**20
_EXPANSION = 20  # times the bytes that are there
_LZMA_MEMORY = 80 * 2**20  # for its dictionary: the largest that xz itself writes is 64 MiB
MOST_OPCODES = 1_000_000  # of a joblib file, whose arrays carry the numbers; it takes Python a second
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
    """What reading pickles may take, all those of one file together: bytes that compressed ones unpack to and that
    the opcodes of joblib's hold, and opcodes that Python walks over.
    """

    nbytes: int
    opcodes: int = MOST_OPCODES

    def take(self, nbytes: int) -> None:
        """Use some of the bytes; UnpicklingError when there are no more."""
        self.nbytes -= nbytes
        if self.nbytes < 0:
            raise pickle.UnpicklingError("its pickles take more bytes than they may")

    def step(self) -> None:
        """Walk over one opcode."""
        self.opcodes -= 1
        if self.opcodes < 0:
            raise pickle.UnpicklingError("more opcodes beside joblib's arrays than it may have")


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
        if (scanned := opcodes.scan(raw, min(walking_room(len(raw)), budget.nbytes))) is not None:
            uses, made, _ = scanned
            found = Contents(".".join(made) if made else "", tuple(sorted(map(".".join, uses))), _sklearn_version(raw))
        else:
            found = _walked(bytes(raw), budget)
    except Exception as error:  # a damaged stream can fail in any opcode
        raise InvalidInputError(
            f"these bytes are no pickle that can be read ({type(error).__name__}: {error}); nothing was loaded"
        ) from error
    return found


def walking_room(nbytes: int) -> int:
    """How many bytes the values of a pickle of this size may take while it is read: real ones take far less."""
    return max(_WALKING_ROOM, nbytes)


def room_for(nbytes: int) -> int:
    """How many bytes a pickle of this size may unpack to."""
    return max(_ALWAYS_ALLOWED, _EXPANSION * nbytes)


def _walked(raw: bytes, budget: Budget) -> Contents:
    names: set[str] = set()
    found = _Walk(io.BytesIO(raw), names, budget).load()
    return Contents(found.name if isinstance(found, _Named) else "", tuple(sorted(names)), _sklearn_version(raw))


def _sklearn_version(raw: bytes | memoryview) -> str | None:
    found = _NOTED_VERSION.search(raw)
    return found[1].decode() if found else None


@dataclass(slots=True, eq=False)
class _Named:
    """A global, or an object made from one."""

    name: str
    arguments: Any = ()
    state: Any = None


class _Walk(pickle._Unpickler):
    """Python's own unpickler, with every opcode replaced that would call, import or change an object."""

    stack: list[Any]  # what follows exists, the stubs do not tell
    append: Callable[[Any], None]
    readline: Callable[[], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: io.BytesIO, names: set[str], budget: Budget) -> None:
        super().__init__(file)
        self._bytes, self._names, self._budget = file, names, budget

    def load(self) -> Any:
        """As Python's own, which cannot be told to stop."""
        frames = pickle._Unframer(self._read, self._bytes.readline)  # type: ignore[attr-defined]
        self._unframer, self.read, self.readinto, self.readline = frames, frames.read, frames.readinto, frames.readline
        self.metastack: list[Any] = []
        self.stack = []
        self.append, self.proto = self.stack.append, 0
        try:
            while key := self.read(1):
                self._budget.step()
                self.dispatch[key[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value
        raise EOFError("it ends within a pickle")

    def _read(self, nbytes: int) -> bytes:
        """Opcodes and what they hold; a text may take four bytes for each of these."""
        self._budget.take(4 * nbytes if nbytes > 1 else 0)
        return self._bytes.read(nbytes)

    def find_class(self, module_name: str, global_name: str) -> Any:
        self._names.add(f"{module_name}.{global_name}")
        return _Named(f"{module_name}.{global_name}")

    def _call(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._made(self.stack[-1], arguments)

    def _call_with_keywords(self) -> None:
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = self._made(self.stack[-1], (arguments, keywords))

    def _call_marked(self) -> None:
        kind, *arguments = self.pop_mark()
        self.append(self._made(kind, tuple(arguments)))

    def _call_named(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self.append(self._made(self.find_class(module, name), tuple(self.pop_mark())))

    def _made(self, kind: Any, arguments: Any) -> _Named:
        if not isinstance(kind, _Named):
            raise pickle.UnpicklingError(f"calls a {type(kind).__name__}")
        if kind.name == "copyreg._reconstructor" and arguments and isinstance(arguments[0], _Named):
            kind = arguments[0]
        return _Named(kind.name, arguments)

    def _set_state(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, _Named):
            made.state = state
            if made.name == _ARRAY:
                self._pass_array(state)

    def _pass_array(self, state: dict[str, Any]) -> None:
        """Joblib writes an array's bytes, or a pickle of its objects, right behind its description."""
        itemsize, has_objects = _layout(state["dtype"])
        if has_objects:
            _Walk(self._bytes, self._names, self._budget).load()
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            self._pass(self._bytes.read(1)[0])
        shape = state["shape"]
        if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
            raise pickle.UnpicklingError(f"an array has the shape {shape!r}")
        self._pass(math.prod(shape) * itemsize)

    def _pass(self, nbytes: int) -> None:
        if nbytes > len(self._bytes.getbuffer()) - self._bytes.tell():
            raise pickle.UnpicklingError("an array is cut short")
        self._bytes.seek(nbytes, io.SEEK_CUR)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._keep(((key, value),))

    def _set_items(self) -> None:
        marked = self.pop_mark()
        self._keep(zip(marked[::2], marked[1::2], strict=True))

    def _keep(self, items: Iterable[tuple[Any, Any]]) -> None:
        if isinstance(self.stack[-1], dict):  # states are read again, other containers are not
            self.stack[-1].update((key, value) for key, value in items if isinstance(key, str))

    def _drop_one(self) -> None:
        self.stack.pop()

    def _drop_marked(self) -> None:
        self.pop_mark()

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("refers to objects outside the file")

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _call,
        pickle.NEWOBJ_EX[0]: _call_with_keywords,
        pickle.OBJ[0]: _call_marked,
        pickle.INST[0]: _call_named,
        pickle.BUILD[0]: _set_state,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.APPEND[0]: _drop_one,
        pickle.APPENDS[0]: _drop_marked,
        pickle.ADDITEMS[0]: _drop_marked,
        **dict.fromkeys(
            (
                pickle.PERSID[0],
                pickle.BINPERSID[0],
                pickle.EXT1[0],
                pickle.EXT2[0],
                pickle.EXT4[0],
                pickle.NEXT_BUFFER[0],
            ),
            _refuse,
        ),
    }


def _layout(dtype: Any) -> tuple[int, bool]:
    """Bytes of a value, and whether values are objects, as the loader will see them once the dtype has its state."""
    plain, state = np.dtype(dtype.arguments[0]), dtype.state
    if state is None:
        return plain.itemsize, plain.hasobject
    size, flags = (state[5], state[7]) if len(state) > 7 else (-1, None)
    if state[2] is not None or not isinstance(flags, int) or bool(flags & 1) != (plain.kind == "O"):
        raise pickle.UnpicklingError("an array has a dtype that hides what it holds")
    return (size if plain.kind in "SUV" and isinstance(size, int) and size >= 0 else plain.itemsize), plain.kind == "O"


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
