"""A replay gives what the same scikit-learn and chemotools objects give by hand, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chemotools.derivative import SavitzkyGolay
from chemotools.scatter import MultiplicativeScatterCorrection, StandardNormalVariate
from helpers import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_chains import ChainMaker, InPlaceModel, Shifted, spectra, target
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from n4a_fast import WorkspaceStore, replay_chain
from n4a_fast.errors import ArtifactMissingError, NotFoundError, ReplayError
from n4a_fast.replay import execute

OPERATORS = {
    "minmax": MinMaxScaler,
    "standard": StandardScaler,
    "snv": StandardNormalVariate,
    "msc": MultiplicativeScatterCorrection,
    "savgol": lambda: SavitzkyGolay(window_length=5, polyorder=2),
    "pca": lambda: PCA(6),
}
LAYOUTS = {
    "c": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "reversed": lambda X: X[::-1, ::-1][::-1, ::-1],
    "strided": lambda X: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
    "float32": lambda X: X.astype(np.float32),
    "big-endian": lambda X: X.astype(">f8"),
    "nested lists": lambda X: X.tolist(),
}
TRAINED = spectra(40, 30, seed=1)
Y = np.c_[target(TRAINED), TRAINED[:, 3] * 7.0]


def pipelines(names: list[str], n_folds: int, two_targets: bool) -> list[Pipeline]:
    """One pipeline a fold; the operators are fitted once, the models on different rows."""
    head = make_pipeline(*[OPERATORS[name]() for name in names], "passthrough").fit(TRAINED)
    y = Y if two_targets else Y[:, 0]
    features = head.transform(TRAINED)
    return [make_pipeline(head, Ridge(alpha=fold + 0.1).fit(features[fold::2], y[fold::2])) for fold in range(n_folds)]


def stored(folds: list[Pipeline]) -> ChainMaker:
    maker = ChainMaker()
    for _, operator in folds[0][0].steps[:-1]:
        maker.step(operator)
    return maker.model(*[fold[-1] for fold in folds])


@settings(max_examples=examples(60))
@given(
    names=st.lists(st.sampled_from(sorted(set(OPERATORS) - {"pca"})), max_size=3),
    pca=st.booleans(),
    n_folds=st.integers(1, 4),
    two_targets=st.booleans(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    rows=st.sampled_from([1, 2, 17]),
    frozen=st.booleans(),
)
def test_a_replay_equals_the_pipeline_for_every_layout(
    names: list[str], pca: bool, n_folds: int, two_targets: bool, layout: str, rows: int, frozen: bool
) -> None:
    folds = pipelines(names + ["pca"] * pca, n_folds, two_targets)
    X = LAYOUTS[layout](spectra(rows, 30, seed=2))
    before = np.array(X)
    if frozen and isinstance(X, np.ndarray):
        X.flags.writeable = False
    expected = np.mean([fold.predict(np.array(X, dtype=np.float64)) for fold in folds], axis=0)
    found = stored(folds).predict(X)
    assert found.dtype == np.float64
    assert found.shape == ((rows, 2) if two_targets else (rows,))
    # The same arithmetic on the same float64 values; only BLAS may sum in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(X, before)


@settings(max_examples=examples(30))
@given(weights=st.lists(st.floats(0.001, 1000.0), min_size=3, max_size=3), chosen=st.permutations([0, 1, 2]))
def test_weighted_folds_equal_the_weighted_average(weights: list[float], chosen: list[int]) -> None:
    folds = pipelines(["snv", "savgol"], 3, two_targets=True)
    X = spectra(5, 30, seed=3)
    expected = np.average([folds[fold].predict(X) for fold in chosen], axis=0, weights=weights)
    maker = stored(folds)
    np.testing.assert_allclose(maker.predict(X, folds=chosen, fold_weights=weights), expected, rtol=1e-9)
    by_key = {f"fold_{fold}": weight for fold, weight in zip(chosen, weights, strict=True)}
    np.testing.assert_allclose(maker.predict(X, fold_weights=by_key), expected, rtol=1e-9)


def test_pls_folds_on_float32_spectra_are_computed_in_float64() -> None:
    folds = [PLSRegression(4).fit(TRAINED[fold::3], Y[fold::3, 0]) for fold in range(3)]
    X = spectra(9, 30, seed=4).astype(np.float32)
    expected = np.mean([fold.predict(X.astype(np.float64)).ravel() for fold in folds], axis=0)
    np.testing.assert_allclose(ChainMaker().model(*folds).predict(X), expected, rtol=1e-12)


def test_operators_and_models_that_write_into_their_input_harm_nobody() -> None:
    X = np.ones((2, 3))
    scaler = MinMaxScaler(copy=False).fit(TRAINED[:, :3])
    maker = ChainMaker().step(Shifted(1.0, in_place=True)).step(scaler).model(InPlaceModel(), InPlaceModel())
    expected = 2.0 * scaler.transform(np.full((2, 3), 2.0)).sum(axis=1)
    np.testing.assert_allclose(maker.predict(X), expected)
    np.testing.assert_array_equal(X, np.ones((2, 3)))
    one = (
        ChainMaker()
        .step(Shifted(1.0, in_place=True), Shifted(2.0, in_place=True), params={"feature_augmentation": ["a.A", "b.B"]})
        .model(InPlaceModel())
    )
    np.testing.assert_allclose(one.predict(X), [2.0 * 3 * (1 + 2 + 3)] * 2)


def test_a_plan_predicts_again_and_again() -> None:
    folds = pipelines(["msc", "minmax"], 2, two_targets=False)
    plan = stored(folds).load()
    X = spectra(6, 30, seed=5)
    first = execute(plan, X)
    np.testing.assert_array_equal(execute(plan, X), first)
    # One row is one call of a matrix-vector product, which may sum in another order.
    np.testing.assert_allclose([execute(plan, row[None, :])[0] for row in X], first, rtol=1e-10)


def test_channels_of_different_widths_are_refused() -> None:
    narrow = PCA(3).fit(TRAINED)
    maker = (
        ChainMaker()
        .step(narrow, params={"feature_augmentation": ["sklearn.decomposition.PCA"]})
        .model(Ridge().fit(np.ones((2, 33)), [1, 2]))
    )
    with pytest.raises(ReplayError, match="channels of different widths"):
        maker.predict(TRAINED)


# -- through a store ----------------------------------------------------------------------------


def save(store: WorkspaceStore, maker: ChainMaker, objects: dict[str, Any]) -> str:
    """The chain of a maker in a store, its artifacts as files; the chain's id."""
    run = store.begin_run("sweep", {}, [{"name": "fermentation"}])
    pipeline = store.begin_pipeline(run, "p", {}, [], "fermentation", "hash")
    ids = {key: store.save_artifact(obj, type(obj).__name__, "transformer", "joblib") for key, obj in objects.items()}
    chain = maker.chain
    shared = {index: [ids[item] for item in items] for index, items in chain["shared_artifacts"].items()}
    folds = {fold: ids[item] for fold, item in chain["fold_artifacts"].items()}
    steps = [{**step, "artifact_ids": [ids[item] for item in step["artifact_ids"]]} for step in chain["steps"]]
    return store.save_chain(pipeline, steps, chain["model_step_idx"], "Ridge", "SNV>MinMax", "per_fold", folds, shared)


def test_a_stored_chain_predicts_like_the_pipeline_after_reopening(tmp_path: Path) -> None:
    folds = pipelines(["snv", "minmax"], 3, two_targets=False)
    maker = stored(folds)
    names = [
        *maker.chain["shared_artifacts"]["1"],
        *maker.chain["shared_artifacts"]["2"],
        *maker.chain["fold_artifacts"].values(),
    ]
    objects = {name: maker.shelf(name) for name in names}
    X = spectra(11, 30, seed=6)
    with WorkspaceStore(tmp_path) as store:
        chain_id = save(store, maker, objects)
    expected = np.mean([fold.predict(X) for fold in folds], axis=0)
    with WorkspaceStore(tmp_path) as store:
        np.testing.assert_allclose(store.replay_chain(chain_id, X), expected, rtol=1e-10)
        np.testing.assert_allclose(replay_chain(store, chain_id=chain_id, X=X, wavelengths=None), expected, rtol=1e-10)
        np.testing.assert_allclose(replay_chain(store, chain_id, X, folds=[2]), folds[2].predict(X), rtol=1e-10)
        chain = store.get_chain(chain_id)
        assert chain is not None
        store.get_artifact_path(chain["fold_artifacts"]["fold_1"]).unlink()
        with pytest.raises(ArtifactMissingError):
            replay_chain(store, chain_id, X, folds="all")
        np.testing.assert_allclose(replay_chain(store, chain_id, X, folds=[2]), folds[2].predict(X), rtol=1e-10)


def test_an_unknown_chain_is_named(store: WorkspaceStore) -> None:
    with pytest.raises(NotFoundError, match="no chain 'nobody'"):
        replay_chain(store, "nobody", TRAINED)
