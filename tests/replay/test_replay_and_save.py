"""Predictions of stored chains on a new data set, kept with their scores in one unit."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import DEADLINE, child, count
from replay_chains import spectra, target
from replay_stores import begin, pls_chain, put_chain
from sklearn.decomposition import PCA
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, root_mean_squared_error
from sklearn.tree import DecisionTreeRegressor

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, NotFoundError

X = spectra(60)
Y = target(X)
NEW = spectra(25)[::-1]
LABELS = np.where(np.median(Y) < Y, "wet", "dry")


def test_predictions_are_kept_with_arrays_and_scores(store: WorkspaceStore) -> None:
    pipeline = begin(store)
    chains = [pls_chain(store, pipeline, X, Y), pls_chain(store, pipeline, X, Y, components=2)]
    y = target(NEW) + 0.1
    ids = store.replay_and_save(chains, NEW, y, dataset="autumn", sample_indices=np.arange(25) + 100)
    expected = store.replay_chains(chains, NEW)
    for chain, identifier, predicted in zip(chains, ids, expected, strict=True):
        row = store.get_prediction(identifier, load_arrays=True)
        assert row is not None
        assert (row["chain_id"], row["dataset_name"], row["partition"]) == (chain, "autumn", "test")
        assert (row["task_type"], row["metric"], row["n_samples"], row["n_features"]) == (
            "regression",
            "rmse",
            25,
            X.shape[1],
        )
        np.testing.assert_allclose(row["y_pred"], predicted, rtol=1e-12)
        np.testing.assert_array_equal(row["y_true"], y)
        np.testing.assert_array_equal(row["sample_indices"], np.arange(25) + 100)
        assert row["test_score"] == row["scores"]["test"]["rmse"]
        assert row["test_score"] == pytest.approx(root_mean_squared_error(y, predicted))
    assert store.sql("SELECT status FROM runs WHERE name = 'predictions on autumn'")["status"].to_list() == [
        "completed"
    ]


def test_labels_are_kept_as_text(store: WorkspaceStore) -> None:
    chain = put_chain(store, begin(store), [], [LogisticRegression(max_iter=500).fit(X, LABELS)])
    (identifier,) = store.replay_and_save([chain], X, LABELS, dataset="autumn")
    row = store.get_prediction(identifier, labels=True)
    assert row is not None
    assert row["y_true"].tolist() == LABELS.tolist()
    assert row["y_pred"].tolist() == store.replay_chain(chain, X).tolist()
    assert (row["task_type"], row["metric"]) == ("classification", "accuracy")
    assert row["test_score"] == accuracy_score(LABELS, store.replay_chain(chain, X))


def test_several_targets_and_nothing_measured(store: WorkspaceStore) -> None:
    chain = put_chain(store, begin(store), [], [Ridge().fit(X, np.stack([Y, -Y], axis=1))])
    (identifier,) = store.replay_and_save([chain], NEW, dataset="autumn")
    row = store.get_prediction(identifier, load_arrays=True)
    assert row is not None
    np.testing.assert_allclose(row["y_pred"], store.replay_chain(chain, NEW), rtol=1e-12)
    assert row["y_true"] is None
    assert row["scores"] == {}


def test_several_targets_have_scores(store: WorkspaceStore) -> None:
    both = np.stack([Y, -2.0 * Y], axis=1)
    chains = [put_chain(store, begin(store), [], [Ridge(alpha).fit(X, both)]) for alpha in (1.0, 9.0)]
    for asked in (chains[:1], chains):
        ids = store.replay_and_save(asked, X, both, dataset="autumn")
        for chain, identifier in zip(asked, ids, strict=True):
            row = store.get_prediction(identifier, load_arrays=True)
            assert row is not None
            np.testing.assert_array_equal(row["y_true"], both)
            assert row["test_score"] == pytest.approx(root_mean_squared_error(both, store.replay_chain(chain, X)))


@pytest.mark.parametrize("classes", [np.array([4, 7]), np.array([False, True])])
def test_classes_that_are_numbers_are_classes(store: WorkspaceStore, classes: Any) -> None:
    y = classes[(np.median(Y) < Y).astype(int)]
    chain = put_chain(store, begin(store), [], [LogisticRegression(max_iter=500).fit(X, y)])
    counted = put_chain(store, begin(store), [], [DecisionTreeRegressor(random_state=0).fit(X, y.astype(float))])
    (identifier,) = store.replay_and_save([chain], X, y, dataset="autumn")
    row = store.get_prediction(identifier)
    assert row is not None
    assert (row["task_type"], row["metric"]) == ("classification", "accuracy")
    assert row["test_score"] == accuracy_score(y, store.replay_chain(chain, X))
    row = store.get_prediction(store.replay_and_save([counted], X, y, dataset="autumn")[0])
    assert row is not None
    assert (row["task_type"], row["metric"]) == ("regression", "rmse")


@pytest.mark.long
def test_spectra_that_were_not_measured_have_no_part_in_scores(store: WorkspaceStore) -> None:
    some, numbers, labels = np.arange(len(Y)) % 3 > 0, Y.copy(), LABELS.astype(object)
    numbers[~some], labels[~some] = np.nan, None
    chain = pls_chain(store, begin(store), X, Y)
    classifier = put_chain(store, begin(store), [], [LogisticRegression(max_iter=500).fit(X, LABELS)])
    row = store.get_prediction(store.replay_and_save([chain], X, numbers, dataset="autumn")[0], load_arrays=True)
    assert row is not None
    assert row["test_score"] == pytest.approx(root_mean_squared_error(Y[some], store.replay_chain(chain, X)[some]))
    np.testing.assert_array_equal(row["y_true"], numbers)
    row = store.get_prediction(store.replay_and_save([classifier], X, labels, dataset="autumn")[0], labels=True)
    assert row is not None
    assert row["test_score"] == accuracy_score(LABELS[some], store.replay_chain(classifier, X)[some])
    assert row["y_true"].tolist() == labels.tolist()
    row = store.get_prediction(store.replay_and_save([chain], X, np.full(len(X), np.nan), dataset="none")[0])
    assert row is not None
    assert row["scores"] == {}


def test_a_prediction_that_is_nan_has_a_score_that_is_nan(store: WorkspaceStore) -> None:
    step = PCA(1).fit(X[:20])
    model = IsotonicRegression(out_of_bounds="nan").fit(step.transform(X[:20]), Y[:20])
    chain = put_chain(store, begin(store), [step], [model])
    row = store.get_prediction(store.replay_and_save([chain], X, Y, dataset="autumn")[0], load_arrays=True)
    assert row is not None
    assert np.isnan(row["y_pred"]).any()
    assert np.isnan(row["test_score"])


def test_spectra_in_blocks_and_of_several_sources_are_counted(store: WorkspaceStore) -> None:
    chain = put_chain(store, begin(store), [], [Ridge().fit(X, Y)])
    for given in (iter([X[:20], X[20:]]), [X]):
        row = store.get_prediction(store.replay_and_save([chain], given, Y, dataset="autumn")[0])
        assert row is not None
        assert (row["n_samples"], row["n_features"]) == X.shape


def test_nothing_of_the_training_is_replaced_and_no_ranking_changes(store: WorkspaceStore) -> None:
    model = store.save_cross_validation(Ridge(), X, Y, cv=3)
    before = store.query_predictions().sort("prediction_id"), store.leaderboard().frame
    first = store.replay_and_save([model.chain_id], NEW, target(NEW), dataset="data")
    again = store.replay_and_save([model.chain_id], NEW, target(NEW), dataset="data")
    assert set(first).isdisjoint(again)
    kept = store.query_predictions().sort("prediction_id")
    assert kept.filter(~kept["prediction_id"].is_in([*first, *again])).equals(before[0])
    assert store.leaderboard().frame.equals(before[1])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"y": Y[:3]}, "y has shape"),
        ({"y": LABELS[:25]}, "y holds labels"),
        ({"y": np.ma.masked_less(Y[:25], np.median(Y))}, "y has masked values"),
        ({"y": np.where(np.arange(25) == 3, np.inf, 0.0)}, "y holds infinite values"),
        ({"y": Y[:25] + 0j}, "y is no array of numbers"),
        ({"X": NEW[:, :-1]}, "columns"),
        ({"sample_indices": [1]}, "sample_indices"),
        ({"chain_ids": 2}, "named twice"),
    ],
)
def test_what_does_not_fit_keeps_nothing(store: WorkspaceStore, change: dict[str, Any], told: str) -> None:
    chain = pls_chain(store, begin(store), X, Y)
    before = count(store, "runs"), count(store, "pipelines")
    given = {"chain_ids": [chain], "X": NEW, "y": None, "sample_indices": None} | change
    if given["chain_ids"] == 2:
        given["chain_ids"] = [chain, chain]
    with pytest.raises(InvalidInputError, match=told):
        store.replay_and_save(**given, dataset="autumn")
    with pytest.raises(NotFoundError):
        store.replay_and_save(["nobody"], NEW, dataset="autumn")
    assert (count(store, "runs"), count(store, "pipelines")) == before


def test_a_kill_leaves_all_or_none(tmp_path: Path, empty_workspace: Path) -> None:
    shutil.copytree(empty_workspace, tmp_path / "ws")
    with WorkspaceStore(tmp_path / "ws") as store:
        chains = [put_chain(store, begin(store), [], [Ridge(alpha).fit(X, Y)]) for alpha in range(1, 21)]
    np.save(tmp_path / "X.npy", X)
    code = """
import sys
import numpy as np
from n4a_fast import WorkspaceStore
X, chains = np.load(sys.argv[1] + "/X.npy"), sys.argv[2:]
with WorkspaceStore(sys.argv[1] + "/ws") as store:
    for turn in range(10_000):
        store.replay_and_save(chains, X, X[:, 0], dataset=f"set {turn}")
        print(turn, flush=True)
"""
    process = child(code, tmp_path, *chains)
    assert process.stdout is not None
    for _ in range(3):
        last = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    last = (process.communicate(timeout=DEADLINE)[0].split() or [last.strip()])[-1]
    with WorkspaceStore(tmp_path / "ws") as store:
        kept = store.sql("SELECT dataset_name, count(*) AS n FROM predictions GROUP BY 1")
        assert set(kept["n"].to_list()) == {len(chains)}
        assert set(kept["dataset_name"].to_list()) >= {f"set {turn}" for turn in range(int(last) + 1)}
        assert count(store, "prediction_values") == kept["n"].sum()
