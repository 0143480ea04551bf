"""What it costs to ask before anything of a file is made, against loading it unasked."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import joblib
import names_alone
import numpy as np
from harness import Measure, gate
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from n4a_fast.artifacts import codec
from n4a_fast.artifacts.trust import trust

RNG = np.random.default_rng(0)
X, Y = RNG.random((200, 200)), RNG.random(200)
SMALL, TREES = "a scaler, a PLS, an SVR and a network", "100 trees of a forest, of two boosted models"
GATE = trust("workspace")


def small() -> list[Any]:
    return [
        StandardScaler().fit(X),
        PLSRegression(10).fit(X, Y),
        SVR().fit(X, Y),
        MLPRegressor(hidden_layer_sizes=(50,), max_iter=300, random_state=0).fit(X, Y),
    ]


def trees() -> list[Any]:
    return [
        RandomForestRegressor(100, random_state=0).fit(X, Y),
        GradientBoostingRegressor(n_estimators=100, random_state=0).fit(X, Y),
        HistGradientBoostingRegressor(max_iter=100, random_state=0).fit(np.tile(X, (3, 1)), np.tile(Y, 3)),
    ]


def by_joblib(model: Any) -> bytes:
    """A file as nirs4all writes it, with arrays between the opcodes."""
    written = io.BytesIO()
    joblib.dump(model, written)
    return written.getvalue()


def compare(measure: Measure, files: list[bytes], plainly: Callable[[bytes], Any], origin: str) -> bool:
    """Load each file both ways in turns, small ones many times a round; whether they are alike."""
    times = 20 if sum(map(len, files)) < 10**6 else 3

    def unasked() -> list[Any]:
        return [plainly(data) for _ in range(times) for data in files]

    def asked() -> list[Any]:
        return [GATE.loads("a", data, "joblib", origin) for _ in range(times) for data in files]

    measure.ratio(unasked, asked, rounds=15)
    pairs = list(zip(asked(), unasked(), strict=True))
    return len(pairs) == times * len(files) and all(np.array_equal(_used(one), _used(other)) for one, other in pairs)


def _used(model: Any) -> Any:
    return model.predict(X[:5]) if hasattr(model, "predict") else model.transform(X[:5])


@gate("load_saved_vs_pickle", workload=f"{SMALL}; saved here", baseline="pickle.loads", size=80, seed=0, threads=1)
def test_what_was_saved_here(measure: Measure) -> None:
    assert compare(measure, [codec.dumps(model, "joblib") for model in small()], pickle.loads, "saved")


@gate("load_imported_vs_pickle", workload=f"{SMALL}; imported", baseline="pickle.loads", size=80, seed=0, threads=1)
def test_small_models_of_others(measure: Measure) -> None:
    assert compare(measure, [codec.dumps(model, "joblib") for model in small()], pickle.loads, "imported")


@gate("load_trees_vs_pickle", workload=f"{TREES}; imported", baseline="pickle.loads", size=9, seed=0, threads=1)
def test_trees_of_others(measure: Measure) -> None:
    assert compare(measure, [codec.dumps(model, "joblib") for model in trees()], pickle.loads, "imported")


@gate(
    "load_joblib_vs_joblib",
    workload=f"{SMALL}, {TREES}; joblib's files, imported",
    baseline="joblib.load",
    size=21,
    seed=0,
    threads=1,
)
def test_files_of_joblib(measure: Measure) -> None:
    files = [by_joblib(model) for model in (*small(), *trees())]
    assert compare(measure, files, lambda data: joblib.load(io.BytesIO(data)), "imported")


@gate(
    "load_imported_vs_names_alone",
    workload=f"{SMALL}; imported",
    baseline="a guard that asks for names alone",
    size=80,
    seed=0,
    threads=1,
)
def test_small_models_beside_a_guard_of_names(measure: Measure) -> None:
    assert compare(measure, [codec.dumps(model, "joblib") for model in small()], names_alone.loads, "imported")


@gate(
    "load_trees_vs_names_alone",
    workload=f"{TREES}; imported",
    baseline="a guard that asks for names alone",
    size=9,
    seed=0,
    threads=1,
)
def test_trees_beside_a_guard_of_names(measure: Measure) -> None:
    assert compare(measure, [codec.dumps(model, "joblib") for model in trees()], names_alone.loads, "imported")


@gate(
    "load_joblib_vs_names_alone",
    workload=f"{SMALL}, {TREES}; joblib's files, imported",
    baseline="a guard that asks for names alone",
    size=21,
    seed=0,
    threads=1,
)
def test_files_of_joblib_beside_a_guard_of_names(measure: Measure) -> None:
    assert compare(measure, [by_joblib(model) for model in (*small(), *trees())], names_alone.loads, "imported")
