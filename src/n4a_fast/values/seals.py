"""A checksum that a JSON object carries of itself and of another file: whether both are still what was written.

Who writes the object anew without it, as other programs do, makes it unsealed rather than wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xxhash

from n4a_fast.values import jsontext

SEAL = "checksum"


def sealed(fields: Mapping[str, Any], content: str) -> dict[str, Any]:
    """The fields with the checksum of them and of a text."""
    return {**unsealed(fields), SEAL: _checksum(fields, content)}


def unsealed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields alone."""
    return {name: value for name, value in fields.items() if name != SEAL}


def is_broken(fields: Mapping[str, Any], content: str) -> bool:
    """Whether there is a checksum, and it is of something else."""
    return SEAL in fields and fields[SEAL] != _checksum(fields, content)


def _checksum(fields: Mapping[str, Any], content: str) -> str:
    text = jsontext.encode(dict(sorted(unsealed(fields).items())), "fields")
    return xxhash.xxh3_128_hexdigest(f"{text}\n{content}".encode())
