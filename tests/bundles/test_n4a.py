"""A chain as one file: whole, readable without this package, and the same each time."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from bundle_chains import CASES, case, save
from helpers import Sweep, child, finish, save_chain
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from n4a_fast import WorkspaceStore
from n4a_fast.errors import ArtifactMissingError, InvalidInputError, NotFoundError

X = np.random.default_rng(0).normal(size=(20, 6))


def fitted_chain(store: WorkspaceStore, sweep: Sweep) -> str:
    scaler = StandardScaler().fit(X)
    scaler_id = store.save_artifact(scaler, "sklearn.preprocessing.StandardScaler", "transformer", "joblib")
    folds = {
        f"fold_{fold}": store.save_artifact(
            Ridge(alpha=fold + 1.0).fit(scaler.transform(X), X[:, 0]), "sklearn.linear_model.Ridge", "model", "joblib"
        )
        for fold in range(2)
    }
    steps = [
        {
            "step_idx": 1,
            "operator_class": "sklearn.preprocessing.StandardScaler",
            "params": {},
            "artifact_id": scaler_id,
            "stateless": False,
        },
        {
            "step_idx": 2,
            "operator_class": "sklearn.linear_model.Ridge",
            "params": {},
            "artifact_id": None,
            "stateless": False,
        },
    ]
    return save_chain(
        store, sweep.pipeline, steps=steps, model_step_idx=2, fold_artifacts=folds, shared_artifacts={"1": [scaler_id]}
    )


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as bundle:
        assert bundle.testzip() is None
        return {name: bundle.read(name) for name in bundle.namelist()}


def test_a_bundle_predicts_what_the_store_does_without_this_package(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path
) -> None:
    chain = fitted_chain(store, sweep)
    found = members(store.export_chain(chain, tmp_path / "new" / "model.n4a"))
    assert list(found)[:3] == ["manifest.json", "pipeline.json", "chain.json"]
    loaded: dict[str, Any] = {
        name: joblib.load(io.BytesIO(data)) for name, data in found.items() if name.endswith(".joblib")
    }
    assert list(loaded) == [f"artifacts/step_{name}.joblib" for name in ("1_sub0", "2_fold0", "2_fold1")]
    scaler, *models = loaded.values()
    np.testing.assert_allclose(
        np.mean([each.predict(scaler.transform(X)) for each in models], axis=0),
        store.replay_chain(chain, X).ravel(),
        atol=1e-12,
    )


def test_the_manifest_names_the_chain_and_the_hash_of_every_other_member(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path
) -> None:
    chain = fitted_chain(store, sweep)
    found = members(store.export_chain(chain, tmp_path / "model.n4a"))
    manifest = json.loads(found.pop("manifest.json"))
    assert (manifest["chain_id"], manifest["model_step_index"], manifest["has_refit"]) == (chain, 2, False)
    assert manifest["artifact_integrity"] == {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    assert [list(step) for step in json.loads(found["pipeline.json"])["steps"]] == [["step"], ["model"]]


def test_the_same_chain_gives_the_same_bytes(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
    chain = fitted_chain(store, sweep)
    assert (
        store.export_chain(chain, tmp_path / "a.n4a").read_bytes()
        == store.export_chain(chain, tmp_path / "b.n4a").read_bytes()
    )


def test_an_unknown_format_chain_or_a_lost_artifact_leave_no_file(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path
) -> None:
    chain, target = fitted_chain(store, sweep), tmp_path / "model.n4a"
    with pytest.raises(InvalidInputError, match="use one of n4a, n4a.py"):
        store.export_chain(chain, target, format="onnx")
    with pytest.raises(NotFoundError, match="nobody"):
        store.export_chain("nobody", target)
    store.get_artifact_path(store.get_chain(chain)["fold_artifacts"]["fold_1"]).unlink()  # type: ignore[index]
    with pytest.raises(ArtifactMissingError):
        store.export_chain(chain, target)
    assert not target.exists()


EXPORT_ALL = """
import sys
from pathlib import Path
from n4a_fast import WorkspaceStore

with WorkspaceStore.open_readonly(sys.argv[1]) as store:
    for chain in sys.argv[3:]:
        for kind in ("n4a", "n4a.py"):
            store.export_chain(chain, Path(sys.argv[2]) / f"{chain}.{kind}", format=kind)
"""


def test_another_process_writes_the_same_bytes(store: WorkspaceStore, tmp_path: Path) -> None:
    chains = [save(store, *case(name)) for name in CASES]
    store.close()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        finish(child(EXPORT_ALL, tmp_path / "workspace", tmp_path / folder, *chains))
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("one", "two"))
    assert len(one) == 2 * len(CASES)
    assert one == two
