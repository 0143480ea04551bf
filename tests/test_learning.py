"""A cross-validation of scikit-learn kept in one call: its folds, its scores, its models; and chains as estimators."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import count
from sklearn.base import clone
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import PredictionErrorDisplay, get_scorer, make_scorer, root_mean_squared_error
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, ReplayError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 12))
Y = X @ RNG.normal(size=12) + 0.1 * RNG.normal(size=60)
LABELS = np.array(["Brasil", "Ethiopia", "Vietnam"])[np.digitize(X[:, 0], [-0.5, 0.5])]
CV = KFold(4, shuffle=True, random_state=1)


def test_scores_and_predictions_are_scikit_learn_s(store: WorkspaceStore) -> None:
    model = make_pipeline(StandardScaler(), PLSRegression(3))
    chain = store.save_cross_validation(model, X[:50], Y[:50], cv=CV, X_test=X[50:], y_test=Y[50:], dataset="corn")
    row = store.leaderboard().frame.row(0, named=True)
    expected = -cross_val_score(model, X[:50], Y[:50], cv=CV, scoring="neg_root_mean_squared_error")
    assert (row["dataset_name"], row["metric"], row["folds"], row["missing_folds"]) == ("corn", "rmse", 4, 0)
    assert row["val_score"] == pytest.approx(expected.mean(), rel=1e-12)
    assert row["preprocessings"] == "StandardScaler"
    held_out = store.get_chain_predictions(chain.chain_id, partition="val")
    assert held_out["val_score"].to_list() == [pytest.approx(each, rel=1e-12) for each in expected]
    for prediction, (train, val) in zip(held_out["prediction_id"], CV.split(X[:50]), strict=True):
        arrays = store.get_prediction_arrays(prediction)
        assert arrays is not None
        assert np.array_equal(arrays["sample_indices"], val)
        fitted = clone(model).fit(X[train], Y[train])
        assert np.allclose(arrays["y_pred"], fitted.predict(X[val]).ravel(), rtol=0, atol=1e-12)
    refitted = clone(model).fit(X[:50], Y[:50])
    assert np.allclose(chain.predict(X[50:]).ravel(), refitted.predict(X[50:]).ravel(), rtol=0, atol=1e-9)
    assert row["final_score"] == pytest.approx(root_mean_squared_error(Y[50:], refitted.predict(X[50:])))
    run = store.run()
    assert (run.status, run.best.chain_id) == ("completed", chain.chain_id)


@pytest.mark.long
def test_variants_are_told_apart_by_what_was_set(store: WorkspaceStore) -> None:
    for model in (PLSRegression(3), Ridge(alpha=0.5), Ridge(), Ridge(1.0, max_iter=9), LogisticRegression(C=2.0)):
        y = LABELS if isinstance(model, LogisticRegression) else Y
        store.save_cross_validation(make_pipeline(StandardScaler(), model), X, y, cv=3)
    assert {name for board in store.leaderboard().boards for name in board.frame["model_name"]} == {
        "PLSRegression(3)",
        "Ridge(0.5)",
        "Ridge",
        "Ridge(max_iter=9)",
        "LogisticRegression(C=2.0)",
    }


def test_without_a_refit_the_folds_predict_together(store: WorkspaceStore) -> None:
    chain = store.save_cross_validation(Ridge(), X, Y, cv=CV, refit=False)
    models = [Ridge().fit(X[train], Y[train]) for train, _ in CV.split(X)]
    assert np.allclose(chain.predict(X), np.mean([model.predict(X) for model in models], axis=0), rtol=0, atol=1e-12)


@pytest.mark.long
def test_text_labels_come_back(store: WorkspaceStore) -> None:
    chain = store.save_cross_validation(LogisticRegression(), X, LABELS, cv=3, dataset="coffee")
    assert store.leaderboard().boards[0].metric == "accuracy"
    assert set(chain.predict(X)) <= set(LABELS)
    stored = store.load_arrays(chain_id=chain.chain_id, partition="val", columns=["y_true", "y_proba"])
    assert set(np.concatenate(list(stored.y_true)).tolist()) == {0.0, 1.0, 2.0}
    assert stored.y_proba[0].shape[1] == 3
    estimator = chain.estimator()
    assert estimator.classes_.tolist() == ["Brasil", "Ethiopia", "Vietnam"]
    assert get_scorer("accuracy")(estimator, X, LABELS) > 0.8
    assert {row["actual"] for row in store.plot("confusion", chain.chain_id).rows} == set(LABELS)


def test_a_cross_validation_is_stored_whole_or_not_at_all(store: WorkspaceStore) -> None:
    with pytest.raises(ValueError, match="NaN"):
        store.save_cross_validation(Ridge(), np.full((20, 3), np.nan), np.zeros(20))
    with pytest.raises(InvalidInputError):
        store.save_cross_validation(Ridge(), X, Y, scoring=[])
    with pytest.raises(InvalidInputError):
        store.save_cross_validation(Ridge(), X, Y, wavelengths=[1.0, 2.0])  # of twelve columns
    assert [count(store, table) for table in ("runs", "pipelines", "chains", "predictions")] == [0, 0, 0, 0]


def test_several_are_kept_in_one_run_and_own_scorers_rank(store: WorkspaceStore) -> None:
    run = store.begin_run("sweep", {}, [{"name": "corn"}])
    scoring = {"closeness": make_scorer(lambda a, b: 1 / (1 + float(np.mean((a - b) ** 2))))}
    for alpha in (0.1, 1000.0):
        store.save_cross_validation(Ridge(alpha), X, Y, scoring=scoring, run=run, name=f"ridge {alpha}", dataset="corn")
    store.complete_run(run, {})
    board = store.leaderboard()
    assert board.boards[0].higher_is_better
    assert store.get_pipeline(board.frame["pipeline_id"][0])["name"] == "ridge 0.1"  # type: ignore[index]


def test_a_search_is_kept_candidate_by_candidate(store: WorkspaceStore) -> None:
    search = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0, 1000.0]}, cv=CV, scoring="neg_root_mean_squared_error")
    with pytest.raises(InvalidInputError, match="not fitted"):
        store.save_search(search)
    search.fit(X, Y)
    run = store.save_search(search, dataset="corn")
    board = run.leaderboard()
    assert len(board) == 3
    assert board.frame["val_score"][0] == pytest.approx(-search.best_score_)
    assert np.allclose(board.best.predict(X), search.predict(X), rtol=0, atol=1e-9)


def test_a_chain_is_an_estimator_that_replays(store: WorkspaceStore) -> None:
    store.save_cross_validation(Ridge(), X, Y, cv=CV, dataset="corn")
    estimator = store.estimator()
    assert estimator.score(X, Y) > 0.9
    assert clone(estimator).predict(X).shape == (60,)
    assert PredictionErrorDisplay.from_estimator(estimator, X, Y) is not None
    with pytest.raises(ReplayError, match="stored as it was fitted"):
        estimator.fit(X, Y)
