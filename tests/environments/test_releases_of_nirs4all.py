"""Releases of nirs4all on this package's store, beside the same releases on their own.

`make test-embedded` builds the environments of two releases and runs a few sweeps, `make test-nirs4all` all of
both. What a release says of its workspace (`sweeps_of_nirs4all.py`) must be the same with either store.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from n4a_fast import WorkspaceStore

ROOT = Path(__file__).parents[2]
RELEASES = os.environ.get("N4A_RELEASES", "").split()
FEW, ALL = (
    ("variants", "failing", "cars", "killed"),
    (
        *("variants", "twenty", "hundred", "failing", "killed", "rerun", "session", "norefit", "branches", "merged"),
        *("targets", "two", "repetitions", "resampler", "cars", "mcuve", "exclude", "tag", "concat", "boosters"),
    ),
)
SINCE_1 = ("transfer", "jobs", "project")  # what 0.7.1 cannot do, or not on its own store
# earlier releases refuse this form of sources, and of stores that they unite keep what the second of the clock decides:
# a prediction replaces every other of its model, fold and partition, the newest first
SINCE_1_4 = ("sources", "united")
LABELLED = ("labels", "classes")  # texts and integers as classes: since 1.4 they come back as they were
# where this package's replay differs from that of 0.7.1 on purpose: stateless steps are run, what is lost is told,
# and folds vote on a class, where 0.7.1 averages its number
REPLAYED_HERE = ("branches", "merged", "exclude", "tag", "concat", *LABELLED)
# `Predictions.merge_stores` leaves summaries empty on nirs4all's own store; here they follow from the predictions
UNITED = {"united: summaries", *(f"united: best by {scope}" for scope in ("cv", "all", "final"))}
TOLERANCE = 1e-9

pytestmark = pytest.mark.skipif(not RELEASES, reason="`make test-embedded` builds the environments and runs this")


def run_on(release: str, ours: bool, folder: Path, *words: Any) -> str:
    """What a release prints that is given these words, with one of the stores, in a folder."""
    python = ROOT / f".venv-{'embedded' if ours else 'nirs4all'}-{release}" / "bin" / "python"
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "N4A_FAST_INSTALL": "1" if ours else ""}
    command = [*map(str, (python, "-W", "ignore", *words))]
    done = subprocess.run(command, env=variables, cwd=folder, text=True, capture_output=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def both_told(release: str, folder: Path, script: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a script says of a workspace of nirs4all's own store, and of one of ours."""
    told = []
    for ours, name in ((False, "theirs"), (True, "ours")):
        run_on(release, ours, folder, Path(__file__).with_name(script), name, f"{name}.json")
        told.append(json.loads((folder / f"{name}.json").read_text()))
        assert told[-1].pop("store").split(".")[0] == ("n4a_fast" if ours else "nirs4all")
    return told[0], told[1]


def answers(release: str, ours: bool, folder: Path, engine: str, kinds: tuple[str, ...]) -> tuple[dict[str, Any], Any]:
    """What a release says with one of the stores: plain values, and arrays, both by name."""
    name = f"{'ours' if ours else 'theirs'}-{release}-{engine}"
    target = folder / f"{name}.npz"
    run_on(
        release, ours, folder, Path(__file__).with_name("sweeps_of_nirs4all.py"), folder / name, target, engine, *kinds
    )
    with np.load(target, allow_pickle=True) as found:  # labels may be objects
        arrays = {key: found[key] for key in found.files if key != "told"}
        if release == "0.7.1":  # which forgets that probabilities have a column for each class, and targets for each
            arrays |= {key: found[key].ravel() for key in arrays if key.endswith(("/y_proba", "/y_true", "/y_pred"))}
        told: dict[str, Any] = json.loads(str(found["told"]))
    assert told.pop("store").startswith("n4a_fast" if ours else "nirs4all")
    return told, arrays


def kinds_of(release: str, engine: str) -> tuple[str, ...]:
    is_all = os.environ.get("N4A_SWEEPS") == "all"
    if engine != "legacy":
        return (
            "variants",
            "targets",
            *LABELLED,
            *(("rerun", "project", "norefit", "sources", "repetitions") if is_all else ()),
        )
    chosen = ALL if is_all else FEW
    if is_all and release.startswith("1."):
        chosen = (*chosen, *SINCE_1, *(SINCE_1_4 if release.startswith("1.4") else ()))
    return (*chosen, *LABELLED) if release.startswith(("0.7", "1.4")) else chosen


def is_compared(release: str, name: str) -> bool:
    if name in UNITED:
        return False
    return not (release == "0.7.1" and "replay of" in name and name.startswith(REPLAYED_HERE))


@pytest.mark.parametrize(
    ("release", "engine"),
    [(release, engine) for release in RELEASES for engine in (("legacy", "") if release == "1.4.10" else ("legacy",))],
)
def test_a_release_says_the_same_with_either_store(tmp_path: Path, release: str, engine: str) -> None:
    kinds = kinds_of(release, engine)
    (told, arrays), (wanted, reference) = (answers(release, ours, tmp_path, engine, kinds) for ours in (True, False))
    names = {name for name in wanted if is_compared(release, name)}
    assert {name for name in told if is_compared(release, name)} == names
    assert [name for name in sorted(names) if not same(told[name], wanted[name])] == []
    stored = {name for name in reference if is_compared(release, name)}
    assert {name for name in arrays if is_compared(release, name)} == stored
    assert [name for name in sorted(stored) if not same(arrays[name], reference[name])] == []
    assert told["unites stores"] == release.startswith("1.")
    assert len([name for name in names if "/" in name]) > 50
    assert sum("/y_pred" in name for name in stored) > 50
    assert any("replay of" in name for name in stored)


def test_one_store_takes_in_what_workers_on_each_release_have_stored(tmp_path: Path) -> None:
    """Plain nirs4all of all releases at once: scores and arrays as each of them tells, and a second time nothing."""
    told = [answers(release, False, tmp_path, "legacy", ("norefit",)) for release in RELEASES]
    sources = [tmp_path / f"theirs-{release}-legacy" / "norefit" for release in RELEASES]
    wanted = [
        [
            float(value)
            for name, row in said.items()
            if name.startswith("norefit/")
            for value in row[:3]
            if value is not None
        ]
        for said, _ in told
    ]
    with WorkspaceStore(tmp_path / "all") as store:
        for source in sources:
            store.merge(source)
        again = store.merge(*sources)
        rows = store.query_predictions()
        arrays = store.load_arrays(rows["prediction_id"].to_list(), columns=["y_pred"])
        assert store.verify().is_sound
    assert not any(table.added for table in again.tables)
    scores = [value for name in ("val_score", "test_score", "train_score") for value in rows[name].drop_nulls()]
    assert same(sorted(scores), sorted(value for found in wanted for value in found))
    predicted = [value for _, found in told for name, value in found.items() if name.endswith("/y_pred")]
    assert same(
        sorted(float(np.sum(each)) for each in arrays.y_pred), sorted(float(np.sum(each)) for each in predicted)
    )
    assert len(rows) == sum(name.startswith("norefit/") for said, _ in told for name in said) > 20 * len(RELEASES)


@pytest.mark.skipif("1.4.10" not in RELEASES, reason="who reads past the store is asked in 1.4.10")
def test_who_reads_a_workspace_past_the_store_finds_this_one(tmp_path: Path) -> None:
    """The catalogue of models, exports, views, lineage, the registry of artifacts, commands; explaining, retraining."""
    theirs, ours = both_told("1.4.10", tmp_path, "readers_of_nirs4all.py")
    assert [name for name in theirs if not same(ours[name], theirs[name])] == []
    assert ours["format"] == "sqlite-workspace-v2"
    assert all(ended == 0 for _, ended in ours["commands"])
    assert min(map(len, (ours["catalogue"], ours["exported"], ours["models"]["predicted"]))) >= 2


@pytest.mark.parametrize("release", [release for release in RELEASES if release.startswith("1.")])
def test_every_member_that_nirs4all_and_its_studio_reach_answers_as_nirs4all_s_own(
    tmp_path: Path, release: str
) -> None:
    """Public members of both classes, private ones reached from elsewhere, SQL, in the order of their arguments."""
    theirs, ours = both_told(release, tmp_path, "surface_of_nirs4all.py")
    assert ours["never asked"] == []
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not has(ours[name], theirs[name])] == []


MEMBERS = """
import inspect, json
from nirs4all.pipeline.storage import workspace_store as home
def places(method):
    parameters = inspect.signature(method).parameters.values() if inspect.isroutine(method) else ()
    return [each.name for each in parameters if each.kind <= each.POSITIONAL_OR_KEYWORD]
theirs, ours = home._n4a_fast_replaced, home.WorkspaceStore
names = [name for name in dir(theirs) if not name.startswith("_")]
told = [[name, places(getattr(theirs, name)), places(getattr(ours, name, None))] for name in names]
print(json.dumps(told))
"""


@pytest.mark.skipif("0.7.1" not in RELEASES, reason="1.x has a test of its own")
def test_every_public_member_of_0_7_1_takes_its_arguments_in_their_places(tmp_path: Path) -> None:
    members = json.loads(run_on("0.7.1", True, tmp_path, "-c", MEMBERS).splitlines()[-1])
    assert len(members) > 40
    assert [name for name, theirs, ours in members if ours[: len(theirs)] != theirs] == []


def has(found: Any, wanted: Any) -> bool:
    """Equal; a row of this store may have fields more."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(name in found and has(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(has, found, wanted))
    return same(found, wanted)


@pytest.mark.parametrize("release", RELEASES)
def test_the_demo_runs_through_each_release(tmp_path: Path, release: str) -> None:
    demo = (
        "import sys; from pathlib import Path; from rich.console import Console; from n4a_fast.cli.demo_nirs4all import"
        " Size, run_nirs4all_demo as run; sys.exit(run(Path('demo'), Console(width=100), Size(1, 1, 2)))"
    )
    told = run_on(release, True, tmp_path, "-c", demo)
    assert "2 variants" in told
    assert "refitted winner" in told


def same(found: Any, wanted: Any) -> bool:
    """Equal, numbers to the tolerance; a missing score is none or NaN."""
    if isinstance(wanted, np.ndarray):
        if found.shape != wanted.shape or found.dtype.kind != wanted.dtype.kind:
            return False
        if wanted.dtype.kind != "f":
            return bool(np.array_equal(found, wanted))
        tolerance = 1e-6 if wanted.dtype == np.float32 else TOLERANCE  # 0.7.1 averages what a booster gives as it is
        return bool(np.allclose(found, wanted, rtol=0, atol=tolerance, equal_nan=True))
    if isinstance(wanted, dict) and isinstance(found, dict):
        return found.keys() == wanted.keys() and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(found, float) and isinstance(wanted, str):  # numpy's numbers, which 0.7.1 writes as texts
        return abs(found - float(wanted)) <= 1e-5 * max(1.0, abs(found))
    if isinstance(found, float) and isinstance(wanted, float):
        return found == wanted or abs(found - wanted) <= TOLERANCE or (found != found and wanted != wanted)
    return bool(found == wanted)
