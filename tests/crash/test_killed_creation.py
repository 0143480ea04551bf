"""A process killed, or refused by the disk, within a file operation of making a workspace: opened again, it is made, or
is there whole.
"""

from __future__ import annotations

import errno
from itertools import product
from pathlib import Path

import pytest
from campaign import SHIM
from helpers import finish, library, program
from sampling import some

from n4a_fast import WorkspaceStore

# forks a process for each operation: it is killed within it, or refused it, making a workspace of its own; prints what
# it was told. The first workspace of a process is made by DDL, a later one is a copy
_MAKER = """
import ctypes, os, sys
from pathlib import Path
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError

folder, how, error, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
shim, number, reached = ctypes.CDLL(None), 1, True
if how == "copy":
    WorkspaceStore(folder / "first").close()
while reached:
    number += step
    told, tells = os.pipe()
    process = os.fork()
    if not process:
        place, nth = folder / f"number {number}", ctypes.c_ulong(number)
        place.mkdir()
        if error:
            shim.crash_fail(str(place).encode(), nth, error, False)
        else:
            shim.crash_die(str(place).encode(), nth)
        try:
            WorkspaceStore(place).close()
        except StoreError:
            os.write(tells, b"told")
        os.write(tells, b"." if error and not shim.crash_refused() else b"")
        os._exit(0)
    os.close(tells)
    ended = os.waitpid(process, 0)[1]
    said = os.read(told, 9)
    os.close(told)
    reached = said != b"." if error else ended != 0
    assert ended == 0 or not error, (number, ended)
"""
STEP = 5  # operations from one to the next
_KILLED = 0


@pytest.mark.parametrize(("how", "error"), some(product(["copy", "DDL"], [_KILLED, errno.ENOSPC, errno.EIO]), 2))
def test_a_workspace_whose_making_was_cut_is_made_by_opening_it(tmp_path: Path, how: str, error: int) -> None:
    finish(program("-c", tmp_path, how, error, STEP, code=_MAKER, LD_PRELOAD=str(library(SHIM))))
    places, ids = sorted(tmp_path.glob("number *")), set()
    assert len(places) > 4
    for place in places:
        with WorkspaceStore(place) as store:
            assert store.list_runs().height == 0
            ids.add(store._open().database.identity.store_id)
            findings = store.verify(quick=True, repair=True).findings
            assert all(finding.is_leftover for finding in findings)
    assert len(ids) == len(places)
