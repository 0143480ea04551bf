"""File operations of every writing call refused: an error of ours, or the work is done; usable at once afterwards.

Some operations of each call here; `make fault-grid` takes all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from campaign import compiled
from faults import CALLS

STRIDE = int(os.environ.get("N4A_FAULT_STRIDE", "40"))
_PROGRAM = Path(__file__).with_name("faults.py")
_SECONDS = 3000.0


@pytest.mark.parametrize("call", CALLS)
def test_a_refused_operation_is_told_and_nothing_acknowledged_is_lost(call: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "LD_PRELOAD": str(compiled(tmp_path)),
        "PYTHONPATH": os.pathsep.join([str(_PROGRAM.parents[1]), *sys.path]),
    }
    (tmp_path / "place").mkdir()
    done = subprocess.run(
        [sys.executable, str(_PROGRAM), call, str(tmp_path / "place"), str(STRIDE)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    *wrong, faults = map(json.loads, done.stdout.splitlines())
    print(f"{call}: {faults} faults, {len(wrong)} problems")
    assert faults
    assert not wrong, "\n".join(": ".join(each) for each in wrong[:20])
