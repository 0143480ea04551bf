"""Identifiers: time-ordered for what is begun, derived from content for what is re-saved.

Runs, pipelines, chains and log entries get a UUIDv7 (RFC 9562), so that rows written together
have neighbouring ids and zone maps find them without an index. A prediction without a
caller's id gets a UUIDv8: the time prefix of its pipeline and a hash of its natural key. The
same prediction saved again, by any process, therefore has the same id without a look-up.

DuckDB's zone maps know the first eight characters of a text, which is a minute of such ids. The
look-up columns `nk` and `id_key` are 64-bit integers in the same order, exact in zone maps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache

import xxhash

from n4a_fast._native.keys import key_and_id

_VARIANT = 0x8000_0000_0000_0000
_MASK = 0xFFFF_FFFF_FFFF_FFFF
_EPOCH, _AROUND = datetime(1970, 1, 1), timedelta(seconds=1)
_LAST = 2**47  # milliseconds: the year 6429, which a time of Python's still holds
FACTORS = (
    0x9E37_79B9_7F4A_7C15,
    0xC2B2_AE3D_27D4_EB4F,
)  # odd, half of their bits set: of the golden ratio, and a prime of xxHash


def uuid7() -> str:
    """A new UUIDv7; ids made later in one process sort later, to about a quarter of a microsecond."""
    now = time.time_ns()
    milliseconds, rest = divmod(now, 1_000_000)
    fraction = (rest << 12) // 1_000_000  # RFC 9562, method 3: sub-millisecond time in rand_a
    high = (milliseconds << 16) | 0x7000 | fraction
    low = _VARIANT | (int.from_bytes(os.urandom(8)) >> 2)
    return _text(high, low)


def made_around(identifier: str) -> tuple[datetime, datetime] | None:
    """Times a second before and after a UUIDv7 was made, as `created_at` holds them; None for any other id."""
    made = id_key(identifier)
    if made >> 12 & 0xF != 7 or made >> 16 > _LAST:
        return None
    at = _EPOCH + timedelta(milliseconds=made >> 16)
    return at - _AROUND, at + _AROUND


def natural_key(
    pipeline_id: str, chain_id: str | None, fold_id: str, partition: str, model_name: str, branch_id: int | None
) -> int:
    """A prediction's natural key in 128 bits: the time prefix of its pipeline, then 80 bits of hash; a missing chain or
    branch differs from any.
    """
    first, second = _hash_of_chain(pipeline_id, chain_id, model_name)
    for part in (fold_id, partition, optional(branch_id)):
        lanes = hash_of(part)
        first, second = fold(first, lanes[0], FACTORS[0]), fold(second, lanes[1], FACTORS[1])
    return time_prefix(pipeline_id) << 80 | first << 16 | second >> 48


def derived(
    pipeline_id: str, chain_id: str | None, fold_id: str, partition: str, model_name: str, branch_id: int | None
) -> tuple[int, str, int, int]:
    """`natural_key`, and of it `prediction_id`, `nk` and `id_key`, in a sixth of the time."""
    prefix, chain = _begin_of_chain(pipeline_id, chain_id, model_name)
    return key_and_id(prefix, chain, _hashes_within_chain(fold_id, partition, branch_id), FACTORS)


def optional(value: object) -> str:
    """A part of the natural key that may be missing, as text."""
    return "" if value is None else f"={value}"


@lru_cache(maxsize=4096)
def hash_of(part: str) -> tuple[int, int]:
    """xxh3-128 of one part of the natural key, as two lanes of 64 bits."""
    digest = xxhash.xxh3_128_intdigest(part.encode("utf-8", "surrogatepass"))
    return digest & _MASK, digest >> 64


def fold(lane: int, part: int, factor: int) -> int:
    """One more part in a lane of the key's hash; different for another order of parts."""
    mixed = (lane ^ part) * factor & _MASK
    return mixed ^ mixed >> 32


@lru_cache(maxsize=4096)
def _begin_of_chain(pipeline_id: str, chain_id: str | None, model_name: str) -> tuple[int, tuple[int, int]]:
    return time_prefix(pipeline_id), _hash_of_chain(pipeline_id, chain_id, model_name)


def _hash_of_chain(pipeline_id: str, chain_id: str | None, model_name: str) -> tuple[int, int]:
    first = second = 0
    for part in (pipeline_id, optional(chain_id), model_name):
        lanes = hash_of(part)
        first, second = fold(first, lanes[0], FACTORS[0]), fold(second, lanes[1], FACTORS[1])
    return first, second


@lru_cache(maxsize=4096)
def _hashes_within_chain(fold_id: str, partition: str, branch_id: int | None) -> tuple[int, ...]:
    return (*hash_of(fold_id), *hash_of(partition), *hash_of(optional(branch_id)))


def nk(key: int) -> int:
    """The column `nk` of a natural key: the time prefix and 16 bits of the hash."""
    return key >> 64


def prediction_id(key: int) -> str:
    """The UUIDv8 of the prediction with natural key `key`."""
    high = key >> 80 << 16 | 0x8000 | key >> 68 & 0xFFF
    return _text(high, _VARIANT | key & 0x3FFF_FFFF_FFFF_FFFF)


def id_key(identifier: str) -> int:
    """The column `id_key`: the first 64 bits of a UUID, a hash of any other id; 0 for what is no text, so that it is
    found nowhere.
    """
    if not isinstance(identifier, str):
        return 0
    if len(identifier) == 36 and identifier[8] == identifier[13] == "-":
        try:
            return int(identifier[:8] + identifier[9:13] + identifier[14:18], 16) & _MASK
        except ValueError:
            pass  # 36 characters of something else
    return xxhash.xxh3_64_intdigest(identifier.encode("utf-8", "surrogatepass"))


@lru_cache(maxsize=4096)
def time_prefix(pipeline_id: str) -> int:
    """The 48 bits of milliseconds that a UUIDv7 begins with; of any other id, as many bits of its hash."""
    return id_key(pipeline_id) >> 16


def nk_bounds(pipeline_ids: Iterable[str]) -> tuple[int, int]:
    """The smallest and the largest `nk` that predictions of these pipelines can have; there is at least one of them."""
    prefixes = [time_prefix(pipeline_id) for pipeline_id in pipeline_ids]
    return min(prefixes) << 16, max(prefixes) << 16 | 0xFFFF


def content_id(content: bytes) -> str:
    """The UUIDv8 of `content`: the same bytes, the same id."""
    high, low = divmod(xxhash.xxh3_128_intdigest(content), 2**64)
    return _text(high & ~0xF000 | 0x8000, _VARIANT | (low & 0x3FFF_FFFF_FFFF_FFFF))


def _text(high: int, low: int) -> str:
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
