"""Who owns which memory: nothing leaks, nothing is freed early, and one hand-over has one consumer."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from n4a_fast._native.columns import ListArray, ListColumn, list_column_from_matrix, live_blocks

BATCHES = 10_000
SANITIZED = (
    "ASAN_OPTIONS" in os.environ
)  # the sanitizer keeps freed memory back, so the size of the process says nothing


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    gc.collect()
    before = live_blocks()
    yield
    gc.collect()
    assert live_blocks() == before


def _filled(rows: int = 3) -> ListColumn:
    column = ListColumn("x", "float64")
    for row in range(rows):
        column.append(np.arange(float(row)))
    return column


def _batch(inputs: list[Any], matrix: np.ndarray[Any, Any]) -> None:
    """Every way through the module once: taken, dropped, refused."""
    column = ListColumn("x", "float64")
    for values in inputs:
        column.append(values)
    with pytest.raises(TypeError):
        column.append(["text"])
    assert len(pa.array(column.snapshot())) == len(inputs)
    column.append(inputs[0])
    assert len(pa.chunked_array(column.snapshot())) == len(inputs) + 1
    column.snapshot()
    column.snapshot().__arrow_c_stream__()
    column.finish().__arrow_c_array__()
    assert len(pa.array(list_column_from_matrix("m", matrix))) == len(matrix)
    list_column_from_matrix("m", matrix).__arrow_c_schema__()
    whole = ListColumn("i", "int64")
    with pytest.raises(ValueError, match="whole"):
        whole.append(np.array([0.5]))


def test_ten_thousand_batches_leave_no_reference_and_no_memory_behind() -> None:
    inputs: list[Any] = [np.arange(50.0), np.arange(50, dtype="float32"), np.arange(50)[::2], None, [1, 2, 3]]
    matrix, process, live = np.ones((7, 30)), psutil.Process(), live_blocks()
    for _ in range(200):
        _batch(inputs, matrix)
    own = [matrix, *(values for values in inputs if values is not None)]
    references, of_none = [sys.getrefcount(values) for values in own], sys.getrefcount(None)
    resident = process.memory_info().rss
    for _ in range(BATCHES):
        _batch(inputs, matrix)
    assert [sys.getrefcount(values) for values in own] == references
    assert abs(sys.getrefcount(None) - of_none) < BATCHES  # one a batch, at least; all of the process refers to it
    assert live_blocks() == live
    if not SANITIZED:
        # one leaked row a batch would be 4 MB; caches of pytest and pyarrow stay below this
        assert process.memory_info().rss - resident < 4 << 20


def test_live_blocks_counts_what_is_held() -> None:
    before = live_blocks()
    column = _filled()
    assert live_blocks() > before
    del column
    assert live_blocks() == before


def test_the_rows_outlive_column_list_and_capsule() -> None:
    column = _filled(200)
    found = pa.array(column.snapshot())
    del column
    gc.collect()
    found.validate(full=True)
    assert found.to_pylist() == [[float(value) for value in range(row)] for row in range(200)]


def test_a_matrix_lives_as_long_as_its_last_consumer() -> None:
    matrix = np.arange(12.0).reshape(3, 4)
    references = sys.getrefcount(matrix)
    found = pa.array(list_column_from_matrix("m", matrix))
    assert sys.getrefcount(matrix) == references + 1
    item = found.values
    del found
    assert sys.getrefcount(matrix) == references + 1
    assert item.to_pylist() == list(range(12))
    del item
    assert sys.getrefcount(matrix) == references


def test_a_matrix_may_be_released_by_a_thread_that_never_ran_python() -> None:
    matrix = np.arange(12.0).reshape(3, 4)
    references = sys.getrefcount(matrix)
    table = pa.table({"m": list_column_from_matrix("m", matrix)})
    assert (
        pa.TableGroupBy(table.append_column("k", pa.array([1, 1, 2])), "k", use_threads=True)
        .aggregate([("m", "count")])
        .num_rows
        == 2
    )
    del table
    assert sys.getrefcount(matrix) == references


@pytest.mark.parametrize("first", ["__arrow_c_stream__", "__arrow_c_array__"])
@pytest.mark.parametrize("second", ["__arrow_c_stream__", "__arrow_c_array__"])
def test_a_list_is_handed_over_once(first: str, second: str) -> None:
    handed = _filled().snapshot()
    getattr(handed, first)()
    with pytest.raises(RuntimeError, match="'x' was already handed over"):
        getattr(handed, second)()
    assert pa.field(handed).name == "x"


def test_a_consumed_capsule_is_empty() -> None:
    capsule = _filled().finish().__arrow_c_stream__()
    assert len(pa.ChunkedArray._import_from_c_capsule(capsule)) == 3
    with pytest.raises((ValueError, pa.ArrowInvalid), match="released"):
        pa.ChunkedArray._import_from_c_capsule(capsule)


class _CSchema(ctypes.Structure):
    pass


class _CArray(ctypes.Structure):
    pass


class _CStream(ctypes.Structure):
    pass


def _release_of(structure: type[ctypes.Structure]) -> Any:
    return ctypes.CFUNCTYPE(None, ctypes.POINTER(structure))


_CSchema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_CSchema))),
    ("dictionary", ctypes.c_void_p),
    ("release", _release_of(_CSchema)),
    ("private", ctypes.c_void_p),
]
_CArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_CArray))),
    ("dictionary", ctypes.c_void_p),
    ("release", _release_of(_CArray)),
    ("private", ctypes.c_void_p),
]
_CStream._fields_ = [
    ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_CStream), ctypes.POINTER(_CSchema))),
    ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_CStream), ctypes.POINTER(_CArray))),
    ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.POINTER(_CStream))),
    ("release", _release_of(_CStream)),
    ("private", ctypes.c_void_p),
]


def _structure(capsule: object, name: bytes, kind: type[Any]) -> Any:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return kind.from_address(pointer(capsule, name))


def _moved(source: Any) -> Any:
    """The structure at a new address, as the interface lets consumers do; the old one is marked released."""
    target = type(source).from_buffer_copy(source)
    ctypes.memset(ctypes.addressof(source) + type(source).release.offset, 0, ctypes.sizeof(ctypes.c_void_p))
    return target


def test_a_child_that_was_moved_out_outlives_its_parent() -> None:
    _, capsule = _filled(4).finish().__arrow_c_array__()
    parent = _structure(capsule, b"arrow_array", _CArray)
    item = _moved(parent.children[0].contents)
    parent.release(parent)
    assert not parent.release
    values = ctypes.cast(item.buffers[1], ctypes.POINTER(ctypes.c_double))
    assert values[: item.length] == [0.0, 0.0, 1.0, 0.0, 1.0, 2.0]
    item.release(item)
    assert not item.release


def test_a_schema_child_that_was_moved_out_can_be_released_after_its_parent() -> None:
    parent = _structure(capsule := _filled().finish().__arrow_c_schema__(), b"arrow_schema", _CSchema)
    assert (parent.format, parent.name, parent.flags, parent.n_children) == (b"+l", b"x", 2, 1)
    item = _moved(parent.children[0].contents)
    parent.release(parent)
    assert (item.format, item.name) == (b"g", b"item")
    item.release(item)
    del capsule


def test_a_stream_gives_its_schema_any_time_one_array_and_then_the_end() -> None:
    stream = _structure(capsule := _filled().finish().__arrow_c_stream__(), b"arrow_array_stream", _CStream)
    array, end = _CArray(), _CArray()
    assert stream.get_next(stream, array) == stream.get_next(stream, end) == 0
    assert (array.length, bool(array.release), bool(end.release)) == (3, True, False)
    for _ in range(2):
        schema = _CSchema()
        assert stream.get_schema(stream, schema) == 0
        assert schema.name == b"x"
        schema.release(schema)
    assert stream.get_last_error(stream) is None
    stream.release(stream)
    assert array.children[0].contents.length == 3
    array.release(array)
    del capsule


def _append_while_watched(column: ListColumn, values: np.ndarray[Any, Any]) -> list[str]:
    """What another thread met when it used the column during an append.

    Nobody is made to give up the GIL meanwhile: the thread that waits for it runs only if the append lets go.
    """
    met: list[str] = []
    started, go = threading.Event(), threading.Lock()
    go.acquire()

    def use() -> None:
        started.set()
        with go:
            try:
                column.snapshot()
            except RuntimeError as error:
                met.append(str(error))

    other = threading.Thread(target=use)
    interval = sys.getswitchinterval()
    other.start()
    started.wait()
    try:
        sys.setswitchinterval(1000.0)
        go.release()
        column.append(values)
    finally:
        sys.setswitchinterval(interval)
    other.join()
    return met


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_long_append_lets_other_threads_run_and_refuses_them_the_column(dtype: str) -> None:
    values, met = np.zeros(8_000_000, dtype), []
    for _ in range(20):  # the other thread may be scheduled late on a busy machine
        column = ListColumn("x", "float64")
        met += _append_while_watched(column, values)
        assert len(column) == 1
        if met:
            break
    assert met
    assert "appended to by another thread" in met[0]


def test_columns_of_their_own_can_be_filled_by_many_threads() -> None:
    found: dict[int, pa.Array] = {}

    def fill(seed: int) -> None:
        column = ListColumn("x", "float64")
        for row in range(50):
            column.append(np.full(4000 * (row % 30), float(seed), "float32"))
        found[seed] = pa.array(column.finish())

    threads = [threading.Thread(target=fill, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3]
    for seed, array in found.items():
        array.validate(full=True)
        assert np.unique(array.values.to_numpy()).tolist() == [float(seed)]
        assert len(array.values) == sum(4000 * (row % 30) for row in range(50))


def test_a_list_cannot_be_pickled_or_copied_into_a_second_owner() -> None:
    import copy
    import pickle

    for owner in (_filled(), _filled().finish()):
        with pytest.raises(TypeError):
            copy.copy(owner)
        with pytest.raises(TypeError):
            pickle.dumps(owner)
    assert isinstance(_filled().finish(), ListArray)
