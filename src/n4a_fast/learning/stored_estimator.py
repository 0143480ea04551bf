"""A stored chain as an estimator of scikit-learn: its `predict` replays."""

from __future__ import annotations

from typing import Any

import numpy as np

from n4a_fast.errors import ReplayError
from n4a_fast.learning.records import Store


def stored_estimator(store: Store, chain_id: str, classifies: bool, classes: tuple[Any, ...]) -> Any:
    """A fitted regressor or classifier that predicts by replaying a chain of an open store."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    kind: Any = ClassifierMixin if classifies else RegressorMixin

    class StoredChain(kind, BaseEstimator):  # type: ignore[misc]
        """A chain of a store; it is fitted, and cannot be fitted anew."""

        def fit(self, X: Any, y: Any = None) -> Any:
            raise ReplayError(chain_id, "it is stored as it was fitted; cross-validate its estimator anew instead")

        def predict(self, X: Any) -> np.ndarray[Any, Any]:
            """Predictions of the chain."""
            found: np.ndarray[Any, Any] = store.replay_chain(chain_id, X)
            return found

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def __sklearn_clone__(self) -> Any:
            return self  # its state is in the store

        def __repr__(self, N_CHAR_MAX: int = 700) -> str:
            return f"StoredChain({chain_id!r})"

    estimator = StoredChain()
    estimator.chain_id = chain_id
    if classifies:
        estimator.classes_ = np.asarray(classes)
        estimator.predict_proba = lambda X: store.replay_chain(chain_id, X, return_proba=True)
    return estimator


def estimator_of(store: Store, text: str) -> Any:
    """The estimator of the chain that `text` means."""
    chain_id = store.find(text, "chain")
    tasks = store.sql("SELECT task_type FROM predictions WHERE chain_id = ? LIMIT 1", (chain_id,))[
        "task_type"
    ].to_list()
    classes = store.describe_chain(chain_id).input.classes
    return stored_estimator(store, chain_id, bool(classes) or tasks == ["classification"], classes)
