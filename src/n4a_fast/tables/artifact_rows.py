"""Rows of artifacts, from what those who wrote the files say of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from n4a_fast.artifacts import model_files
from n4a_fast.errors import InvalidInputError
from n4a_fast.values import checks

Row = dict[str, Any]

PROMISED = "promised"  # the origin of an artifact whose file its writer has not written yet, and may never write
_HASH_LENGTHS = (32, 64)


class Written(NamedTuple):
    """A file below `artifacts/` as the one who wrote it describes it."""

    artifact_id: str
    path: str
    content_hash: str
    operator_class: str
    artifact_type: str
    format: str
    size_bytes: int


def row_of(written: Written, origin: str) -> Row:
    """The row of a file as it is described; InvalidInputError for what cannot be."""
    artifact_id, path, content_hash, operator_class, artifact_type, format_name, size_bytes = written
    model_files.check_readable(format_name)
    _check_hash(checks.text(content_hash, "content_hash"))
    return {
        "artifact_id": artifact_id,
        "artifact_path": path,
        "content_hash": content_hash,
        "format": format_name,
        "size_bytes": checks.integer(size_bytes, "size_bytes", checks.INT64),
        "created_at": checks.now(),
        "origin": origin,
        **described_by(operator_class, artifact_type, {}),
    }


def saved_row(
    artifact_id: str, path: str, format_name: str, size_bytes: int, origin: str, described: dict[str, str]
) -> Row:
    """The row of content that is stored under its hash."""
    return {
        "artifact_id": artifact_id,
        "artifact_path": path,
        "content_hash": artifact_id,
        "format": format_name,
        "size_bytes": size_bytes,
        "created_at": checks.now(),
        "origin": origin,
        **described,
    }


def described_by(operator_class: str, artifact_type: str, cache_key: dict[str, str]) -> dict[str, str]:
    texts = {"operator_class": operator_class, "artifact_type": artifact_type, **cache_key}
    return {name: checks.text(value, name) for name, value in texts.items()}


def _check_hash(content_hash: str) -> None:
    digits = content_hash.removeprefix("sha256:")
    if len(digits) not in _HASH_LENGTHS or not set(digits) <= set("0123456789abcdef"):
        raise InvalidInputError(
            f"content_hash {content_hash!r} is neither 'sha256:' with 64 hex digits nor an xxh3-128 with 32"
        )
