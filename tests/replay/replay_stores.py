"""Chains in a real store, for the tests of fused and batched replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from chemotools.derivative import SavitzkyGolay
from chemotools.scatter import StandardNormalVariate
from replay_chains import ChainMaker
from sklearn.cross_decomposition import PLSRegression
from sklearn.preprocessing import MinMaxScaler

from n4a_fast import WorkspaceStore
from n4a_fast.replay import execute, load_chain


def begin(store: WorkspaceStore) -> str:
    """A pipeline to put chains in."""
    return store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "d", "h")


def put_chain(
    store: WorkspaceStore,
    pipeline: str,
    steps: Sequence[Any],
    folds: Sequence[Any] | Mapping[str, Any],
    *,
    y_steps: Sequence[Any] = (),
    **more: Any,
) -> str:
    """A chain of fitted operators and fold models; an operator in a list is a step without artifact: [class name,
    parameters].
    """
    listed: list[dict[str, Any]] = []
    shared: dict[str, list[str]] = {}
    for operator, kind in [*((step, None) for step in steps), *((step, "y_processing") for step in y_steps)]:
        index = len(listed) + 1
        step: dict[str, Any] = {"step_idx": index, "params": {}, "artifact_id": None, "stateless": False}
        if isinstance(operator, list):
            step |= {"operator_class": operator[0], "params": operator[1], "stateless": True}
        else:
            shared[str(index)] = [store.save_artifact(operator, type(operator).__name__, "transformer", "cloudpickle")]
            step |= {"operator_class": type(operator).__name__}
        listed.append(step | ({"kind": kind} if kind else {}))
    named = folds if isinstance(folds, Mapping) else {f"fold_{number}": model for number, model in enumerate(folds)}
    models = {
        key: store.save_artifact(model, type(model).__name__, "model", "cloudpickle") for key, model in named.items()
    }
    index = len(listed) + 1
    listed.append({"step_idx": index, "operator_class": "model", "params": {}, "artifact_id": None, "stateless": False})
    return store.save_chain(pipeline, listed, index, "model", "", "per_fold", models, shared, **more)


def put_maker(store: WorkspaceStore, maker: ChainMaker) -> str:
    """A chain that was built in memory, in the store."""
    pipeline = begin(store)
    steps = [
        (step, maker.chain["shared_artifacts"].get(str(step["step_idx"]), [])) for step in maker.chain["steps"][:-1]
    ]
    operators = [maker.shelf(ids[0]) for step, ids in steps if "kind" not in step]
    y_steps = [maker.shelf(ids[0]) for step, ids in steps if "kind" in step]
    models = {key: maker.shelf(artifact_id) for key, artifact_id in maker.chain["fold_artifacts"].items()}
    return put_chain(store, pipeline, operators, models, y_steps=y_steps)


def plain(store: WorkspaceStore, chain_id: str, X: Any, wavelengths: Any = None, **choice: Any) -> Any:
    """The plain path, which every fast path must agree with."""
    chain = store.get_chain(chain_id)
    assert chain is not None
    return execute(load_chain(chain, store.load_artifact), X, wavelengths, **choice)


def fitted_steps(X: np.ndarray[Any, Any], steps: Sequence[Any]) -> tuple[list[Any], np.ndarray[Any, Any]]:
    """Transformers fitted one after the other, and what they leave."""
    done = []
    for step in steps:
        done.append(step.fit(X))
        X = np.asarray(step.transform(X))
    return done, X


def pls_chain(
    store: WorkspaceStore,
    pipeline: str,
    X: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    components: int = 3,
    deriv: int = 1,
) -> str:
    """SNV > Savitzky-Golay > MinMax > PLS with three folds."""
    steps, Z = fitted_steps(
        X, [StandardNormalVariate(), SavitzkyGolay(window_length=5, polyorder=2, deriv=deriv), MinMaxScaler()]
    )
    rows = [np.arange(len(Z)) % 3 != fold for fold in range(3)]
    return put_chain(store, pipeline, steps, [PLSRegression(components).fit(Z[kept], y[kept]) for kept in rows])
