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
from functools import lru_cache

import xxhash

_VARIANT = 0x8000_0000_0000_0000


def uuid7() -> str:
    """A new UUIDv7; ids made later in one process sort later, to about a quarter of a microsecond."""
    now = time.time_ns()
    milliseconds, rest = divmod(now, 1_000_000)
    fraction = (rest << 12) // 1_000_000  # RFC 9562, method 3: sub-millisecond time in rand_a
    high = (milliseconds << 16) | 0x7000 | fraction
    low = _VARIANT | (int.from_bytes(os.urandom(8)) >> 2)
    return _text(high, low)


def natural_key(
    pipeline_id: str, chain_id: str | None, fold_id: str, partition: str, model_name: str, branch_id: int | None
) -> int:
    """A prediction's natural key in 128 bits: the time prefix of its pipeline, then 80 bits of xxh3; a missing chain or branch differs from any."""
    parts = (pipeline_id, "" if chain_id is None else f"={chain_id}", fold_id, partition, model_name, "" if branch_id is None else f"={branch_id}")
    text = "\x1f".join(parts)
    if text.count("\x1f") >= len(parts):  # a separator inside a name: quote every part
        text = repr(parts)
    return _time_prefix(pipeline_id) << 80 | xxhash.xxh3_128_intdigest(text.encode("utf-8", "surrogatepass")) >> 48


def nk(key: int) -> int:
    """The column `nk` of a natural key: the time prefix and 16 bits of the hash."""
    return key >> 64


def prediction_id(key: int) -> str:
    """The UUIDv8 of the prediction with natural key `key`."""
    high = key >> 80 << 16 | 0x8000 | key >> 68 & 0xFFF
    return _text(high, _VARIANT | key & 0x3FFF_FFFF_FFFF_FFFF)


def id_key(identifier: str) -> int:
    """The column `id_key`: the first 64 bits of a UUID, a hash of any other id; 0 for what is no text, so that it is found nowhere."""
    if not isinstance(identifier, str):
        return 0
    if len(identifier) == 36 and identifier[8] == identifier[13] == "-":
        try:
            return int(identifier[:8] + identifier[9:13] + identifier[14:18], 16) & 0xFFFF_FFFF_FFFF_FFFF
        except ValueError:
            pass  # 36 characters of something else
    return xxhash.xxh3_64_intdigest(identifier.encode("utf-8", "surrogatepass"))


@lru_cache(maxsize=4096)
def _time_prefix(pipeline_id: str) -> int:
    """The 48 bits of milliseconds that a UUIDv7 begins with; of any other id, as many bits of its hash."""
    return id_key(pipeline_id) >> 16


def _text(high: int, low: int) -> str:
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
