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
import pickle
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from n4a_fast.errors import InvalidInputError

_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
_LARGEST = 2**31  # bytes of an unpacked file
_PACKED: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x78", zlib.decompressobj),
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    (b"BZ", bz2.BZ2Decompressor),
    (b"\xfd7zXZ", lzma.LZMADecompressor),
    (b"\x5d\x00", lzma.LZMADecompressor),
)


@dataclass(frozen=True, slots=True)
class Contents:
    """Class of the pickled object, "" for plain data, every global that loading would import, sorted, and
    scikit-learn's note of its version.
    """

    class_name: str
    globals: tuple[str, ...]
    sklearn_version: str | None = None


def contents_of(data: bytes | memoryview) -> Contents:
    """What the pickle `data` names; InvalidInputError for bytes that are no pickle."""
    names: set[str] = set()
    try:
        walk = _Walk(io.BytesIO(unpacked(bytes(data))), names)
        found = walk.load()
    except Exception as error:  # a damaged stream can fail in any opcode
        raise InvalidInputError(
            f"these bytes are no pickle that can be read ({type(error).__name__}: {error}); nothing was loaded"
        ) from error
    return Contents(found.name if isinstance(found, _Named) else "", tuple(sorted(names)), walk.sklearn_version)


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

    def __init__(self, file: io.BytesIO, names: set[str]) -> None:
        super().__init__(file)
        self._bytes, self._names = file, names
        self.sklearn_version: str | None = None

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
            if isinstance(state, dict) and isinstance(state.get("_sklearn_version"), str):
                self.sklearn_version = state["_sklearn_version"]
            if made.name == _ARRAY:
                self._pass_array(state)

    def _pass_array(self, state: dict[str, Any]) -> None:
        """Joblib writes an array's bytes, or a pickle of its objects, right behind its description."""
        dtype = np.dtype(state["dtype"].arguments[0])
        if dtype.hasobject:
            _Walk(self._bytes, self._names).load()
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            self._bytes.seek(self._bytes.read(1)[0], io.SEEK_CUR)
        self._bytes.seek(
            dtype.itemsize * int(np.prod([int(length) for length in state["shape"]], dtype=object)), io.SEEK_CUR
        )

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._keep(((key, value),))

    def _set_items(self) -> None:
        marked = self.pop_mark()
        self._keep(zip(marked[::2], marked[1::2], strict=True))

    def _keep(self, items: Iterable[tuple[Any, Any]]) -> None:
        if isinstance(self.stack[-1], dict):  # states are read again, other containers are not
            self.stack[-1].update(items)

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


def unpacked(data: bytes) -> bytes:
    """The pickle in a file that joblib may have compressed."""
    for mark, opener in _PACKED:
        if data.startswith(mark):
            found: bytes = opener().decompress(data, _LARGEST)
            if len(found) == _LARGEST:
                raise ValueError(f"holds more than {_LARGEST} bytes")
            return found
    return data
