"""What goes into a list column comes out of Arrow, DuckDB and Polars: same values, same rows, same NULLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from n4a_fast._native.columns import ListArray, ListColumn, append_known, list_column_from_matrix

LISTS = {"float64": pa.list_(pa.float64()), "int64": pa.list_(pa.int64())}
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i2", ">i4", ">i8")
REALS = (*INTEGERS, "float16", "float32", "float64", "longdouble", ">f4", ">f8")
VIEWS = {
    "as it is": lambda x: x,
    "every second": lambda x: x[::2],
    "backwards": lambda x: x[::-1],
    "transposed": lambda x: x.T,
    "Fortran": np.asfortranarray,
    "read-only": lambda x: _frozen(x),
    "unaligned": lambda x: _unaligned(x),
}


def _frozen(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


def _unaligned(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shifted = np.frombuffer(b"\0" + array.tobytes(), array.dtype, offset=1) if array.size else array
    return shifted.reshape(array.shape)


def _arrays(dtypes: tuple[str, ...]) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    shapes = hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=9)
    arrays = st.sampled_from(dtypes).flatmap(
        lambda dtype: hnp.arrays(np.dtype(dtype), shapes, elements=_elements(dtype))
    )
    return st.builds(lambda array, view: VIEWS[view](array), arrays, st.sampled_from(sorted(VIEWS)))


def _elements(dtype: str) -> Any:
    return st.integers(0, 2**63 - 1) if dtype == "uint64" else None


def _assert_rows(found: pa.Array, rows: list[np.ndarray[Any, Any] | None], dtype: str) -> None:
    """`found` against plain numpy: every row flattened and converted, NULL for None."""
    found.validate(full=True)
    assert found.type == LISTS[dtype]
    assert found.is_null().to_pylist() == [row is None for row in rows]
    for scalar, row in zip(found, rows, strict=True):
        if row is not None:
            np.testing.assert_array_equal(scalar.values.to_numpy(zero_copy_only=False), np.ravel(row).astype(dtype))


@given(st.lists(st.none() | _arrays(REALS), max_size=20))
def test_rows_of_any_real_dtype_and_layout_arrive_as_float64(rows: list[np.ndarray[Any, Any] | None]) -> None:
    column = ListColumn("x", "float64")
    for row in rows:
        column.append(row)
    _assert_rows(pa.array(column.finish()), rows, "float64")


@given(st.lists(st.none() | _arrays(INTEGERS), max_size=20))
def test_rows_of_any_integer_dtype_arrive_as_int64(rows: list[np.ndarray[Any, Any] | None]) -> None:
    column = ListColumn("x", "int64")
    for row in rows:
        column.append(row)
    _assert_rows(pa.array(column.finish()), rows, "int64")


@given(
    hnp.arrays(
        st.sampled_from([np.dtype(name) for name in ("float16", "float32", "float64", "longdouble", ">f8")]),
        st.integers(0, 9),
    )
)
def test_floats_enter_an_int64_column_exactly_or_not_at_all(row: np.ndarray[Any, Any]) -> None:
    column = ListColumn("x", "int64")
    if all(
        value == value and abs(value) != np.inf and int(value) == value and -(2**63) <= int(value) < 2**63
        for value in row
    ):
        column.append(row)
        assert pa.array(column.finish()).to_pylist() == [[int(value) for value in row]]
    else:
        with pytest.raises(ValueError, match="whole numbers of 64 bits; value [0-9]+ is not one"):
            column.append(row)
        assert len(column) == 0


def test_a_long_double_beyond_float64_is_kept_to_the_last_bit_in_an_int64_column() -> None:
    column = ListColumn("x", "int64")
    exact = np.array([2**62 + 1], np.longdouble)
    if int(exact[0]) != 2**62 + 1:
        pytest.skip("long double is no wider than double here")
    column.append(exact)
    assert pa.array(column.finish()).to_pylist() == [[2**62 + 1]]


@given(
    st.lists(st.sampled_from(["append", "null", "snapshot", "finish"]), max_size=60), st.sampled_from([0, 1, 5, 4000])
)
@settings(deadline=None)
def test_snapshots_keep_what_they_saw_while_the_column_grows(steps: list[str], capacity: int) -> None:
    column, rows, taken = ListColumn("x", "float64", capacity), [], []
    for number, step in enumerate(steps):
        if step in ("append", "null"):
            rows.append(np.full(number * 37, float(number)) if step == "append" else None)
            column.append(rows[-1])
        else:
            taken.append((getattr(column, step)(), list(rows)))
            rows = rows if step == "snapshot" else []
        assert len(column) == len(rows)
        assert column.nbytes == sum(8 + (0 if row is None else row.nbytes) for row in rows)
    for handed, seen in [*taken, (column.finish(), rows)]:
        assert len(handed) == len(seen)
        _assert_rows(pa.array(handed), seen, "float64")


def test_the_caller_may_change_its_array_after_the_append() -> None:
    column, mine = ListColumn("x", "float64"), np.arange(5.0)
    column.append(mine)
    mine[:] = -1
    assert pa.array(column.finish()).to_pylist() == [[0.0, 1.0, 2.0, 3.0, 4.0]]


SEQUENCES = [
    [1, 2.5],
    (1, 2.5),
    [[1], [2.5]],
    pa.array([1, 2.5]),
    pl.Series([1.0, 2.5]),
    memoryview(np.array([1, 2.5])),
]


@pytest.mark.parametrize("row", SEQUENCES, ids=lambda row: type(row).__name__)
def test_sequences_and_foreign_arrays_are_taken(row: Any) -> None:
    column = ListColumn("x", "float64")
    column.append(row)
    assert pa.array(column.finish()).to_pylist() == [[1.0, 2.5]]


@pytest.mark.parametrize(
    ("row", "error", "told"),
    [
        (np.array([1j]), TypeError, "dtype complex128"),
        (np.array([None]), TypeError, "dtype object"),
        ([1.0, None], TypeError, "dtype object"),
        (np.array(["a"]), TypeError, "dtype <U1"),
        ("text", TypeError, "dtype <U4"),
        (np.array([b"a"]), TypeError, r"dtype \|S1"),
        (np.array(["2020-01-01"], "datetime64[D]"), TypeError, r"dtype datetime64\[D\]"),
        (np.array([1], "timedelta64[s]"), TypeError, r"dtype timedelta64\[s\]"),
        (np.zeros(2, [("a", "f8")]), TypeError, "dtype \\[\\('a'"),
        (np.ma.masked_array([1.0, 2.0], [False, True]), TypeError, "masked"),
        (np.float64(1), ValueError, "got 0 dimensions"),
        (np.array(1.0), ValueError, "got 0 dimensions"),
        (np.zeros((2, 2, 2)), ValueError, "got 3 dimensions"),
        ([[1.0], [1.0, 2.0]], ValueError, "inhomogeneous"),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_what_is_no_row_of_real_numbers_is_refused_by_name_and_changes_nothing(
    dtype: str, row: Any, error: type[Exception], told: str
) -> None:
    column = ListColumn("x", dtype)
    column.append([1, 2])
    with pytest.raises(error, match=told):
        column.append(row)
    column.append([3])
    assert pa.array(column.finish()).to_pylist() == [[1, 2], [3]]


@pytest.mark.parametrize(
    "row", [np.array([2**63], "uint64"), np.array([5, 2**64 - 1], "uint64"), [2**63], np.array([2.0**63])]
)
def test_integers_that_do_not_fit_are_refused(row: Any) -> None:
    column = ListColumn("x", "int64")
    with pytest.raises(ValueError, match="whole numbers of 64 bits"):
        column.append(row)
    assert len(column) == 0


def test_a_column_checks_its_own_arguments() -> None:
    with pytest.raises(ValueError, match="not 'float32'"):
        ListColumn("x", "float32")
    with pytest.raises(ValueError, match="NUL"):
        ListColumn("x\0y", "float64")
    with pytest.raises(ValueError, match="capacity"):
        ListColumn("x", "float64", -1)
    with pytest.raises(TypeError):
        ListColumn(None, "float64")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ListColumn"):
        ListArray()
    with pytest.raises(RuntimeError, match="never initialised"):
        ListColumn.__new__(ListColumn).append([1.0])
    with pytest.raises(TypeError, match="comes from"):
        ListArray.__new__(ListArray).__arrow_c_stream__()


def test_a_pending_row_can_be_looked_at() -> None:
    column = ListColumn("x", "int64")
    for row in ([1, 2], None, [[3], [4]], []):
        column.append(row)
    looked = [column.values(index) for index in range(4)]
    assert [row if row is None else row.tolist() for row in looked] == [[1, 2], None, [3, 4], []]
    with pytest.raises(IndexError, match="no row 4"):
        column.values(4)


def test_an_append_without_memory_leaves_the_column_as_it_was() -> None:
    column = ListColumn("x", "float64", capacity=2**45)
    with pytest.raises(MemoryError, match="1 more values"):
        column.append([1.0])
    assert len(column) == 0


@pytest.fixture
def two_billion(tmp_path: Path) -> np.ndarray[Any, Any]:
    """2**31 values in a file of holes: no memory, no disk."""
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(2**31 * 8)
    return np.asarray(np.memmap(tmp_path / "holes", np.float64, "r"))


def test_32_bit_offsets_never_wrap(two_billion: np.ndarray[Any, Any]) -> None:
    column = ListColumn("x", "float64")
    with pytest.raises(OverflowError, match="flush first"):
        column.append(two_billion)
    column.append([1.0])
    with pytest.raises(OverflowError, match="flush first"):
        column.append(two_billion[1:])
    assert pa.array(column.finish()).to_pylist() == [[1.0]]
    with pytest.raises(OverflowError, match="large=True"):
        list_column_from_matrix("x", two_billion.reshape(2, -1))
    wide = pa.array(list_column_from_matrix("x", two_billion.reshape(2, -1), large=True))
    assert wide.offsets.to_pylist() == [0, 2**30, 2**31]


def test_a_large_column_has_64_bit_offsets() -> None:
    column = ListColumn("x", "int64", large=True)
    for row in ([1, 2], None, [3]):
        column.append(row)
    found = pa.array(column.finish())
    assert found.type == pa.large_list(pa.int64())
    assert found.to_pylist() == [[1, 2], None, [3]]


@given(
    hnp.arrays(
        st.sampled_from([np.dtype("float64"), np.dtype("int64")]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9),
    )
)
def test_a_matrix_becomes_a_column_of_its_rows_without_a_copy(matrix: np.ndarray[Any, Any]) -> None:
    found = pa.array(list_column_from_matrix("x", matrix))
    _assert_rows(found, list(matrix), matrix.dtype.name)
    if matrix.size:
        assert found.values.buffers()[1].address == matrix.ctypes.data


@pytest.mark.parametrize(
    ("matrix", "error", "told"),
    [
        ([[1.0]], TypeError, "got list"),
        (np.ma.masked_array([[1.0]], [[True]]), TypeError, "got MaskedArray"),
        (np.zeros((2, 2), "float32"), TypeError, "got float32"),
        (np.zeros((2, 2), ">f8"), TypeError, "got >f8"),
        (np.zeros((2, 2), "datetime64[s]"), TypeError, "got datetime64"),
        (np.zeros(2), ValueError, "2-D"),
        (np.zeros((2, 2), order="F"), ValueError, "C-contiguous"),
        (np.zeros((4, 4))[:, :2], ValueError, "C-contiguous"),
        (_unaligned(np.zeros((2, 2))), ValueError, "aligned"),
    ],
)
def test_a_matrix_that_would_need_a_copy_is_refused(matrix: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        list_column_from_matrix("x", matrix)


def _some_rows() -> ListColumn:
    column = ListColumn("y_pred", "float64")
    for row in ([1.0, 2.0], None, [], [3.0]):
        column.append(row)
    return column


def test_arrow_consumers_import_the_column_by_stream_and_by_array() -> None:
    column, expected = _some_rows(), [[1.0, 2.0], None, [], [3.0]]
    assert pa.field(column.snapshot()) == pa.field("y_pred", LISTS["float64"])
    assert pa.array(column.snapshot()).to_pylist() == expected
    assert pa.chunked_array(column.snapshot()).to_pylist() == expected
    assert pa.table({"y": column.snapshot()})["y"].to_pylist() == expected
    assert pl.Series(column.snapshot()).to_list() == expected
    assert pa.chunked_array(ListColumn("e", "int64").finish()).type == LISTS["int64"]


def test_duckdb_reads_the_column_as_a_list_of_doubles() -> None:
    lists = pa.table({"y": _some_rows().finish()})  # noqa: F841  (DuckDB finds it by its name)
    found = duckdb.sql("SELECT typeof(y), y FROM lists").fetchall()
    assert found == [("DOUBLE[]", [1.0, 2.0]), ("DOUBLE[]", None), ("DOUBLE[]", []), ("DOUBLE[]", [3.0])]


@given(st.lists(st.none() | st.lists(st.floats(), max_size=5), max_size=150), st.data())
def test_the_tail_is_what_was_appended_last(rows: list[list[float] | None], data: st.DataObject) -> None:
    column = ListColumn("y", "float64")
    for row in rows:
        column.append(None if row is None else np.array(row, float))
    start = data.draw(st.integers(0, len(rows)))
    lengths, values = column.tail(start)
    assert np.frombuffer(lengths, np.int64).tolist() == [-1 if row is None else len(row) for row in rows[start:]]
    expected = np.array([value for row in rows[start:] for value in row or ()], float)
    assert values == expected.tobytes()


@pytest.mark.parametrize("start", [-1, 3])
def test_a_tail_from_outside_is_refused(start: int) -> None:
    column = ListColumn("y", "float64")
    column.append(np.zeros(2))
    column.append(None)
    with pytest.raises(IndexError, match="has 2 pending rows"):
        column.tail(start)


@given(
    st.lists(st.tuples(_arrays(("float64", "int64", "float32")), st.booleans()), max_size=12),
    st.sampled_from(sorted(LISTS)),
)
def test_a_row_is_known_by_its_bytes(drawn: list[tuple[np.ndarray[Any, Any], bool]], dtype: str) -> None:
    column, labels = ListColumn("y", dtype), dict[bytes, object]()
    for number, (array, is_labelled) in enumerate(drawn):
        with np.errstate(invalid="ignore"):
            flat = array.ravel().astype(dtype)
        column.append(flat)
        if is_labelled:
            column.remember(number)
            labels[flat.tobytes()] = number
            assert column.known(flat) == number
        for each in (array, flat):
            can_be = each.ndim == 1 and each.flags.c_contiguous and each.flags.aligned and each.dtype == dtype
            # another row that is sampled alike may have taken its place
            assert column.known(each) in (None, labels.get(each.tobytes()) if can_be else None)
    column.finish()
    assert [column.known(array) for array, _ in drawn] == [None] * len(drawn)


def test_rows_that_differ_where_nobody_samples_are_not_taken_for_each_other() -> None:
    column, rows = ListColumn("y", "float64"), np.zeros((200, 200))
    np.fill_diagonal(rows, 1.0)
    for number, row in enumerate(rows):
        column.append(row)
        column.remember(number)
    found = [column.known(row) for row in rows]
    assert all(label in (None, number) for number, label in enumerate(found))
    assert found[199] == 199
    assert column.known(np.zeros(200)) is None
    assert column.known(-rows[199]) is None  # zeros of another sign
    assert column.known(rows[199][:-1]) is None
    assert column.known([1.0]) is column.known(None) is column.known(np.zeros(3, "O")) is None


def test_without_a_row_nothing_is_remembered() -> None:
    with pytest.raises(IndexError, match="has no row"):
        ListColumn("y", "int64").remember("a")


def known_columns() -> dict[str, ListColumn]:
    """Columns that know targets "t" and "e", of three and no values, and indices "i" and "n"."""
    columns = {name: ListColumn(name, "float64") for name in ("shared", "predicted", "probable")}
    columns["indices"] = ListColumn("indices", "int64")
    for name, dtype, labels in (("shared", "float64", "te"), ("indices", "int64", "in")):
        for values, label in zip((np.arange(3).astype(dtype), np.zeros(0, dtype)), labels, strict=True):
            columns[name].append(values)
            columns[name].remember(label)
    return columns


@given(*[st.sampled_from([None, np.arange(3.0), np.zeros(0), np.ones(3), np.arange(3), np.zeros(0, int), [1.0]])] * 3)
def test_arrays_are_appended_where_all_that_others_share_is_known(y_true: Any, y_pred: Any, indices: Any) -> None:
    columns = known_columns()
    found = append_known(y_true, y_pred, indices, **columns)
    label, other = columns["shared"].known(y_true), columns["indices"].known(indices)
    is_real = isinstance(y_pred, np.ndarray) and y_pred.dtype == np.float64
    is_taken = is_real and label is not None and (other is not None or indices is None)
    is_taken = is_taken and len(y_pred) == len(y_true) == len(y_true if indices is None else indices)
    assert found == ((label, other) if is_taken else None)
    assert len(columns["predicted"]) == len(columns["probable"]) == is_taken
    if is_taken:
        assert np.array_equal(columns["predicted"].values(0), y_pred)
        assert columns["probable"].values(0) is None
