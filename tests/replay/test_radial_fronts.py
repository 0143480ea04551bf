"""Radial kernels behind filters and scalers: one map from the spectra on, equal to operators one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chemotools.derivative import SavitzkyGolay
from chemotools.scatter import StandardNormalVariate
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_chains import ChainMaker, spectra, target
from replay_stores import begin, plain, put_chain
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import MinMaxScaler, Normalizer, PowerTransformer, StandardScaler
from sklearn.svm import SVR, NuSVR

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError
from n4a_fast.replay import execute
from n4a_fast.replay.fused.compile import compile_chain
from n4a_fast.replay.fused.compiled import CompiledChain
from n4a_fast.replay.fused.stages import Bench
from n4a_fast.replay.fused.statistics import RowStatistic, mapped
from n4a_fast.replay.plan.folds import weights_of

Array = np.ndarray[Any, Any]
WIDTH = 150  # more than two blocks of columns
X, NEW = spectra(40, WIDTH, seed=1), spectra(9, WIDTH, seed=2)
y = target(X)
STEPS: dict[str, Callable[[], Any]] = {
    "snv": StandardNormalVariate,
    "norm": Normalizer,
    "first derivative": lambda: SavitzkyGolay(window_length=7, polyorder=2, deriv=1),
    "smooth": lambda: SavitzkyGolay(window_length=11, polyorder=3, deriv=0, mode="interp"),
    "scaled": StandardScaler,
    "minmax": MinMaxScaler,
}
MODELS: list[Callable[[], Any]] = [
    lambda: SVR(C=5.0, epsilon=0.01),
    lambda: NuSVR(C=5.0, gamma=0.02),
    lambda: KernelRidge(kernel="rbf", gamma=0.01, alpha=1e-3),
]


def fitted(steps: list[Any], model: Callable[[], Any]) -> tuple[list[Any], list[Any]]:
    """The steps and two folds behind them."""
    spectra = X
    for step in steps:
        spectra = np.asarray(step.fit(spectra).transform(spectra))
    return steps, [model().fit(spectra[fold::2], y[fold::2]) for fold in range(2)]


def maker(steps: list[Any], model: Callable[[], Any]) -> ChainMaker:
    made = ChainMaker()
    steps, models = fitted(steps, model)
    for step in steps:
        made.step(step)
    return made.model(*models)


def compiled(made: ChainMaker) -> CompiledChain:
    plan = made.load()
    weights = weights_of(tuple(plan.model.fold_ids), None)
    found = compile_chain(plan, weights, X[:12], None, Bench(made.shelf))
    assert isinstance(found, CompiledChain), found.notes
    return found


@settings(max_examples=15, deadline=None)
@given(
    names=st.lists(st.sampled_from([*STEPS][2:]), min_size=1, max_size=3),
    first=st.sampled_from([None, "snv", "norm"]),
    model=st.sampled_from(MODELS),
    rows=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_filters_and_scalers_are_the_front_of_the_kernels(
    names: list[str], first: str | None, model: Callable[[], Any], rows: int, seed: int
) -> None:
    made = maker([STEPS[name]() for name in ([first] if first else []) + names], model)
    found, some = compiled(made), spectra(rows, WIDTH, seed)
    expected = execute(made.load(), some)
    assert np.abs(found.apply(some) - expected).max() <= 1e-10 * np.abs(expected).max()
    assert found.start == 0
    assert found.statistic is not None
    assert found.statistic.front is not None
    assert found.holds_together()


@settings(max_examples=25, deadline=None)
@given(
    apart=st.sampled_from([0.0, 1e-4, 0.02, 0.1, 0.5, 3.0]),
    gamma=st.sampled_from([0.0, 1e-7, 0.02, 40.0]),
    targets=st.integers(1, 3),
    rows=st.integers(1, 200),
    seed=st.integers(0, 99),
)
def test_folds_of_like_gammas_give_what_each_kernel_gives_by_itself(
    apart: float, gamma: float, targets: int, rows: int, seed: int
) -> None:
    numbers = np.random.default_rng(seed)
    gammas = gamma * np.repeat([1.0, 1.0 + apart / 2, 1.0 + apart], 20)
    which = numbers.integers(0, len(X), len(gammas))
    weights, some = numbers.normal(size=(targets, len(gammas))), spectra(rows, WIDTH, seed)
    distances = ((some[:, None, :] - X[which]) ** 2).sum(axis=2)
    expected = np.exp(-gammas * distances) @ weights.T + 0.5
    statistic, center = RowStatistic("radial", 0.0, np.column_stack([gammas, which]), X), numbers.random(len(gammas))
    found = mapped(statistic, some, weights, 0.5 + weights @ center, center)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(weights).sum())


@pytest.mark.parametrize(
    ("names", "start", "front"),
    [([], 0, False), (["snv"], 0, True), (["power", "smooth"], 1, True), (["smooth", "pca"], 2, False)],
)
def test_what_is_neither_runs_plainly_before_it(names: list[str], start: int, front: bool) -> None:
    others = {"power": PowerTransformer, "pca": lambda: PCA(9)}
    made = maker([(STEPS | others)[name]() for name in names], MODELS[0])
    found = compiled(made)
    assert found.statistic is not None
    assert (found.start, found.statistic.front is not None) == (start, front)


def test_a_front_is_stored_with_its_chain(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "ws") as store:
        pipeline = begin(store)
        steps = [STEPS[name]() for name in ("snv", "smooth", "minmax")]
        chain = put_chain(store, pipeline, *fitted(steps, MODELS[0]))
        others = [
            put_chain(store, pipeline, *fitted([STEPS[name]() for name in names], MODELS[1]))
            for names in (["norm", "smooth"], ["smooth"])
        ]
        expected = [plain(store, one, NEW) for one in (chain, *others)]
        np.testing.assert_allclose(store.replay_chains([chain, *others], NEW), expected, rtol=1e-10)
    with WorkspaceStore(tmp_path / "ws") as store:
        found = store.replay_chains([chain, *others], NEW)
        assert all(store.replay_plan(one).compiled for one in (chain, *others))
        loaded = "".join(str(store.replay_plan(one)) for one in (chain, *others))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert loaded.count("row statistic") == 2


@pytest.mark.parametrize("names", [[], ["smooth"], ["snv", "smooth"]])
def test_infinite_spectra_are_refused_not_predicted_as_far_away(names: list[str], tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "ws") as store:
        chain = put_chain(store, begin(store), *fitted([STEPS[name]() for name in names], MODELS[1]))
        store.replay_chain(chain, NEW)
        assert store.replay_plan(chain).compiled
        for column in range(0, WIDTH, 10):
            holes = NEW.copy()
            holes[3, column] = np.inf
            with pytest.raises(InvalidInputError, match="infinite"):
                store.replay_chain(chain, holes)


def test_spectra_whose_squares_are_infinite_are_predicted_as_the_model_does(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "ws") as store:
        chain, far = put_chain(store, begin(store), *fitted([], MODELS[1])), 1e200 * NEW
        store.replay_chain(chain, NEW)
        np.testing.assert_allclose(store.replay_chain(chain, far), plain(store, chain, far), rtol=1e-10)
