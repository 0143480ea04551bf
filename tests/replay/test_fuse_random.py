"""Random chains over the registry, spectra in every layout: fused, stored and batched replay against the plain path."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import chemotools.baseline as ct_baseline
import chemotools.derivative as ct_derivative
import chemotools.scale as ct_scale
import chemotools.scatter as ct_scatter
import chemotools.smooth as ct_smooth
import numpy as np
import pytest
from helpers import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay_chains import ChainMaker, spectra, target
from replay_stores import put_maker
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Lasso, Ridge
from sklearn.preprocessing import MinMaxScaler, Normalizer, PowerTransformer, RobustScaler, StandardScaler
from sklearn.svm import SVR

from n4a_fast import WorkspaceStore
from n4a_fast.replay import execute
from n4a_fast.replay.fused.compile import TOLERANCE, compile_chain
from n4a_fast.replay.fused.compiled import CompiledChain, PlainChain
from n4a_fast.replay.fused.linear_operators import register_linear_operator
from n4a_fast.replay.fused.stages import Bench
from n4a_fast.replay.plain.inputs import finite
from n4a_fast.replay.plan.folds import weights_of

pytestmark = pytest.mark.filterwarnings("ignore")
Array = np.ndarray[Any, Any]

X = spectra(48, 30, seed=3)
y = target(X) + np.random.default_rng(1).normal(0, 0.05, len(X))
Y = np.stack([y, 0.3 * y**2], axis=1)

STEPS: dict[str, Callable[[], Any]] = {
    "snv": ct_scatter.StandardNormalVariate,
    "msc": ct_scatter.MultiplicativeScatterCorrection,
    "emsc": ct_scatter.ExtendedMultiplicativeScatterCorrection,
    "norm": ct_scale.NormScaler,
    "l1": lambda: Normalizer(norm="l1"),
    "derivative": lambda: ct_derivative.SavitzkyGolay(window_length=7, polyorder=2),
    "smooth": lambda: ct_smooth.WhittakerSmooth(lam=5.0),
    "linear": ct_baseline.LinearCorrection,
    "standard": StandardScaler,
    "minmax": MinMaxScaler,
    "robust": RobustScaler,
    "pca": lambda: PCA(6),
    "clipped": lambda: MinMaxScaler(clip=True),
    "power": PowerTransformer,
    "rubber": ct_baseline.RubberbandCorrection,
}
MODELS: dict[str, Callable[[], Any]] = {
    "pls": lambda: PLSRegression(3),
    "ridge": Ridge,
    "lasso": lambda: Lasso(0.01),
    "svr": lambda: SVR(C=10.0),
    "forest": lambda: RandomForestRegressor(3, random_state=0),
}
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda a: a[::-1][::-1],
    "float32": lambda a: a.astype(np.float32),
    "one row": lambda a: a[:1],
    "read-only": lambda a: _frozen(a.copy()),
    "big-endian": lambda a: a.astype(">f8"),
}


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


def chain(steps: list[str], model: str, targets: bool, scaled: bool, n_folds: int) -> ChainMaker:
    maker, Z, goal = ChainMaker(), X, Y if targets and model in ("pls", "ridge", "lasso", "forest") else y
    for name in steps:
        operator = STEPS[name]().fit(Z)
        maker.step(operator)
        Z = np.asarray(operator.transform(Z))
    if scaled:
        scaler = StandardScaler().fit(goal.reshape(len(X), -1))
        maker.step(scaler, kind="y_processing")
        goal = scaler.transform(goal.reshape(len(X), -1)).reshape(goal.shape)
    return maker.model(
        *(
            MODELS[model]().fit(np.delete(Z, slice(n, None, 3), 0), np.delete(goal, slice(n, None, 3), 0))
            for n in range(n_folds)
        )
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceStore]:
    with WorkspaceStore(tmp_path_factory.mktemp("random")) as opened:
        yield opened


@pytest.mark.long
@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=4),
    model=st.sampled_from(sorted(MODELS)),
    targets=st.booleans(),
    scaled=st.booleans(),
    n_folds=st.integers(1, 3),
    layout=st.sampled_from(sorted(LAYOUTS)),
    weighted=st.booleans(),
)
def test_random_chains_agree_with_the_plain_path(
    store: WorkspaceStore,
    steps: list[str],
    model: str,
    targets: bool,
    scaled: bool,
    n_folds: int,
    layout: str,
    weighted: bool,
) -> None:
    maker = chain(steps, model, targets, scaled, n_folds)
    new = LAYOUTS[layout](spectra(9, 30, seed=4))
    before = new.copy()
    choice = {"fold_weights": [3.0, 1.0, 2.0][:n_folds]} if weighted else {}
    chain_id = put_maker(store, maker)
    expected = execute(maker.load(), new, **choice)
    limit = 10 * TOLERANCE * np.abs(expected).max()
    for found in (
        store.replay_chain(chain_id, new, **choice),
        store.replay_chain(chain_id, new, **choice),
        store.replay_chains([chain_id], new, **choice)[0],
    ):
        assert found.shape == expected.shape
        assert found.dtype == np.float64
        assert np.abs(found - expected).max() <= limit, store.replay_plan(chain_id, new)
    np.testing.assert_array_equal(new, before)
    report = store.replay_plan(chain_id, new)
    assert report.compiled != (model == "forest") or "not fused" in report.steps[-1], report


@pytest.mark.parametrize("name", sorted(set(STEPS) - {"clipped", "power", "rubber"}))
@pytest.mark.parametrize("model", ["pls", "ridge"])
def test_linear_chains_do_fuse(name: str, model: str) -> None:
    maker = chain([name, "standard"], model, False, True, 3)
    plan = maker.load()
    compiled = compile_chain(plan, weights_of(tuple(plan.model.fold_ids), None), X[:1], None, Bench(maker.shelf))
    assert isinstance(compiled, CompiledChain), compiled.notes
    assert compiled.start == 0, compiled.notes


def test_spectra_that_a_row_statistic_cannot_take_give_no_finite_value() -> None:
    maker = chain(["msc", "standard"], "pls", False, False, 1)
    plan = maker.load()
    compiled = compile_chain(plan, weights_of(("0",), None), X, None, Bench(maker.shelf))
    assert isinstance(compiled, CompiledChain)
    for bad in (np.nan, np.inf, 0.0):
        new = X[:3].copy()
        new[1] = bad
        assert not finite(compiled.apply(new))


class Lies:
    """Registered as linear below, and is not."""

    def transform(self, rows: Array) -> Array:
        return np.asarray(np.abs(rows - 1.0))


class SlightlyBent:
    """As good as linear: off by 1e-8."""

    def transform(self, rows: Array) -> Array:
        return np.asarray(rows + 1e-8 * rows**2)


class LooksAround:
    """Adds what is in the other rows."""

    def transform(self, rows: Array) -> Array:
        return np.asarray(rows + rows.mean(axis=0))


class Doubles:
    """Is linear, and was registered by its user with its factor."""

    def transform(self, rows: Array) -> Array:
        return np.asarray(2.0 * rows + 1.0)


def with_registered(operator: Any, rows: Array = X) -> Any:
    maker = ChainMaker().step(operator).model(Ridge().fit(operator.transform(X), y))
    plan = maker.load()
    return compile_chain(plan, weights_of(("0",), None), rows, None, Bench(maker.shelf))


@pytest.mark.parametrize("kind", [Lies, SlightlyBent, LooksAround])
@pytest.mark.parametrize("rows", [1, 24])
@pytest.mark.long
def test_an_operator_that_lies_is_caught_and_reported(kind: type, rows: int) -> None:
    register_linear_operator(kind)
    found = with_registered(kind(), X[:rows])
    assert isinstance(found, PlainChain)
    assert "an operator is not what its entry says" in found.notes[-1]


def test_a_user_can_register_an_operator() -> None:
    assert with_registered(Doubles()).start == 1
    register_linear_operator(Doubles, lambda _, width: np.full(width, 2.0))
    found = with_registered(Doubles())
    assert isinstance(found, CompiledChain)
    assert found.start == 0
    assert found.made_with == ""  # its class is of no installed library, so it must not outlive the process


def test_a_wrong_registration_is_refused() -> None:
    with pytest.raises(ValueError, match="takes a class with transform"):
        register_linear_operator(Ridge)
    with pytest.raises(ValueError, match="role="):
        register_linear_operator(Ridge, role="fit")
    register_linear_operator(Doubles, lambda _, width: np.full(width + 1, 2.0))
    assert "does not fit" in str(with_registered(Doubles()).notes)


def test_an_entry_that_fails_leaves_the_chain_plain() -> None:
    register_linear_operator(Doubles, lambda operator, _: operator.no_such_factor)
    found = with_registered(Doubles())
    assert found.start == 1
    assert "is not what its entry expects" in found.notes[0]


def test_compiled_chains_can_be_pickled() -> None:
    compiled = with_registered(StandardScaler().fit(X))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(compiled)).apply(X), compiled.apply(X))
