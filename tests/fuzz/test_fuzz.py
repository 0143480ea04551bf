"""Hostile pickles run nothing, end nothing and are told as errors of ours; so are mutated files of every kind.

`make fuzz` reads a hundred thousand of them. Everything is read in child processes, which may die.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fuzzing import MEMORY, SECONDS, drawn, fuzz, one
from hostile import KINDS, MODES
from tricks import tricks

from n4a_fast.artifacts.pickles import contents_of
from n4a_fast.artifacts.trust import trust
from n4a_fast.errors import InvalidInputError, StoreError

# where the sample begins; `make fuzz` begins at zero
FIRST = 80
SAMPLE = 80


def _read(root: Path, told: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    mark = root / "mark"
    made = tricks(str(mark))
    told.send(len(made))
    for name, data in made.items():
        signal.alarm(SECONDS)
        with suppress(InvalidInputError):
            contents_of(data)
        for mode, setting in MODES.items():
            told.send((name, mode, _outcome(data, setting, mark)))
    told.send(None)


def _outcome(data: bytes, setting: Any, mark: Path) -> str:
    try:
        trust(setting).loads("a", data, "joblib", "imported")
        said = "loaded"
    except StoreError:
        said = "refused"
    return "RAN" if mark.exists() else said


def test_no_trick_runs_dies_hangs_or_raises_what_is_not_ours(tmp_path: Path) -> None:
    receiving, told = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=_read, args=(tmp_path, told))
    child.start()
    told.close()
    outcomes = {}
    try:
        made = receiving.recv()
        while (said := receiving.recv()) is not None:
            outcomes[said[:2]] = said[2]
    except EOFError:
        pytest.fail(f"the child ended after {list(outcomes)[-1:]}")
    finally:
        child.join()
    assert len(outcomes) == made * len(MODES)
    assert made >= 60
    assert {key: outcome for key, outcome in outcomes.items() if outcome != "refused"} == {}


def test_a_sample_of_mutated_files_of_every_kind() -> None:
    seeds = range(FIRST, FIRST + SAMPLE)
    assert fuzz(seeds) == (seeds, [])
    assert {drawn(random.Random(seed), None)[0] for seed in seeds} == {*KINDS} - {"faulty"}


# a member without a name, weights of folds in two dimensions, labels of them, a label beyond its dtype, and a tree of
# places whose state has one place
FOUND = (221104, 223269, 227943, 227679, 1052425)


@pytest.mark.parametrize("seed", FOUND)
@pytest.mark.long
def test_what_was_found_once_stays_mended(seed: int, tmp_path: Path) -> None:
    one(seed, tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.slow
def test_the_fuzzer_tells_what_goes_wrong() -> None:
    told = " ".join(fuzz(range(2, 5), "faulty")[1])  # one of each
    assert "DIED with -11" in told
    assert "KeyError" in told
    assert "RAN" in told
