"""One chain predicted in every way there is: plainly, compiled, in a batch, from a bundle, imported, by a script."""

from __future__ import annotations

import io
import runpy
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from replay_stores import plain

from n4a_fast import WorkspaceStore

Array = np.ndarray[Any, Any]

# what the chains of these tests are made of; an imported chain is loaded under a list
TRUSTED = [
    *("sklearn", "numpy", "scipy", "joblib", "chemotools", "nirs4all", "catboost", "lightgbm", "xgboost", "torch"),
    *("builtins", "collections", "test_unusual_models", "matrix_torch"),
]


def surfaces(store: WorkspaceStore, chain_id: str, X: Array, folder: Path) -> dict[str, Callable[[], Array]]:
    """What predicts the chain by each of its ways; files go into `folder`."""
    return {
        "plain": lambda: plain(store, chain_id, X),
        "compiled": lambda: store.replay_chain(chain_id, X),
        "batch": lambda: store.replay_chains([chain_id], X)[0],
        "bundle": lambda: of_bundle(store.export_chain(chain_id, folder / f"{chain_id}.n4a"), X),
        "imported": lambda: imported(store.export_chain(chain_id, folder / f"{chain_id}.n4a"), X, folder / "importing"),
        "script": lambda: of_script(store.export_chain(chain_id, folder / f"{chain_id}.n4a.py", "n4a.py"), X),
    }


def of_bundle(path: Path, X: Array) -> Array:
    """A bundle run as its format says, without this package: operators by step, models averaged, targets undone."""
    import json

    with zipfile.ZipFile(path) as bundle:
        members = {name: bundle.read(name) for name in bundle.namelist()}
    steps = json.loads(members["pipeline.json"])["steps"]
    model_step = json.loads(members["manifest.json"])["model_step_index"]
    models: dict[str, Any] = {}
    undo: list[Any] = []
    spectra = X.copy()  # some operators change what they are given
    for name, data in members.items():
        if not name.startswith("artifacts/"):
            continue
        operator, index = joblib.load(io.BytesIO(data)), int(name.split("_")[1])
        if index == model_step:
            models[name.rpartition("_fold")[2].removesuffix(".joblib")] = operator
        elif "y_processing" in steps[index - 1]:
            undo.append(operator)
        else:
            spectra = np.asarray(operator.transform(spectra))
    used = [models["final"]] if "final" in models else list(models.values())
    each = [np.asarray(model.predict(spectra)) for model in used]
    found = each[0] if len(each) == 1 else np.mean([one.reshape(len(X), -1) for one in each], axis=0, dtype=np.float64)
    for operator in undo:
        found = operator.inverse_transform(found if hasattr(operator, "classes_") else found.reshape(len(X), -1))
    return found.reshape(-1) if found.size == len(X) else found


def imported(path: Path, X: Array, folder: Path) -> Array:
    """The bundle's chain in a store of its own."""
    with WorkspaceStore(folder, trusted=TRUSTED) as other:
        return other.replay_chain(other.import_chain(path), X)


def of_script(path: Path, X: Array) -> Array:
    return np.asarray(runpy.run_path(str(path))["predict"](X))
