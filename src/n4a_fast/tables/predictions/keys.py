"""Natural keys and ids of many predictions at once: what `n4a_fast.values.ids` does for one, on numpy columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from n4a_fast._native.keys import ids_of_keys
from n4a_fast.values import ids

Numbers = np.ndarray[Any, np.dtype[np.uint64]]
Column: TypeAlias = pa.Array | pa.ChunkedArray | pa.Scalar

_ORDER = ("pipeline_id", "chain_id", "model_name", "fold_id", "partition", "branch_id")
_OPTIONAL = ("chain_id", "branch_id")
_LENGTH = 36  # of an id
_DASHES = (8, 13, 18, 23)
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_PLACES_OF_DIGITS = np.array([place for place in range(_LENGTH) if place not in _DASHES])
_NO_DIGIT = 16
_LOOKED_AT = 1000  # values of a column; where all differ, so do most others
_DIGIT_OF = np.full(256, _NO_DIGIT, np.uint8)
_DIGIT_OF[_DIGITS] = _DIGIT_OF[np.frombuffer(b"0123456789ABCDEF", np.uint8)] = np.arange(16)


@dataclass(frozen=True, slots=True)
class Keys:
    """Natural keys of 128 bits, as two halves."""

    high: Numbers
    low: Numbers

    @property
    def nk(self) -> Numbers:
        """The column `nk`."""
        return self.high

    @property
    def id_key(self) -> Numbers:
        """The column `id_key` of the ids that follow from the keys."""
        return self.high & _u64(0xFFFF_FFFF_FFFF_0000) | _u64(0x8000) | self.high >> _u64(4) & _u64(0xFFF)

    def prediction_ids(self) -> pa.StringArray:
        """The UUIDv8 of each key."""
        offsets = np.arange(len(self.high) + 1, dtype=np.int32) * np.int32(_LENGTH)
        text = ids_of_keys(self.high, self.low)
        return pa.StringArray.from_buffers(len(self.high), pa.py_buffer(offsets), pa.py_buffer(text))

    def numbers(self) -> list[int]:
        """The keys as `ids.natural_key` gives them."""
        return [high << 64 | low for high, low in zip(self.high.tolist(), self.low.tolist(), strict=True)]

    def __getitem__(self, rows: slice) -> Keys:
        return Keys(self.high[rows], self.low[rows])

    def are_distinct(self) -> bool:
        """Whether no two rows have the same key."""
        low = np.sort(self.low)  # a tenth of the time of np.unique, which the rare equal halves need
        if not (low[1:] == low[:-1]).any():
            return True
        return len(np.unique(np.stack([self.high, self.low]), axis=1)[0]) == len(self.low)


def natural_keys(columns: Mapping[str, Column], rows: int) -> Keys:
    """The natural key of each row; a column is an array, or one value for all rows."""
    first, second = np.zeros(rows, np.uint64), np.zeros(rows, np.uint64)
    for name in _ORDER:
        parts = _hashes(columns[name], name in _OPTIONAL)
        first, second = _fold(first, parts[0], ids.FACTORS[0]), _fold(second, parts[1], ids.FACTORS[1])
    prefix = _of_distinct(
        columns["pipeline_id"], lambda values: np.array([[ids.time_prefix(value or "")] for value in values], np.uint64)
    )[0]
    return Keys(prefix << _u64(16) | first >> _u64(48), first << _u64(16) | second >> _u64(48))


def id_keys(identifiers: pa.StringArray | pa.ChunkedArray) -> Numbers:
    """The column `id_key` of predictions; there is no missing one."""
    if isinstance(identifiers, pa.ChunkedArray):
        identifiers = identifiers.combine_chunks()
    offsets = np.frombuffer(identifiers.buffers()[1], np.int32)[identifiers.offset :][: len(identifiers) + 1]
    if not len(identifiers) or (np.diff(offsets) != _LENGTH).any():
        return np.array([ids.id_key(identifier) for identifier in identifiers.to_pylist()], np.uint64)
    text = np.frombuffer(identifiers.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].reshape(-1, _LENGTH)
    digits = _DIGIT_OF[text[:, _PLACES_OF_DIGITS[:16]]]
    keys = np.ascontiguousarray(digits[:, ::2] << 4 | digits[:, 1::2]).view(">u8").reshape(-1).astype(np.uint64)
    for row in np.flatnonzero(
        (digits == _NO_DIGIT).any(1) | (text[:, [8, 13]] != ord("-")).any(1) | (text > 127).any(1)
    ):
        keys[row] = ids.id_key(identifiers[row].as_py())  # no UUID, at least not in the usual form
    return keys


def _hashes(column: Column, optional: bool) -> Numbers:
    if isinstance(column, pa.Scalar) or not pa.types.is_string(column.type):
        return _of_distinct(column, lambda values: _lanes([_part(value, optional) for value in values]))
    begin = b"=" if optional else b""  # as `ids.optional` does
    return _of_distinct(
        column.cast(pa.binary()), lambda values: _lanes([b"" if each is None else begin + each for each in values])
    )


def _part(value: Any, optional: bool) -> bytes:
    return (ids.optional(value) if optional else value or "").encode("utf-8", "surrogatepass")


def _lanes(parts: list[bytes]) -> Numbers:
    """`ids.hash_of` of each part."""
    digests = b"".join(map(xxhash.xxh3_128_digest, parts))
    lanes: Numbers = (
        np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)[:, ::-1]
    )  # the digest begins with the high half
    return lanes


def _of_distinct(column: Column, numbers_of: Callable[[list[Any]], Numbers]) -> Numbers:
    """What a function gives for each row, asked once for all distinct values, unless hardly any is there twice; one row
    for each number it gives of a value.
    """
    if isinstance(column, pa.Scalar):
        return numbers_of([column.as_py()]).T
    if pc.count_distinct(column.slice(0, _LOOKED_AT)).as_py() == _LOOKED_AT:  # to find out costs more than to ask
        return numbers_of(column.to_pylist()).T
    encoded = pa.chunked_array(column).dictionary_encode().unify_dictionaries().combine_chunks()
    found = numbers_of([*encoded.dictionary.to_pylist(), None])
    codes = encoded.indices.fill_null(len(found) - 1).to_numpy(zero_copy_only=False)
    taken: Numbers = found[codes].T
    return taken


def _fold(lane: Numbers, part: Numbers, factor: int) -> Numbers:
    mixed = (lane ^ part) * _u64(factor)
    return mixed ^ mixed >> _u64(32)


def _u64(value: int) -> np.uint64:
    return np.uint64(value)
