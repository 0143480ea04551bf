"""Every write of a sweep torn, power lost before every sync: the store opens with all that was acknowledged.

A few states of each workload here; `make crash-scan` takes all of them.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from recorded import WORKLOADS
from recording import built_recorder
from scan import Checker, recorded, states

SHARE = float(os.environ.get("N4A_CRASH_SCAN", "0.02"))  # of all states
SEED = int(os.environ.get("N4A_CRASH_SCAN_SEED", "1"))


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_state_opens_with_all_that_was_acknowledged(workload: str, tmp_path: Path) -> None:
    disk, done = recorded(workload, tmp_path, built_recorder(tmp_path))
    dice, checker, looked_at, wrong = random.Random(SEED), Checker(tmp_path), 0, list[str]()
    try:
        for state in states(disk, done, dice):
            if dice.random() < SHARE:
                looked_at += 1
                wrong += checker.problems(state)
    finally:
        checker.close()
    print(f"{workload}: {looked_at} states, {len(wrong)} problems")
    assert looked_at
    assert not wrong, "\n".join(wrong[:20])
