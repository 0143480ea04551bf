"""Hashes of open files without the GIL beside those of `hashlib`, and the sync after them."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from n4a_fast._native.files import sha256_then_sync
from n4a_fast.artifacts.verifying import _SHA256

pytestmark = pytest.mark.skipif(not _SHA256[0], reason="this Python's hashlib has no OpenSSL behind it")


def hashed(paths: list[Path], sizes: list[int], witness: int = -1) -> tuple[list[str | None], int]:
    descriptors = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        return sha256_then_sync(list(zip(descriptors, sizes, strict=True)), *_SHA256, witness)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 70_000), st.binary(min_size=1, max_size=8)), max_size=6))
def test_the_hashes_are_those_of_hashlib(tmp_path: Path, contents: list[tuple[int, bytes]]) -> None:
    paths, datas = [], [part * (size // len(part)) for size, part in contents]
    for number, data in enumerate(datas):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(data)
    assert hashed(paths, list(map(len, datas))) == ([hashlib.sha256(data).hexdigest() for data in datas], 0)


def test_a_file_of_another_size_and_what_cannot_be_read_have_none(tmp_path: Path) -> None:
    (path := tmp_path / "file").write_bytes(b"12345")
    found, error = hashed([path, path, tmp_path, path], [4, 6, 5, 5])
    assert (found, error) == ([None, None, None, hashlib.sha256(b"12345").hexdigest()], 0)


def test_the_error_of_the_sync_is_told(tmp_path: Path) -> None:
    assert hashed([], [], os.open(tmp_path, os.O_RDONLY)) == ([], 0)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.close(descriptor)
    assert hashed([], [], descriptor) == ([], errno.EBADF)


@pytest.mark.parametrize("files", [[(1,)], [1], [("a", 1)], [(0, -1)], None])
def test_what_is_no_descriptor_and_size_is_refused(files: object) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        sha256_then_sync(files, *_SHA256, -1)  # type: ignore[arg-type]
