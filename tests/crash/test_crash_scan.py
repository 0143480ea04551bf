"""Every write of a program torn, power lost before every sync: the store opens with all that was acknowledged.

Some states of each workload here; `make crash-scan` takes all of them.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from recorded import WORKLOADS
from scan import Checker, recorded

STATES = int(os.environ.get("N4A_CRASH_STATES", "5"))  # of each workload
SEED = int(os.environ.get("N4A_CRASH_SEED", "1"))


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_state_opens_with_all_that_was_acknowledged(workload: str, tmp_path: Path) -> None:
    program = recorded(workload, tmp_path)
    moments = sorted(random.Random(SEED).sample(program.moments(), STATES))
    checker, looked_at, known, wrong = Checker(tmp_path), 0, set[str](), list[str]()
    try:
        for state in program.states(moments, SEED):
            looked_at += 1
            if (digest := state.digest()) not in known:
                known.add(digest)
                wrong += checker.problems(state)
    finally:
        checker.close()
    print(f"{workload}: {looked_at} states, {len(known)} different ones, {len(wrong)} problems")
    assert looked_at == len(moments) > 0
    assert not wrong, "\n".join(wrong[:20])
