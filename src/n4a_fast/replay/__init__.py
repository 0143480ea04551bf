"""Replay: predictions of stored chains on new spectra.

`replay_chain` and `replay_chains` are the documented functions; `load_chain` and `execute` are the
plain path, which the fast one is tested against. What a step is: `kinds`; how the rows are read:
`load`; operators without artifacts: `recreate`; folds: `folds` and `combine`. The fast path: what is
linear `operators`, one chain as weights `fuse`, remembered by `replayer`, many at once `batch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from n4a_fast.replay.fused.linear_operators import register_linear_operator
from n4a_fast.replay.plain.execute import execute
from n4a_fast.replay.plan.folds import Folds, FoldWeights
from n4a_fast.replay.plan.load import load_chain
from n4a_fast.replay.plan.replay_plan import ReplayPlan
from n4a_fast.replay.serve.batch import MAX_BYTES

__all__ = [
    "FoldWeights",
    "Folds",
    "ReplayPlan",
    "execute",
    "load_chain",
    "register_linear_operator",
    "replay_chain",
    "replay_chains",
]


class Replays(Protocol):
    """A store, as far as replay needs one."""

    def replay_chain(
        self,
        chain_id: str,
        X: Any,
        wavelengths: Any = None,
        *,
        folds: Any = "auto",
        fold_weights: Any = None,
        return_proba: bool = False,
    ) -> NDArray[Any]: ...

    def replay_chains(
        self,
        chain_ids: Sequence[str],
        X: Any,
        wavelengths: Any = None,
        *,
        folds: Any = "auto",
        fold_weights: Any = None,
        return_proba: bool = False,
        n_jobs: int = 1,
        threads: int = 1,
        progress: Callable[[int, int], object] | None = None,
        max_bytes: int = MAX_BYTES,
        out: Any = None,
    ) -> Any: ...


def replay_chain(
    store: Replays,
    chain_id: str,
    X: Any,
    wavelengths: Any = None,
    *,
    folds: Folds = "auto",
    fold_weights: FoldWeights | None = None,
    return_proba: bool = False,
) -> NDArray[Any]:
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
    return store.replay_chain(
        chain_id, X, wavelengths, folds=folds, fold_weights=fold_weights, return_proba=return_proba
    )


def replay_chains(
    store: Replays,
    chain_ids: Sequence[str],
    X: Any,
    wavelengths: Any = None,
    *,
    folds: Folds = "auto",
    fold_weights: FoldWeights | None = None,
    return_proba: bool = False,
    n_jobs: int = 1,
    threads: int = 1,
    progress: Callable[[int, int], object] | None = None,
    max_bytes: int = MAX_BYTES,
    out: Any = None,
) -> Any:
    """Predictions of many stored chains for the same spectra, one row a chain in the order of the ids.

    The other arguments are those of `replay_chain` and hold for every chain. Chains with the same row
    statistic are one matrix product, common steps run once. `n_jobs` processes (joblib) share the chains
    that are not linear; `threads` share the spectra of the others; `progress(done, total)` is called as chains get
    done; `max_bytes` bounds the memory beside X and the result.

    More than memory holds: X may be a mapped array, an iterator of blocks (rows, columns), a pyarrow RecordBatchReader
    or the path of a Parquet file (a column a wavelength, or one of lists), and `out` an array to fill, mapped or not,
    or the path of a `.npy` or `.parquet` file, which appears whole or not at all and is returned. Spectra are read
    block by block then, `max_bytes` holds for all of it together, and `progress` counts spectra. Chains that look at
    several spectra at once are refused.

    Returns (n_chains, n_samples), for several targets or with `return_proba` (n_chains, n_samples, n), or `out`.
    Chains whose predictions differ in shape, or labels and numbers mixed, raise InvalidInputError. One
    chain that fails fails the call.
    """
    return store.replay_chains(
        chain_ids,
        X,
        wavelengths,
        folds=folds,
        fold_weights=fold_weights,
        return_proba=return_proba,
        n_jobs=n_jobs,
        threads=threads,
        progress=progress,
        max_bytes=max_bytes,
        out=out,
    )
