"""1,000 chains on a million spectra of 700 wavelengths, from a mapped file into a `.npy` file: make bench-million, or

    python benchmarks/million_spectra.py --spectra 100000 --folder /tmp/million

Reads 5.6 GB and writes 8, neither of them in the cache of files before. What the disk can do is measured in the same
run: as many bytes are written, synced and read again plainly. Nothing is left in the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from chains import WIDTH, Chains, PlainChain, fill, spectra
from reference import replay_one

from n4a_fast import WorkspaceStore

CHAINS, AT_A_TIME, CHUNK = 1_000, 10_000, 2**23


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("build/million"))
    parser.add_argument("--max-bytes", type=int, default=2**29)
    parser.add_argument("--prepare", action="store_true", help="make what is measured, and keep it for the next call")
    parser.add_argument("--replay", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replay:
        replay(given.folder, given.max_bytes)
        return
    if not given.folder.exists():
        prepare(given.folder, given.spectra)
    if not given.prepare:
        try:
            compare(given.folder, given.max_bytes)
        finally:
            shutil.rmtree(given.folder)


def prepare(folder: Path, rows: int) -> None:
    """Chains that were compiled, in a workspace, and spectra."""
    folder.mkdir(parents=True)
    with WorkspaceStore(folder / "workspace") as store:
        chains = fill(store, CHAINS, prefixes=8, pool=12)
        store.replay_chains(chains.ids, spectra(100))
    (folder / "chains").write_bytes(pickle.dumps(chains))
    write_spectra(folder / "X.npy", rows)


def compare(folder: Path, max_bytes: int) -> None:
    """Prints the limit of the disk and what the replay took."""
    chains: Chains = pickle.loads((folder / "chains").read_bytes())
    rows, read = len(np.load(folder / "X.npy", mmap_mode="r")), (folder / "X.npy").stat().st_size
    written = 8 * CHAINS * rows
    command = [sys.executable, __file__, "--replay", "--folder", str(folder), "--max-bytes", str(max_bytes)]
    forget(folder / "X.npy")
    took = json.loads(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout)
    speed = f"{took['seconds']:6.1f} s, {took['cpu']:.1f} s of processor time"
    print(f"{rows:,} spectra {speed}, {took['memory'] / 1e6:.0f} MB of memory", flush=True)
    check(folder, chains.objects.__getitem__, chains.plain)
    (folder / "Y.npy").unlink()
    forget(folder / "X.npy")
    disk = plain_write(folder / "plain", written) + plain_read(folder / "X.npy")
    print(f"disk alone {disk:6.1f} s: {written / 1e9:.1f} GB written durably, then {read / 1e9:.1f} GB read")


def replay(folder: Path, max_bytes: int) -> None:
    """In a process of its own, for its memory is counted."""
    ids = pickle.loads((folder / "chains").read_bytes()).ids
    begun = time.perf_counter()
    with WorkspaceStore(folder / "workspace") as store:
        X = np.load(folder / "X.npy", mmap_mode="r")
        store.replay_chains(ids, X, out=folder / "Y.npy", threads=2, max_bytes=max_bytes)
    seconds, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss * 1024}))


def check(folder: Path, load: Any, plain: list[PlainChain]) -> None:
    X, Y = (np.load(folder / name, mmap_mode="r") for name in ("X.npy", "Y.npy"))
    for number in (0, 499, 999):
        some = slice(len(X) // 1000 * number, len(X) // 1000 * number + 50)
        expected = replay_one(load, *plain[number], np.array(X[some]))
        assert np.abs(Y[number, some] - expected).max() <= 1e-11 * np.abs(expected).max()


def write_spectra(path: Path, rows: int) -> None:
    """Some spectra again and again, each time a little stronger."""
    some = spectra(AT_A_TIME)
    with new_array(path, rows) as values:
        for number, first in enumerate(range(0, rows, AT_A_TIME)):
            values.write(some[: rows - first] * (1.0 + 1e-3 * number))


@contextmanager
def new_array(path: Path, rows: int) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (rows, WIDTH)})
        yield file
        file.flush()
        os.fsync(file.fileno())


def plain_write(path: Path, size: int) -> float:
    block, begun = np.random.default_rng(0).bytes(CHUNK), time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(-(-size // CHUNK)):
            file.write(block)
        os.fsync(file.fileno())
    return time.perf_counter() - begun


def plain_read(path: Path) -> float:
    block, begun = bytearray(CHUNK), time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass
    return time.perf_counter() - begun


def forget(path: Path) -> None:
    """Take a file out of the cache of files."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
