"""Replay: predictions of stored chains on new spectra.

`replay_chain` is the documented function; `load_chain` and `execute` are its two halves, for callers
that predict more than once with the same chain. What a step is: `kinds`; how the rows are read:
`load`; operators without artifacts: `recreate`; folds: `folds` and `combine`.
"""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from n4a_fast.errors import NotFoundError
from n4a_fast.replay.execute import execute
from n4a_fast.replay.folds import Folds, FoldWeights
from n4a_fast.replay.load import load_chain
from n4a_fast.replay.plan import ReplayPlan

__all__ = ["FoldWeights", "Folds", "ReplayPlan", "execute", "load_chain", "replay_chain"]


class ChainSource(Protocol):
    """A store, as far as replay needs one."""

    def get_chain(self, chain_id: str) -> dict[str, Any] | None: ...

    def load_artifact(self, artifact_id: str) -> Any: ...


def replay_chain(
    store: ChainSource, chain_id: str, X: Any, wavelengths: Any = None, *,
    folds: Folds = "auto", fold_weights: FoldWeights | None = None, return_proba: bool = False,
) -> NDArray[Any]:  # fmt: skip
    """Predictions of a stored chain for the spectra in X, samples in rows, computed in float64.

    X is one array, or a list of arrays for a chain over several sources, and is left unchanged;
    `wavelengths`, one a column of X, are passed to the operators that ask for them. `folds`: "auto"
    takes the refit alone when there is one, else all folds; "final"; "all" (or "cv"), the folds of
    the cross-validation; or fold keys such as `[0, 2]`. `fold_weights` (a sequence in the order of
    the folds used, by number unless you list them, or a mapping by fold key) are scaled to sum to 1;
    without them folds count alike. Regressors are averaged in the unit of the targets, classifiers
    by probability.

    Returns (n_samples,) for one target, (n_samples, n_targets) for several, labels for a classifier,
    or with `return_proba=True` its probabilities (n_samples, n_classes) in the order of `classes_`.
    Raises NotFoundError for an unknown chain or artifact, InvalidInputError for arguments that do not
    fit the chain (width, NaN, wavelengths, folds), ReplayError for a chain that cannot be replayed.
    """
    chain = store.get_chain(chain_id)
    if chain is None:
        raise NotFoundError("chain", chain_id)
    plan = load_chain(chain, store.load_artifact, folds=folds)
    return execute(plan, X, wavelengths, folds=folds, fold_weights=fold_weights, return_proba=return_proba)
