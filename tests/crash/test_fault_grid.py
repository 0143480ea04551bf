"""File operations of every writing call refused: an error of ours, or the work is done; usable at once afterwards.

Some operations of each call here; `make fault-grid` takes all of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from campaign import SHIM
from faults import CALLS
from helpers import finish, library, program
from sampling import some

STRIDE = int(os.environ.get("N4A_FAULT_STRIDE", "144"))
_PROGRAM = Path(__file__).with_name("faults.py")
_SECONDS = 3000.0


@pytest.mark.parametrize("call", some(CALLS, 3))
def test_a_refused_operation_is_told_and_nothing_acknowledged_is_lost(call: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    told = finish(program(_PROGRAM, call, place, STRIDE, LD_PRELOAD=str(library(SHIM))), timeout=_SECONDS)
    *wrong, faults = map(json.loads, told.splitlines())
    print(f"{call}: {faults} faults, {len(wrong)} problems")
    assert faults
    assert not wrong, "\n".join(": ".join(each) for each in wrong[:20])
