"""Chains that run plainly, several of them on one X: common steps once, chains over processes.

The steps of each chain run here, once for all chains that begin alike; the models of a chain run
here or in a worker process, which loads them itself from their files, verified. Predictions come as
they get done, each as the plain path gives it.

A. Forests go to threads: a tree is one call without the interpreter's lock, and a new process takes
   two seconds to import scikit-learn. Both are hints: a backend that the caller has set for joblib counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import joblib
import numpy as np
from numpy.typing import NDArray

from n4a_fast.replay.fused.stages import Bench, line_of
from n4a_fast.replay.plain.combine import combine
from n4a_fast.replay.plain.execute import plain_features
from n4a_fast.replay.plain.inputs import read_spectra, read_wavelengths
from n4a_fast.replay.plan.folds import Folds, choose, read_folds, weights_of
from n4a_fast.replay.plan.load import load_chain
from n4a_fast.replay.plan.recreate import Resolve
from n4a_fast.replay.plan.replay_plan import Place, ReplayPlan
from n4a_fast.replay.serve.forests import RowsOfTrees, StandIns, is_ensemble, quickened
from n4a_fast.replay.serve.replayer import Choice, Replayer, loader_for
from n4a_fast.tables.chains import artifact_ids
from n4a_fast.values import checks

Array: TypeAlias = NDArray[np.float64]
Chain: TypeAlias = Mapping[str, Any]
Load: TypeAlias = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What one call was asked for."""

    X: Any
    wavelengths: Any
    choice: Choice
    return_proba: bool
    n_jobs: int
    threads: int
    max_bytes: int

    def __post_init__(self) -> None:
        for name in ("n_jobs", "threads", "max_bytes"):
            object.__setattr__(self, name, checks.integer(getattr(self, name), name, checks.INT64))


def plain_predictions(
    replayer: Replayer, chain_ids: Sequence[str], work: Work, bench: Bench
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Predictions of these chains, those with common steps after each other."""
    if not chain_ids:
        return
    chains, named = replayer.require(chain_ids), replayer.class_named
    plans = {chain_id: replayer.load_steps(chains[chain_id], bench) for chain_id in chain_ids}
    names = {chain_id: _names(plan, bench) for chain_id, plan in plans.items()}
    with ExitStack() as open_pools:  # workers for all of the call: Ray's take seconds to begin, and to end
        pools: dict[str, Any] = {}
        for listed in _by_beginning(chain_ids, names):
            features, given = _features(plans[listed[0]], work, bench)
            if work.n_jobs == 1:
                trees = replayer.stand_ins, RowsOfTrees()
                for one in listed:
                    load = loader_for(chains[one], bench)
                    yield one, _predicted(chains[one], load, named, work, features, given, *trees)
                continue
            # files alone: a thread that asked the store would wait for a transaction that waits for it
            load = replayer.reader([artifact for one in listed for artifact in _artifacts_of(chains[one])])
            first = load_chain(chains[listed[0]], load, folds=work.choice.folds, resolve=named)
            hint = "threads" if all(is_ensemble(model) for model in first.model.models.values()) else "processes"
            if hint not in pools:
                pool = joblib.Parallel(n_jobs=work.n_jobs, prefer=hint, return_as=_returned_as(hint))
                pools[hint] = open_pools.enter_context(pool)
            task = joblib.delayed(_predicted)
            tasks = (task(chains[one], load, named, _for_worker(work), features, given) for one in listed)
            yield from zip(listed, pools[hint](tasks), strict=True)


def _by_beginning(chain_ids: Sequence[str], names: Mapping[str, tuple[str, ...]]) -> Iterator[list[str]]:
    """The chains whose models are given the same, together."""
    for _, alike in groupby(sorted(chain_ids, key=names.__getitem__), key=names.__getitem__):
        yield list(alike)


def _returned_as(hint: str) -> str:
    """Predictions as they get done, where joblib's backend can: Ray's gives them together."""
    backend, _ = joblib.parallel.get_active_backend(prefer=hint)
    return "generator" if getattr(backend, "supports_return_generator", False) else "list"


def require_models(replayer: Replayer, chains: Iterable[Chain], folds: Folds) -> None:
    """An error unless these chains have such folds and the files of their models are there; nothing is loaded."""
    models: list[str] = []
    for chain in chains:
        stored = read_folds(
            chain["fold_artifacts"], Place(chain["chain_id"], int(chain["model_step_idx"]), chain["model_class"])
        )
        models += [stored[key] for key in (choose(tuple(stored), folds) if stored else ())]
    if models:
        replayer.reader(models).require_files(models)


def _artifacts_of(chain: Chain) -> list[str]:
    own = [step.get(name) for step in chain["steps"] for name in ("artifact_id", "artifact_ids")]
    return [*artifact_ids(own), *artifact_ids(chain["fold_artifacts"]), *artifact_ids(chain["shared_artifacts"])]


def _for_worker(work: Work) -> Work:
    """The same without the spectra, which the worker does not need."""
    return Work(None, None, work.choice, work.return_proba, 1, work.threads, work.max_bytes)


def _names(plan: ReplayPlan, bench: Bench) -> tuple[str, ...]:
    """Equal for chains whose models are given the same."""
    stages = line_of(plan, bench.names)
    source = "" if plan.source_index is None else str(plan.source_index)
    return (plan.chain_id,) if stages is None else (source, *(stage.name for stage in stages))


def _features(plan: ReplayPlan, work: Work, bench: Bench) -> tuple[Array, int]:
    stages = line_of(plan, bench.names)
    if stages is None:
        return plain_features(plan, work.X, work.wavelengths)
    spectra = read_spectra(plan, work.X)
    axes = read_wavelengths(plan, work.wavelengths, spectra)
    return bench.after(stages, spectra[0], axes[0], f"X{plan.source_index}"), spectra[0].shape[1]


def _predicted(
    chain: Chain,
    load: Load,
    named: Resolve,
    work: Work,
    features: Array,
    given: int,
    made: StandIns | None = None,
    rows: RowsOfTrees | None = None,
) -> NDArray[Any]:
    """The models of one chain on what its steps left; also the task of a worker process."""
    plan = quickened(load_chain(chain, load, folds=work.choice.folds, resolve=named), made or StandIns(), rows)
    weights = weights_of(choose(tuple(plan.model.fold_ids), work.choice.folds), work.choice.fold_weights)
    return combine(plan.model.models, weights, features, given, plan.targets, plan.model.place, work.return_proba)
