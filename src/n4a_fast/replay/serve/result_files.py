"""Where predictions go, block by block: an array that is given, a `.npy` file, a Parquet file.

Promises that a file appears whole, durably, when all blocks are in it, and not at all otherwise. Of a `.npy` file the
rows of a chain lie together where the number of spectra is known; otherwise those of a spectrum do (Fortran order),
so that it can be appended to. A Parquet file has a column for each chain.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from n4a_fast import platform
from n4a_fast.durable.publish import new_file
from n4a_fast.durable.sync import start_sync
from n4a_fast.errors import InvalidInputError
from n4a_fast.values.ahead import begun

Array: TypeAlias = NDArray[Any]
_HEADER = 256  # bytes of a .npy file before its values, whatever its shape
_WRITE_BACK = 2**25  # bytes that the disk is given at a time: each block is a small piece in every chain's rows


class Results(Protocol):
    """Takes predictions (chains, rows[, targets]) of blocks in order."""

    def put(self, first: int, block: Array) -> None: ...


def require_target(out: Any, chain_ids: Sequence[str]) -> None:
    """InvalidInputError, before anything is computed, for what is no place for predictions."""
    if out is None or isinstance(out, np.ndarray):
        return
    if not isinstance(out, str | os.PathLike) or Path(out).suffix not in (".npy", ".parquet"):
        raise InvalidInputError(f"out={out!r} must be an array, or the path of a .npy or .parquet file")
    if Path(out).suffix == ".parquet" and len(set(chain_ids)) < len(chain_ids):
        raise InvalidInputError("a chain is named twice, and a Parquet file has one column for each; name it once")


@contextmanager
def results_in(out: Any, chain_ids: Sequence[str], like: Array, count: int | None) -> Iterator[Results]:
    """What takes the predictions; `like` is a block of them, `count` the number of spectra, if it is known."""
    if isinstance(out, np.ndarray):
        array = _InArray(out, (len(like), count, *like.shape[2:]), like.dtype)
        yield array
        array.finish()
        return
    with new_file(Path(out)) as draft:
        if Path(out).suffix == ".npy":
            with draft.open("w+b") as file, ThreadPoolExecutor(1, "n4a_fast-disk") as disk:
                target = _InNpy(file, disk, like, count)
                yield target
                target.finish()
        else:
            schema = pa.schema([(name, _kind(like[0])) for name in chain_ids])
            with pq.ParquetWriter(draft, schema, compression="none", use_dictionary=like.dtype.kind not in "f") as file:
                yield _InParquet(file, schema)


class _InArray:
    def __init__(self, out: Array, shape: tuple[int | None, ...], dtype: np.dtype[Any]) -> None:
        fits = len(out.shape) == len(shape) and all(
            own in (None, given) for own, given in zip(shape, out.shape, strict=True)
        )
        if not fits or not np.can_cast(dtype, out.dtype, "same_kind"):
            told = ", ".join("n" if size is None else str(size) for size in shape)
            raise InvalidInputError(
                f"out has shape {out.shape} of {out.dtype}; the predictions are ({told}) of {dtype}"
            )
        self._out, self._rows, self._filled = out, out.shape[1], 0

    def put(self, first: int, block: Array) -> None:
        if first + block.shape[1] > self._rows:
            raise InvalidInputError(f"X has more spectra than the {self._rows} that out has room for")
        self._filled = first + block.shape[1]
        self._out[:, first : self._filled] = block

    def finish(self) -> None:
        if self._filled < self._rows:
            raise InvalidInputError(
                f"X has {self._filled} spectra, out has room for {self._rows}; its end was not filled"
            )


@dataclass(slots=True)
class _InNpy:
    """A .npy file, written by position: mapped, its pages would count as this process's memory."""

    file: BinaryIO
    disk: ThreadPoolExecutor
    like: Array
    count: int | None
    rows: int = field(default=0, init=False)
    behind: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.like.dtype.kind == "O":
            raise InvalidInputError("labels of several kinds cannot be kept in a .npy file; give a .parquet file")
        if self.count is None and self.like.ndim > 2:
            raise InvalidInputError(
                "how many spectra X has is not known, and a .npy file of several targets needs it; give a .parquet file"
            )

    def put(self, first: int, block: Array) -> None:
        self.rows = first + block.shape[1]
        if self.count is None:
            self._write(np.ascontiguousarray(block.T), first * len(block) * block.itemsize)
        else:
            size = int(np.prod(block.shape[2:], dtype=int)) * block.itemsize
            for number, rows in enumerate(np.ascontiguousarray(block)):
                self._write(rows, (number * self.count + first) * size)
        self.behind += block.nbytes
        if self.behind >= _WRITE_BACK:  # while the next blocks are computed and written
            begun(self.disk, start_sync, self.file.fileno())
            self.behind = 0

    def _write(self, values: Array, place: int) -> None:
        """Whole values at so many bytes behind the header."""
        platform.write_at(self.file.fileno(), values.reshape(-1).view(np.uint8).data, _HEADER + place)

    def finish(self) -> None:
        """The header, now that the shape is known."""
        shape = (len(self.like), self.rows, *self.like.shape[2:])
        head = BytesIO()
        about = {"descr": np.lib.format.dtype_to_descr(self.like.dtype), "fortran_order": self.count is None}
        np.lib.format.write_array_header_1_0(head, {**about, "shape": shape})
        magic, text = head.getvalue()[:10], head.getvalue()[10:].rstrip()
        padded = magic[:8] + (_HEADER - 10).to_bytes(2, "little") + text.ljust(_HEADER - 11) + b"\n"
        platform.write_at(self.file.fileno(), padded, 0)


@dataclass(frozen=True, slots=True)
class _InParquet:
    file: pq.ParquetWriter
    schema: pa.Schema

    def put(self, first: int, block: Array) -> None:
        columns = [_column(rows, kind.type) for rows, kind in zip(block, self.schema, strict=True)]
        self.file.write_batch(pa.record_batch(columns, schema=self.schema))


def _kind(rows: Array) -> pa.DataType:
    one = pa.string() if rows.dtype.kind in "OU" else pa.from_numpy_dtype(rows.dtype)
    return one if rows.ndim == 1 else pa.list_(one, rows.shape[1])


def _column(rows: Array, kind: pa.DataType) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1), kind.value_type if rows.ndim > 1 else kind)
    return flat if rows.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
