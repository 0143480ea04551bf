"""What reading a bundle may take is counted over all its members: bytes that they unpack to."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest

from n4a_fast import WorkspaceStore, inspect_bundle
from n4a_fast.artifacts.pickles import Budget, contents_of
from n4a_fast.errors import BundleError, InvalidInputError

MEGABYTE = 2**20


def bundle(path: Path, members: list[bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps({"bundle_format_version": "1.0"}))
        for turn, data in enumerate(members):
            archive.writestr(f"artifacts/step_{turn + 1}_sub0.joblib", data)
    return path


def bomb(nbytes: int) -> bytes:
    """A compressed pickle that is one long value."""
    return zlib.compress(b"\x80\x04B" + nbytes.to_bytes(4, "little") + bytes(nbytes) + b".", 9)


def many_opcodes(count: int) -> bytes:
    """A file of joblib's with an array, and as many values beside it."""
    buffer = io.BytesIO()
    joblib.dump([np.arange(3.0), None], buffer)
    return buffer.getvalue()[:2] + b"N0" * (count // 2) + buffer.getvalue()[2:]


@pytest.mark.parametrize("read", [inspect_bundle, "import"])
def test_compressed_operators_share_what_they_may_unpack_to(tmp_path: Path, read: object) -> None:
    path = bundle(tmp_path / "b.n4a", [bomb(3 * MEGABYTE)] * 4)
    with pytest.raises(BundleError, match="larger max_bytes"):
        if read == "import":
            with WorkspaceStore(tmp_path / "w") as store:
                store.import_chain(path, max_bytes=8 * MEGABYTE)
        else:
            inspect_bundle(path, max_bytes=8 * MEGABYTE)
    assert len(inspect_bundle(path, max_bytes=40 * MEGABYTE).members) == 5


@pytest.mark.parametrize("sizes", [[64], [7], [3] * 20, [5, 2, 9]])
def test_reading_takes_twice_the_limit_at_most(tmp_path: Path, sizes: list[int]) -> None:
    path = bundle(tmp_path / "b.n4a", [bomb(size * MEGABYTE) for size in sizes])
    tracemalloc.start()
    try:
        inspect_bundle(path, max_bytes=8 * MEGABYTE)
    except BundleError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= 2.1 * 8 * MEGABYTE


def test_many_values_beside_joblibs_arrays_take_no_room() -> None:
    budget = Budget(MEGABYTE)
    assert contents_of(many_opcodes(2_000_000), budget).globals
    with pytest.raises(InvalidInputError, match="more values"):
        contents_of(many_opcodes(2).replace(b"N0", b"N" * 200_000, 1), budget)


@pytest.mark.long
def test_an_lzma_file_cannot_ask_for_a_large_dictionary() -> None:
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}]
    with pytest.raises(InvalidInputError):
        contents_of(lzma.compress(b"\x80\x04N.", filters=filters))
    assert contents_of(lzma.compress(b"\x80\x04N.")).globals == ()
