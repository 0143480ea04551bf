"""Every write of a program torn, power lost before every sync: the store opens with all that was acknowledged.

Some states of each workload here; `make crash-scan` takes all of them.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from recorded import WORKLOADS
from sampling import some
from scan import Checker, recorded

from n4a_fast.durable.duckdb_file import FIRST_BLOCK

STATES = int(os.environ.get("N4A_CRASH_STATES", "3"))  # of each workload
SEED = int(os.environ.get("N4A_CRASH_SEED", "1"))


@pytest.mark.parametrize("workload", ["checkpoints", "backup"])
def test_each_checkpoint_has_a_log_whose_name_survives_a_power_loss(workload: str, tmp_path: Path) -> None:
    """The log of an earlier one must not come back, and that of this one tells which pages it may have torn."""
    program = recorded(workload, tmp_path)
    disk, checkpoints = program.disk.copy(), 0
    for operation in program.done:
        is_written = operation.kind == "W" and operation.name.endswith("workspace/store.duckdb")
        if is_written and 0 < operation.offset < FIRST_BLOCK:  # the header that a checkpoint ends with
            checkpoints += 1
            assert disk.is_named(f"{operation.name}.wal"), f"checkpoint {checkpoints}"
        disk.play(operation)
    assert checkpoints >= {"checkpoints": 5, "backup": 2}[workload]


@pytest.mark.parametrize("workload", some(WORKLOADS, 5))
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
