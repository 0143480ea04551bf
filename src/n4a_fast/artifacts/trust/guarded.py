"""Unpickling of what came from outside: asked about before it is imported, looked at before it is given away.

A plain pickle is read by the native scanner first, so that nothing of a refused file runs; then C's unpickler makes
it, and asks where an object that a call has made gets its state. Joblib's files with arrays between the opcodes are
read here and not by joblib, which would unpickle arrays of objects without asking anybody; each opcode that calls,
changes or fills asks first.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from n4a_fast._native import opcodes
from n4a_fast.artifacts.pickles import JOBLIB_ARRAY, Use, room_for, unpacked
from n4a_fast.artifacts.trust.array_states import require_shape
from n4a_fast.artifacts.trust.known import CONTAINERS
from n4a_fast.artifacts.trust.makers import Makers
from n4a_fast.artifacts.trust.soundness import require_sound
from n4a_fast.errors import StoreError

_CONTAINERS = (list, dict, set)
_CALLED, _MADE_WITH, _CHANGED = int(Use.CALLED), int(Use.MADE_WITH), int(Use.CHANGED)  # flags cost 10 times a number
_NESTED = (tuple, frozenset)  # what hashes what it holds
_DEEPEST = 200  # tuples within tuples: Python's hash of one calls itself
_CHECKS_ITS_STATE = frozenset({("sklearn.tree._tree", "Tree")})  # as far as nobody walks it before it is looked at
# references to objects outside the file, and the one opcode that names what it calls in the same breath
_OUTSIDE = (pickle.PERSID, pickle.BINPERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST)


Builds = Mapping[tuple[str, str], list[int]]


class Rules(Protocol):
    """Who is asked."""

    def require(self, module: str, name: str, uses: int = 0) -> None: ...

    def require_all(self, data: bytes | memoryview) -> Builds | None: ...

    def imported(self, module: str, name: str) -> Any: ...

    def unreadable(self, error: BaseException) -> StoreError: ...


def loads(data: bytes | memoryview, rules: Rules) -> Any:
    """The object in `data`; UntrustedArtifactError for what may not be in it, ArtifactUnreadableError for what is not
    whole or not sound.
    """
    makers = Makers()
    try:
        raw = unpacked(data, room_for(len(data)))
        if (builds := rules.require_all(raw)) is None:
            found = _GuardedJoblib(memoryview(raw), io.BytesIO(raw), rules, makers).load()
        else:
            found = _Guarded(_asking(raw, builds), rules, makers).load()
        require_sound(found, makers)
        return found
    except StoreError:
        raise
    except Exception as error:  # a state that its class did not write can fail there in any way
        raise rules.unreadable(error) from error


def _asking(raw: bytes | memoryview, builds: Builds) -> opcodes.Asking:
    """The pickle as a file that asks where an object gets its state."""
    return opcodes.Asking(
        raw, sorted(at for name, places in builds.items() if name not in _CHECKS_ITS_STATE for at in places)
    )


class _Guarded(pickle.Unpickler):
    """For what the scanner has read."""

    def __init__(self, file: opcodes.Asking, rules: Rules, makers: Makers) -> None:
        super().__init__(file)
        self._rules, self._makers = rules, makers

    def find_class(self, module: str, name: str) -> Any:
        return self._makers.of(module, name) or self._rules.imported(module, name)

    def persistent_load(self, asked: tuple[Any, Any]) -> Any:
        """Where the file gives an object its state; the scanner passes none that refers to objects outside."""
        self._makers.give(*asked)
        return asked[0]


class _Array:
    """What joblib's file says about an array before its raw values."""

    shape: tuple[int, ...]
    dtype: Any
    order: str
    subclass: Any
    numpy_array_alignment_bytes: int | None = None


class _GuardedJoblib(pickle._Unpickler):
    stack: list[Any]  # the stubs do not tell
    metastack: list[list[Any]]

    def __init__(self, raw: memoryview, file: io.BytesIO, rules: Rules, makers: Makers) -> None:
        super().__init__(file)
        self._raw, self._file = raw, file
        self._rules, self._makers = rules, makers
        self._asked: set[tuple[int, int]] = set()  # which of these may be used how
        self._names: dict[int, tuple[tuple[str, str], Any]] = {}  # of what was imported, by identity
        self._have_state: dict[int, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == JOBLIB_ARRAY:
            return _Array
        self._rules.require(module, name)
        found = self._makers.of(module, name) or self._rules.imported(module, name)
        self._names[id(found)] = (module, name), found
        return found

    def _ask(self, kind: Any, uses: int) -> None:
        if kind is _Array and not uses:
            return
        if (id(kind), uses) in self._asked:
            return
        if (known := self._names.get(id(kind))) is None:
            raise pickle.UnpicklingError("calls what is no global")
        self._rules.require(*known[0], uses)
        self._asked.add((id(kind), uses))

    def _call(self) -> None:
        self._ask(self.stack[-2], _CALLED)
        pickle._Unpickler.load_reduce(self)  # type: ignore[attr-defined]

    def _make(self) -> None:
        self._ask(self.stack[-2], _MADE_WITH if self.stack[-1] else 0)
        pickle._Unpickler.load_newobj(self)  # type: ignore[attr-defined]

    def _make_with_keywords(self) -> None:
        self._ask(self.stack[-3], _MADE_WITH)
        pickle._Unpickler.load_newobj_ex(self)  # type: ignore[attr-defined]

    def _call_marked(self) -> None:
        self._ask(self.stack[0], _CALLED)
        pickle._Unpickler.load_obj(self)  # type: ignore[attr-defined]

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("refers to objects outside the file, or calls what it does not name first")

    def _build(self) -> None:
        state, one = self.stack.pop(), self.stack[-1]
        if id(one) in self._names:
            self._ask(one, _CHANGED)
        if self._have_state.setdefault(id(one), self) is not self:
            raise pickle.UnpicklingError("gives state to an object that has its state")
        self._have_state[id(one)] = one
        self._makers.give(one, state)
        if isinstance(one, _Array):
            self.stack[-1] = self._read(one)

    def _read(self, array: _Array) -> Any:
        dtype, shape = array.dtype, array.shape
        length = require_shape(shape, dtype)
        if array.subclass not in (np.ndarray, np.memmap, np.matrix):
            raise pickle.UnpicklingError("an array has no numpy type")
        if dtype.hasobject:
            return self._read_objects()
        if array.numpy_array_alignment_bytes is not None:
            self._file.seek(self._file.read(1)[0], io.SEEK_CUR)
        begin, wanted = self._file.tell(), length * dtype.itemsize
        values = bytearray(self._raw[begin : begin + wanted])
        if len(values) != wanted:
            raise pickle.UnpicklingError("an array is cut short")
        self._file.seek(begin + wanted)
        found = np.frombuffer(values, dtype).reshape(shape, order="F" if array.order == "F" else "C")
        return found if array.subclass in (np.ndarray, np.memmap) else found.view(array.subclass)

    def _read_objects(self) -> Any:
        """An array of objects is a pickle of its own, in which joblib puts no arrays between the opcodes."""
        start = self._file.tell()
        rest = self._raw[start:]
        if (builds := self._rules.require_all(rest)) is None:
            return _GuardedJoblib(self._raw, self._file, self._rules, self._makers).load()
        asking = _asking(rest, builds)
        found = _Guarded(asking, self._rules, self._makers).load()
        self._file.seek(start + asking.at)
        return found

    def _fill(self, loads: Callable[[Any], None], at: int) -> None:
        target = (self.metastack[-1] if at == 0 else self.stack)[-1 if at == 0 else at]
        kind = type(target)
        if kind not in _CONTAINERS and f"{kind.__module__}.{kind.__qualname__}" not in CONTAINERS:
            raise pickle.UnpicklingError(f"puts items into a {kind.__name__}")
        for key in self.stack[at:]:
            if isinstance(key, _NESTED):
                _require_shallow(key)
        loads(self)

    def _append(self) -> None:
        self._fill(pickle._Unpickler.load_append, -2)  # type: ignore[attr-defined]

    def _appends(self) -> None:
        self._fill(pickle._Unpickler.load_appends, 0)  # type: ignore[attr-defined]

    def _set_item(self) -> None:
        self._fill(pickle._Unpickler.load_setitem, -3)  # type: ignore[attr-defined]

    def _set_items(self) -> None:
        self._fill(pickle._Unpickler.load_setitems, 0)  # type: ignore[attr-defined]

    def _add_items(self) -> None:
        self._fill(pickle._Unpickler.load_additems, 0)  # type: ignore[attr-defined]

    def _freeze(self) -> None:
        for item in self.stack:
            _require_shallow(item)
        pickle._Unpickler.load_frozenset(self)  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _make,
        pickle.NEWOBJ_EX[0]: _make_with_keywords,
        pickle.OBJ[0]: _call_marked,
        pickle.BUILD[0]: _build,
        pickle.APPEND[0]: _append,
        pickle.APPENDS[0]: _appends,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.ADDITEMS[0]: _add_items,
        pickle.FROZENSET[0]: _freeze,
        **dict.fromkeys((opcode[0] for opcode in _OUTSIDE), _refuse),
    }


def _require_shallow(item: Any) -> None:
    """UnpicklingError for tuples that lie too deep within each other to be hashed."""
    depth, inside = 0, [item]
    while inside := [one for each in inside if isinstance(each, _NESTED) for one in each]:
        depth += 1
        if depth > _DEEPEST:
            raise pickle.UnpicklingError("its tuples lie too deep within each other")
