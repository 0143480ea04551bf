"""Arrays that many predictions share, in memory: once per content, under a hash of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash

from n4a_fast._native.columns import ListColumn

Array = np.ndarray[Any, Any]


class Contents:
    """Distinct arrays in the order of first sight."""

    def __init__(self, dtype: Literal["float64", "int64"]) -> None:
        self.values = ListColumn("array_values", dtype)
        self._widths: dict[str, int | None] = {}
        self._places: dict[str, int] = {}
        self.nbytes = 0  # of the arrays held

    def __bool__(self) -> bool:
        return bool(self._widths)

    def add(self, values: Array | None) -> str | None:
        """The address of an array, which is copied unless its content is here already; None for none."""
        if values is None:
            return None
        known: str | None = self.values.known(values)
        if known is not None:
            return known
        address = content_hash(values)
        if address not in self._widths:
            self._put(address, values, width_of(values))
            if values.ndim == 1:
                self.values.remember(address)
        return address

    def _put(self, address: str, values: Array, width: int | None) -> None:
        try:
            self.values.append(values)
        finally:
            if len(self.values) > len(self._widths):  # an interrupt may strike when they are there already
                self._places[address], self._widths[address] = len(self._widths), width
                self.nbytes = self.values.nbytes

    def get(self, address: str | None) -> tuple[Array | None, int | None]:
        """A copy of the flat values under an address, and their width; None for none."""
        return (None, None) if address is None else (self.values.values(self._places[address]), self._widths[address])

    def record_of(self, addresses: Iterable[str | None]) -> dict[str, Any]:
        """What is under these addresses, for the log. A record holds all contents of its predictions: another process
        may have put an earlier one into the tables, and then deleted what no prediction had any more.
        """
        named = dict.fromkeys(address for address in addresses if address is not None)
        found: list[Any] = [self.values.values(self._places[address]) for address in named]
        lengths = np.array([len(values) for values in found], np.int64).tobytes()
        return {
            "widths": [(address, self._widths[address]) for address in named],
            "values": (lengths, b"".join(found)),
        }

    def replay(self, content: dict[str, Any]) -> None:
        """Add again what `record_of` once gave."""
        if not content["widths"]:
            return
        for (address, width), values in zip(
            content["widths"], arrays_of(content["values"], self.values.dtype), strict=True
        ):
            if address not in self._widths and values is not None:
                self._put(address, values, width)

    def columns(self) -> tuple[pa.Array, pa.ChunkedArray, pa.Array]:
        """Addresses, values and widths as Arrow."""
        return (
            pa.array(list(self._widths), pa.string()),
            lists(self.values),
            pa.array(list(self._widths.values()), pa.int32()),
        )


def width_of(values: Array | None) -> int | None:
    """Number of columns of a 2-D array; None for 1-D."""
    return values.shape[1] if values is not None and values.ndim == 2 else None


def content_hash(values: Array) -> str:
    """The address of an array: xxh3-128 of dtype, shape and bytes; `values` is contiguous."""
    digest = _hash_of_form(values.dtype, values.shape).copy()
    digest.update(values)  # type: ignore[arg-type]  # an array is a buffer
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _hash_of_form(dtype: np.dtype[Any], shape: tuple[int, ...]) -> xxhash.xxh3_128:
    return xxhash.xxh3_128(f"{dtype.str}{shape}".encode())


def lists(column: ListColumn) -> pa.ChunkedArray:
    """The column as Arrow, over its own memory."""
    return pa.chunked_array(column.snapshot())


def arrays_of(tail: tuple[bytes, bytes], dtype: str) -> list[Array | None]:
    """The flat arrays of a `ListColumn.tail`."""
    lengths, values = flat_of([tail], dtype)
    ends = np.cumsum(np.maximum(lengths, 0))
    return [
        None if length < 0 else values[end - length : end]
        for length, end in zip(lengths.tolist(), ends.tolist(), strict=True)
    ]


def flat_of(tails: Iterable[Sequence[bytes]], dtype: str) -> tuple[Array, Array]:
    """The length of each array of some `ListColumn.tail`s, negative for none, and all their values; ValueError where
    these are not as many: nobody else looks before the arrays are read where the lengths say.
    """
    parts = list(tails)
    lengths = np.frombuffer(b"".join(part[0] for part in parts), np.int64)
    values = np.frombuffer(b"".join(part[1] for part in parts), dtype)
    most = int(lengths.max(initial=0))
    if most > len(values) or int(np.maximum(lengths, 0).sum()) != len(values):  # none is so long that a sum overflows
        raise ValueError(f"arrays of {most} values and less, {len(values)} in all")
    return lengths, values
