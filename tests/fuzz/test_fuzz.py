"""Hostile pickles run nothing, end nothing and are told as errors of ours; so are mutated files of every kind.

`make fuzz` reads a hundred thousand of them. Everything is read in child processes, which may die.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from fuzzing import MEMORY, drawn, fuzz, one
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
    for name, data in tricks(str(mark)).items():
        for mode, setting in MODES.items():
            signal.alarm(30)
            told.send((name, mode, _outcome(data, setting, mark)))
    told.send(None)


def _outcome(data: bytes, setting: Any, mark: Path) -> str:
    said = []
    try:
        contents_of(data)
    except InvalidInputError:
        said.append("unreadable")
    try:
        trust(setting).loads("a", data, "joblib", "imported")
        said.append("loaded")
    except StoreError:
        said.append("refused")
    return "RAN" if mark.exists() else said[-1]


def test_no_trick_runs_dies_hangs_or_raises_what_is_not_ours(tmp_path: Path) -> None:
    assert len(tricks("x")) >= 60
    receiving, told = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=_read, args=(tmp_path, told))
    child.start()
    told.close()
    outcomes = {}
    try:
        while (said := receiving.recv()) is not None:
            outcomes[said[:2]] = said[2]
    except EOFError:
        pytest.fail(f"the child ended after {list(outcomes)[-1:]}")
    finally:
        child.join()
    assert len(outcomes) == len(tricks("x")) * len(MODES)
    assert {key: outcome for key, outcome in outcomes.items() if outcome != "refused"} == {}


def test_a_sample_of_mutated_files_of_every_kind() -> None:
    seeds = range(FIRST, FIRST + SAMPLE)
    assert fuzz(seeds) == (seeds, [])
    assert {drawn(random.Random(seed), None)[0] for seed in seeds} == {*KINDS} - {"faulty"}


# a member without a name, weights of folds in two dimensions, labels of them, a label beyond its dtype, and a tree of
# places whose state has one place
FOUND = (221104, 223269, 227943, 227679, 1052425)


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_once_stays_mended(seed: int, tmp_path: Path) -> None:
    one(seed, tmp_path)
    assert not (tmp_path / "mark").exists()


def test_the_fuzzer_tells_what_goes_wrong() -> None:
    told = " ".join(fuzz(range(12), "faulty")[1])
    assert "DIED with -11" in told
    assert "KeyError" in told
    assert "RAN" in told
