"""Chains that nirs4all 0.7.1 itself stored, on real spectra: a replay gives its stored test predictions.

`chains.zip` holds one chain or two for each way in which it stores steps (`make_chains.py` made it);
`reference/` is part of a sweep with nirs4all's own operators. The stored predictions came from
float32 spectra, hence the tolerance.
"""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from scipy.signal import savgol_filter
from sklearn.preprocessing import FunctionTransformer

from n4a_fast.replay import execute, load_chain

DATA = Path(__file__).parents[1] / "data" / "replay"
TOLERANCE = 1e-6
FOLDS = {"avg": "all", "": "auto", "final": "final"}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")


@cache
def stored_chains() -> dict[str, list[dict[str, Any]]]:
    with zipfile.ZipFile(DATA / "chains.zip") as archive:
        return json.loads(archive.read("chains.json"))  # type: ignore[no-any-return]


@cache
def reference_chains() -> list[dict[str, Any]]:
    return json.loads((DATA / "reference" / "chains.json").read_text())  # type: ignore[no-any-return]


def zipped(files: dict[str, str]) -> Callable[[str], Any]:
    def load(artifact_id: str) -> Any:
        with zipfile.ZipFile(DATA / "chains.zip") as archive:
            return joblib.load(io.BytesIO(archive.read(files[artifact_id])))

    return load


def test_set_of_stored_chains_is_whole() -> None:
    assert len(stored_chains()) == 23
    assert sum(len(entry["y_pred"]) for entries in stored_chains().values() for entry in entries) > 80


@pytest.mark.parametrize("name", sorted(stored_chains()))
def test_stored_predictions_are_reproduced_for_every_fold(name: str) -> None:
    with np.load(DATA / "chains-X.npz") as data:
        X = data["X"]
    for entry in stored_chains()[name]:
        plan = load_chain(entry["chain"], zipped(entry["files"]))
        for fold, y_pred in entry["y_pred"].items():
            if fold == "w_avg":  # its weights are not in the chain
                continue
            found = execute(plan, [X, X[:, ::2]] if name.startswith("sources") else X, folds=FOLDS.get(fold, [fold]))
            np.testing.assert_allclose(found, y_pred, rtol=0, atol=TOLERANCE, err_msg=f"{name}, fold {fold!r}")


def standard_normal_variate(X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray((X - X.mean(axis=1, keepdims=True)) / X.std(axis=1, keepdims=True))


def smoothed(X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(savgol_filter(X, 11, 3))


def reference_artifact(files: dict[str, str], own_operators: bool) -> Callable[[str], Any]:
    """Loads the sweep's artifacts; without nirs4all, its two row-wise operators are written out."""
    stand_ins = {"StandardNormalVariate": standard_normal_variate, "SavitzkyGolay": smoothed}

    def load(artifact_id: str) -> Any:
        name = files[artifact_id]
        stand_in = None if own_operators else stand_ins.get(name.split("_")[1])
        return FunctionTransformer(stand_in) if stand_in else joblib.load(DATA / "reference" / name)

    return load


def check_reference(entry: dict[str, Any], own_operators: bool) -> None:
    with np.load(DATA / "reference" / "X.npz") as data:
        X = data["X"]
    plan = load_chain(entry["chain"], reference_artifact(entry["files"], own_operators))
    for fold, y_pred in entry["y_pred"].items():
        if fold != "w_avg":
            np.testing.assert_allclose(
                execute(plan, X, folds=FOLDS.get(fold, [fold])), y_pred, rtol=0, atol=TOLERANCE, err_msg=fold
            )


@pytest.mark.parametrize("number", range(2))
def test_sweep_of_the_reference_is_reproduced_with_its_row_operators_written_out(number: int) -> None:
    check_reference(reference_chains()[number], own_operators=False)


@pytest.mark.skipif(
    importlib.util.find_spec("nirs4all") is None,
    reason="the artifacts hold operators of nirs4all, which is not installed; `make test-embedded` runs it",
)
@pytest.mark.parametrize("number", range(2))
def test_sweep_of_the_reference_is_reproduced_with_its_own_operators(number: int) -> None:
    check_reference(reference_chains()[number], own_operators=True)


def test_refit_predicts_alone_and_folds_are_averaged() -> None:
    refit, folds = sorted(reference_chains(), key=lambda entry: len(entry["chain"]["fold_artifacts"]))
    assert list(load_chain(refit["chain"], reference_artifact(refit["files"], False)).model.models) == ["final"]
    assert list(load_chain(folds["chain"], reference_artifact(folds["files"], False)).model.models) == ["0", "1", "2"]
