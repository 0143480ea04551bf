"""Artifacts against compressed joblib files, against plain reading, and against the folder's own size."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from copy import copy
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Measure, gate, report
from limits import BareFiles
from reference import CompressedArtifacts
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import RandomForestRegressor

from n4a_fast import WorkspaceStore
from n4a_fast.artifacts.files import relative_path
from n4a_fast.schema.columns import CHAIN_ARTIFACTS, STORED_ARTIFACTS, table_of

MODELS = 100
COMPRESSED = "joblib.dump(compress=3) and sha256, no rows, no fsync"
RNG = np.random.default_rng(0)
X, Y = RNG.random((120, 700)), RNG.random(120)
PLS = PLSRegression(10).fit(X, Y)


def model(number: int) -> PLSRegression:
    """A PLS model (10 x 700, 248 kB) with content of its own."""
    made = PLSRegression(10)
    vars(made).update(vars(PLS), coef_=PLS.coef_ + number)
    return made


def save_pipeline(store: WorkspaceStore, objects: list[Any]) -> list[str]:
    """One pipeline's artifacts, durable on return."""
    pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "corn", "h")
    ids = [store.save_artifact(obj, "PLSRegression", "model", "joblib") for obj in objects]
    store.save_chain(
        pipeline, [], 1, "PLSRegression", "", "per_fold", {f"fold_{fold}": name for fold, name in enumerate(ids)}, {}
    )
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 10)
    return ids


@pytest.fixture
def plain(tmp_path: Path) -> CompressedArtifacts:
    return CompressedArtifacts(tmp_path / "compressed")


@pytest.fixture
def bare(tmp_path: Path) -> BareFiles:
    return BareFiles(tmp_path / "bare")


def beside(measure: Measure, limit: Callable[[], object], ours: Callable[[], object], rounds: int = 5) -> None:
    """Note which share of what the machine can do at most ours is, both in turns."""
    shares = []
    for _ in range(rounds):
        seconds = []
        for call in (limit, ours):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        shares.append(seconds[0] / seconds[1])
    measure.note(share_of_pickle_and_bare_files=statistics.median(shares))


@gate(
    "save_new_artifacts_vs_compressed",
    workload="100 new PLS(10 x 700), durable with their pipeline",
    baseline=f"{COMPRESSED}; 10 of them",
    size=MODELS,
    seed=0,
    threads=1,
)
def test_saving_new_content(
    measure: Measure, store: WorkspaceStore, plain: CompressedArtifacts, bare: BareFiles
) -> None:
    numbers, others = count(), count(10**6)
    saved: list[str] = []

    def save() -> None:
        saved.extend(save_pipeline(store, [model(next(numbers)) for _ in range(MODELS)]))

    save()
    beside(measure, lambda: bare.save([model(next(others)) for _ in range(MODELS)]), save)
    measure.ratio(lambda: [plain.save(model(next(others))) for _ in range(10)], save, rounds=9, scale=10.0)
    assert len(set(saved)) == len(saved) >= MODELS
    assert np.array_equal(store.load_artifact(saved[-1]).coef_, PLS.coef_ + next(numbers) - 1)


@gate(
    "save_known_artifacts_vs_compressed",
    workload="the same 100 PLS(10 x 700) again, with their pipeline",
    baseline=f"{COMPRESSED}; 10 of them, known",
    size=MODELS,
    seed=0,
    threads=1,
)
def test_saving_known_content(measure: Measure, store: WorkspaceStore, plain: CompressedArtifacts) -> None:
    objects = [model(number) for number in range(MODELS)]
    first = save_pipeline(store, objects)
    found: list[list[str]] = []
    measure.ratio(
        lambda: [plain.save(obj) for obj in objects[:10]],
        lambda: found.append(save_pipeline(store, objects)),
        rounds=9,
        scale=10.0,
    )
    assert found[-1] == first
    assert store.sql("SELECT min(ref_count) AS n FROM artifacts")["n"][0] == len(found) + 1


@gate(
    "load_artifacts_vs_compressed",
    workload="load_artifact of 100 PLS(10 x 700), each verified and unpickled",
    baseline="joblib.load of 20, not verified",
    size=MODELS,
    seed=0,
    threads=1,
)
def test_loading(measure: Measure, store: WorkspaceStore, plain: CompressedArtifacts, bare: BareFiles) -> None:
    objects = [model(number) for number in range(MODELS)]
    ids, paths, names = save_pipeline(store, objects), bare.save(objects), [plain.save(obj) for obj in objects[:20]]
    beside(measure, lambda: bare.load(paths), lambda: [store.load_artifact(name) for name in ids])
    measure.ratio(
        lambda: [plain.load(name) for name in names],
        lambda: [store.load_artifact(name) for name in ids],
        rounds=15,
        scale=5.0,
    )
    assert np.array_equal(store.load_artifact(ids[7]).coef_, PLS.coef_ + 7)
    assert store.load_artifact(ids[0]) is not store.load_artifact(ids[0])


def forests() -> Callable[[], RandomForestRegressor]:
    """A RandomForest(100) whose content is new at each call."""
    rows = np.random.default_rng(1).random((300, 21))
    forest, number = RandomForestRegressor(100, random_state=0, n_jobs=1).fit(rows[:, :20], rows[:, 20]), count()

    def new() -> RandomForestRegressor:
        made = copy(forest)
        made.number = next(number)
        return made

    return new


@gate(
    "save_forest_vs_compressed",
    workload="save of 5 new RandomForest(100), durable with their pipeline",
    baseline=f"{COMPRESSED}; one of them",
    size=5,
    seed=0,
    threads=1,
)
def test_saving_a_forest(measure: Measure, store: WorkspaceStore, plain: CompressedArtifacts, bare: BareFiles) -> None:
    new = forests()
    saved: list[str] = []

    def save() -> None:
        saved.extend(save_pipeline(store, [new() for _ in range(5)]))

    save()
    beside(measure, lambda: bare.save([new() for _ in range(5)]), save)
    measure.ratio(lambda: plain.save(new()), save, rounds=9, scale=5.0)
    assert len(set(saved)) == len(saved)
    assert store.load_artifact(saved[-1]).predict(X[:3, :20]).shape == (3,)


@gate(
    "load_forest_vs_compressed",
    workload="load of a RandomForest(100), verified",
    baseline="joblib.load, not verified",
    size=100,
    seed=0,
    threads=1,
)
def test_loading_a_forest(measure: Measure, store: WorkspaceStore, plain: CompressedArtifacts, bare: BareFiles) -> None:
    new = forests()
    forest = new()
    (saved,), name, paths = save_pipeline(store, [forest]), plain.save(forest), bare.save([forest])
    beside(measure, lambda: bare.load(paths), lambda: store.load_artifact(saved), rounds=9)
    measure.ratio(lambda: plain.load(name), lambda: store.load_artifact(saved), rounds=15)
    assert np.array_equal(store.load_artifact(saved).predict(X[:5, :20]), forest.predict(X[:5, :20]))


def read_all(root: Path) -> int:
    """Bytes of every artifact file, read as fast as plain reading goes."""
    total = 0
    for folder in sorted(root.glob("??")):
        for name in sorted(os.listdir(folder)):
            descriptor = os.open(folder / name, os.O_RDONLY)
            total += len(os.read(descriptor, os.fstat(descriptor).st_size))
            os.close(descriptor)
    return total


def verified(measure: Measure, store: WorkspaceStore, artifacts: int, rounds: int) -> int:
    """Measure it; how many were verified."""
    content = RNG.random(25_000)
    for first in range(0, artifacts, 500):
        save_pipeline(store, [content + number for number in range(first, first + 500)])
    root = store.workspace_path / "artifacts"
    reports = []
    measure.ratio(lambda: read_all(root), lambda: reports.append(store.verify_artifacts()), rounds=rounds)
    assert reports[-1]
    assert reports[-1].nbytes == read_all(root) > artifacts * 200_000
    return reports[-1].checked


@gate(
    "verify_artifacts_vs_reading",
    workload="verify_artifacts of 1,000 files of 200 kB",
    baseline="reading the same files",
    size=1_000,
    seed=0,
    threads=1,
)
def test_verifying(measure: Measure, store: WorkspaceStore) -> None:
    assert verified(measure, store, 1_000, 9) == 1_000


@report(
    "verify_many_artifacts_vs_reading",
    workload="verify_artifacts of 10,000 files of 200 kB",
    baseline="reading the same files",
    size=10_000,
    seed=0,
    threads=1,
)
def test_verifying_many(measure: Measure, store: WorkspaceStore) -> None:
    assert verified(measure, store, 10_000, 3) == 10_000


@gate(
    "register_known_artifact_vs_stat",
    workload="1,000 register_existing_artifact of a known id",
    baseline="os.stat of its file, 1,000 times",
    size=1_000,
    seed=0,
    threads=1,
)
def test_registering_a_known_id(measure: Measure, store: WorkspaceStore) -> None:
    (known,) = save_pipeline(store, [PLS])
    path = relative_path(known, "joblib")
    described = (known, path, known, "PLSRegression", "model", "joblib", 248_000)
    file = store.workspace_path / "artifacts" / path

    def register() -> None:
        for _ in range(1_000):
            store.register_existing_artifact(*described)

    register()
    start = time.perf_counter()
    register()
    measure.note(microseconds=1e3 * (time.perf_counter() - start))
    measure.work(lambda: [os.stat(file) for _ in range(1_000)], register)
    assert store.sql("SELECT count(*) AS n FROM artifacts")["n"][0] == 1


def fill_folder(store: WorkspaceStore, used: int) -> None:
    """Artifacts that a chain refers to: tiny files and rows, put there at once."""
    root, moment = store.workspace_path / "artifacts", store.sql("SELECT now()::TIMESTAMP AS t")["t"][0]
    names = [f"{number % 256:02x}{number:030x}" for number in range(used)]
    for folder in {name[:2] for name in names}:
        (root / folder).mkdir(exist_ok=True)
    rows: list[tuple[Any, ...]] = []
    for name in names:
        path = relative_path(name, "joblib")
        os.close(os.open(root / path, os.O_CREAT | os.O_WRONLY))
        rows.append((name, path, name, "m", "model", "joblib", 0, None, None, None, moment, "saved", None))
    database = store._open().database
    with database.transaction():
        database.insert(
            "INSERT INTO stored_artifacts BY NAME SELECT * FROM batch", batch=table_of(rows, STORED_ARTIFACTS)
        )
        database.insert(
            "INSERT INTO chain_artifacts BY NAME SELECT * FROM batch",
            batch=table_of([("c", name, False) for name in names], CHAIN_ARTIFACTS),
        )


def add_orphans(store: WorkspaceStore, orphans: int) -> list[Path]:
    """Files without rows, still too young to be collected."""
    paths = [
        store.workspace_path / "artifacts" / f"{number % 256:02x}" / f"{number % 256:02x}f{number:029x}.joblib"
        for number in range(orphans)
    ]
    for path in paths:
        path.touch()
    return paths


def stat_folder(root: Path) -> int:
    return sum(1 for folder in root.glob("??") for entry in os.scandir(folder) if entry.stat().st_size >= 0)


def collected(measure: Measure, store: WorkspaceStore, used: int, orphans: int, rounds: int) -> set[int]:
    """Measure it; how many orphans a collection removed."""
    fill_folder(store, used)
    root = store.workspace_path / "artifacts"
    seconds, removed = [], []

    def collect() -> None:
        start = time.perf_counter()
        removed.append(store.gc_artifacts())
        seconds.append(time.perf_counter() - start)

    def look_plainly() -> None:
        for path in [young.pop() for _ in range(orphans)]:
            os.utime(path, (0, 0))  # of a process that was killed long ago
        stat_folder(root)

    young = add_orphans(store, orphans * (rounds + 1))
    measure.ratio(look_plainly, collect, rounds=rounds)
    measure.note(seconds=min(seconds))
    assert (
        len(list(root.glob("??/*"))) == used == len(store.sql("SELECT artifact_id FROM artifacts WHERE ref_count = 1"))
    )
    return set(removed)


@gate(
    "gc_orphans_vs_stat",
    workload="gc_artifacts of 1,000 orphans among 20,000 artifacts",
    baseline="scandir and stat of the folder, 1,000 utime",
    size=20_000,
    seed=None,
    threads=1,
)
def test_collecting(measure: Measure, store: WorkspaceStore) -> None:
    assert collected(measure, store, 20_000, 1_000, 5) == {1_000}


@report(
    "gc_orphans_among_many",
    workload="gc_artifacts of 1,000 orphans among 100,000 artifacts",
    baseline="scandir and stat of the folder, 1,000 utime",
    size=100_000,
    seed=None,
    threads=1,
)
def test_collecting_among_many(measure: Measure, store: WorkspaceStore) -> None:
    assert collected(measure, store, 100_000, 1_000, 3) == {1_000}
