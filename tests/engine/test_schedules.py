"""Random schedules of everything that locks, by threads of several processes some of which are killed, end."""

from __future__ import annotations

from pathlib import Path

import pytest
from schedules import play


@pytest.mark.long
@pytest.mark.not_on("windows", reason="signals, and folders that others have open")
def test_a_random_schedule_of_several_processes_ends_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    play(tmp_path, 1, victims=1, threads=2, steps=4)
