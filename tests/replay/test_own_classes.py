"""Operators whose classes are in the running script, or cannot be pickled: replayed everywhere, shared only where they
are equal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import child, finish
from replay_chains import spectra, target
from replay_stores import begin, plain, put_chain
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression

from n4a_fast import WorkspaceStore

# two classes of one name, so that equal names must not mean equal operators
SAVING = """
import sys
import numpy as np
from replay_stores import begin, plain, put_chain
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression
from n4a_fast import WorkspaceStore
from n4a_fast.replay import register_linear_operator

def filters(power):
    class MyFilter(TransformerMixin, BaseEstimator):
        def __init__(self, factor=1.0):
            self.factor = factor
        def fit(self, X, y=None):
            return self
        def transform(self, X):
            return self.factor * np.abs(X) ** power
    return MyFilter

class MyFilter(TransformerMixin, BaseEstimator):
    def __init__(self, factor=1.0):
        self.factor = factor
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        return self.factor * X

if sys.argv[2] == "registered":
    register_linear_operator(MyFilter, lambda one, width: np.full(width, one.factor))
X = np.load(sys.argv[1] + "/X.npy")
y = X[:, 0] + X[:, 3] ** 2
with WorkspaceStore(sys.argv[1]) as store:
    pipeline = begin(store)
    used = [MyFilter(2.0), MyFilter(3.0), filters(0.5)(2.0), filters(2.0)(2.0)]
    chains = [put_chain(store, pipeline, [one], [LinearRegression().fit(X, y)]) for one in used]
    together = store.replay_chains(chains, X)
    for chain, found in zip(chains, together):
        np.testing.assert_allclose(found, plain(store, chain, X), rtol=0.0, atol=1e-9)
        for _ in range(2):
            np.testing.assert_allclose(store.replay_chain(chain, X), found, rtol=0.0, atol=1e-9)
    assert len(np.unique(together[:, 0])) == 4
    np.save(sys.argv[1] + "/expected.npy", together)
print(*chains)
"""


@pytest.mark.parametrize("how", ["registered", "unknown"])
def test_classes_of_the_script_are_replayed_by_the_process_that_saved_them_and_by_others(
    tmp_path: Path, how: str
) -> None:
    X = spectra(30, 8, seed=5)
    np.save(tmp_path / "X.npy", X)
    chains = finish(child(SAVING, tmp_path, how)).split()
    with WorkspaceStore(tmp_path) as store:
        expected = np.load(tmp_path / "expected.npy")
        np.testing.assert_allclose(store.replay_chains(chains, X), expected, rtol=0.0, atol=1e-9)
        np.testing.assert_allclose([store.replay_chain(chain, X) for chain in chains], expected, rtol=0.0, atol=1e-9)


class Unpicklable(TransformerMixin, BaseEstimator):
    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def fit(self, X: Any, y: Any = None) -> Unpicklable:
        return self

    def transform(self, X: Any) -> Any:
        return np.abs(X) ** self.power

    def __reduce__(self) -> Any:
        raise OSError("it holds a device")

    def __deepcopy__(self, memo: Any) -> Unpicklable:
        return Unpicklable(self.power)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


def test_operators_made_from_parameters_that_cannot_be_pickled_are_not_shared(
    store: WorkspaceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "own_operators", sys.modules[__name__])
    X, pipeline = spectra(30, 8, seed=5), begin(store)
    model = LinearRegression().fit(X, target(X))
    chains = [
        put_chain(store, pipeline, [["own_operators.Unpicklable", {"power": power}]], [model]) for power in (0.5, 2.0)
    ]
    for found in (store.replay_chains(chains, X), [store.replay_chain(chain, X) for chain in chains]):
        np.testing.assert_allclose(found, [plain(store, chain, X) for chain in chains], rtol=0.0, atol=1e-9)
    assert not np.allclose(*store.replay_chains(chains, X))
