"""A Pipeline is replayed like its steps outside: by weights, row statistics and classifiers included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chemotools.derivative import SavitzkyGolay
from chemotools.scatter import MultiplicativeScatterCorrection, StandardNormalVariate
from replay_chains import spectra, target
from replay_stores import begin, plain, put_chain
from sklearn.base import clone
from sklearn.cross_decomposition import PLSRegression
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVR

from n4a_fast import WorkspaceStore

X = spectra(60)
Y = target(X)
LABELS = np.array(["low", "middle", "high"])[np.digitize(Y, np.quantile(Y, [0.3, 0.6]))]
SNV = StandardNormalVariate()

COMPILED = {
    "SNV, PLS": make_pipeline(SNV, PLSRegression(2)),
    "SNV, scaler, PLS": make_pipeline(SNV, StandardScaler(), PLSRegression(2)),
    "SNV, derivative, scaler, PLS": make_pipeline(SNV, SavitzkyGolay(5), StandardScaler(), PLSRegression(2)),
    "nested": make_pipeline(make_pipeline(SNV, SavitzkyGolay(5)), StandardScaler(), PLSRegression(2)),
    "scaler, logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "SNV, scaler, logistic": make_pipeline(SNV, StandardScaler(), LogisticRegression()),
    "SNV, discriminant": make_pipeline(SNV, LinearDiscriminantAnalysis()),
    "scaler, ridge classifier": make_pipeline(StandardScaler(), RidgeClassifier()),
    "scaler, logistic SGD": make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)),
}
PLAIN = {
    "a curve": make_pipeline(SNV, PolynomialFeatures(2), PLSRegression(2)),
    "a reference of each fold": make_pipeline(MultiplicativeScatterCorrection(), PLSRegression(2)),
    "a scaler of each fold before SNV": make_pipeline(StandardScaler(), SNV, PLSRegression(2)),
    "a kernel behind a scaler": make_pipeline(SNV, StandardScaler(), SVR()),
}


def folds(model: Any) -> list[Any]:
    y = LABELS if hasattr(model, "decision_function") or hasattr(model[-1], "decision_function") else Y
    return [clone(model).fit(X[fold::2], y[fold::2]) for fold in (0, 1)]


def assert_as_plain(store: WorkspaceStore, chain_id: str) -> None:
    expected = plain(store, chain_id, X)
    for _ in range(2):
        for found in (store.replay_chain(chain_id, X), store.replay_chains([chain_id], X)[0]):
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(found, expected, rtol=1e-11)
            else:
                assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("name", COMPILED)
def test_pipelines_of_linear_steps_are_compiled_and_kept(tmp_path: Path, name: str) -> None:
    with WorkspaceStore(tmp_path / "ws") as store:
        chain_id = put_chain(store, begin(store), [], folds(COMPILED[name]))
        assert store.replay_plan(chain_id, X).compiled
        assert_as_plain(store, chain_id)
    with WorkspaceStore(tmp_path / "ws") as store:
        assert store.replay_plan(chain_id).compiled
        assert_as_plain(store, chain_id)


@pytest.mark.parametrize("name", PLAIN)
def test_other_pipelines_run_plainly(tmp_path: Path, name: str) -> None:
    with WorkspaceStore(tmp_path / "ws") as store:
        chain_id = put_chain(store, begin(store), [], folds(PLAIN[name]))
        assert not store.replay_plan(chain_id, X).compiled
        assert_as_plain(store, chain_id)


def test_a_pipeline_behind_other_steps_is_compiled(tmp_path: Path) -> None:
    smooth = SavitzkyGolay(5).fit(X)
    models = [clone(COMPILED["SNV, scaler, PLS"]).fit(smooth.transform(X[k::2]), Y[k::2]) for k in (0, 1)]
    with WorkspaceStore(tmp_path / "ws") as store:
        chain_id = put_chain(store, begin(store), [smooth], models)
        assert store.replay_plan(chain_id, X).compiled
        assert_as_plain(store, chain_id)
    with WorkspaceStore(tmp_path / "ws") as store:
        assert_as_plain(store, chain_id)
