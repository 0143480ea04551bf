"""What the replay tests share: artifacts in memory, chains in plain dicts, small real data."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from n4a_fast.errors import NotFoundError
from n4a_fast.replay import execute, load_chain

N_SAMPLES, WIDTH = 24, 12


class Shelf:
    """Stored objects by id: every load is a new copy, as from a store; keeps which ids were asked for."""

    def __init__(self) -> None:
        self._stored: dict[str, bytes] = {}
        self.asked: list[str] = []

    def put(self, obj: Any) -> str:
        artifact_id = f"a{len(self._stored)}"
        self._stored[artifact_id] = pickle.dumps(obj)
        return artifact_id

    def __call__(self, artifact_id: str) -> Any:
        self.asked.append(artifact_id)
        if artifact_id not in self._stored:
            raise NotFoundError("artifact", artifact_id)
        return pickle.loads(self._stored[artifact_id])


def spectra(rows: int = N_SAMPLES, width: int = WIDTH, seed: int = 0) -> np.ndarray[Any, Any]:
    """Positive, smooth and a little noisy, as absorbances are."""
    random = np.random.default_rng(seed)
    bands = np.exp(-(((np.arange(width) - random.uniform(0, width, (rows, 1))) / 4.0) ** 2))
    return bands + 0.5 + 0.01 * random.random((rows, width))


def target(X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return 20.0 + X @ np.linspace(-1.0, 2.0, X.shape[1])


def ridge(X: np.ndarray[Any, Any], y: np.ndarray[Any, Any], alpha: float = 1.0) -> Ridge:
    return Ridge(alpha=alpha).fit(X, y)


class ChainMaker:
    """A chain built step by step from fitted objects, in the form that `get_chain` returns."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.chain: dict[str, Any] = {
            "chain_id": "c1",
            "pipeline_id": "p1",
            "steps": [],
            "model_step_idx": 0,
            "model_class": "",
            "preprocessings": "",
            "fold_strategy": "per_fold",
            "fold_artifacts": {},
            "shared_artifacts": {},
            "branch_path": None,
            "source_index": None,
            "created_at": None,
        }

    def step(self, *operators: Any, name: str | None = None, params: Any = None, **more: Any) -> ChainMaker:
        """A step with these fitted operators as its shared artifacts; without any, one without artifacts."""
        index = len(self.chain["steps"]) + 1
        ids = [self.shelf.put(operator) for operator in operators]
        name = name or (type(operators[0]).__name__ if operators else "?")
        self.chain["steps"].append(
            {
                "step_idx": index,
                "operator_class": name,
                "params": params or {},
                "artifact_ids": ids,
                "stateless": not ids,
                **more,
            }
        )
        if ids:
            self.chain["shared_artifacts"][str(index)] = ids
        return self

    def model(self, *folds: Any, keys: Mapping[str, Any] | None = None, **more: Any) -> ChainMaker:
        """The model step: one model a fold, "fold_0" onwards, or by the keys given."""
        by_key = dict(keys) if keys else {f"fold_{number}": model for number, model in enumerate(folds)}
        index = len(self.chain["steps"]) + 1
        self.chain["fold_artifacts"] = {key: self.shelf.put(model) for key, model in by_key.items()}
        ids = list(self.chain["fold_artifacts"].values())
        name = type(next(iter(by_key.values()))).__name__ if by_key else "Ridge"
        self.chain["steps"].append(
            {"step_idx": index, "operator_class": name, "params": {}, "artifact_ids": ids, "stateless": False, **more}
        )
        self.chain["model_step_idx"] = index
        return self

    def load(self, **options: Any) -> Any:
        return load_chain(self.chain, self.shelf, **options)

    def predict(self, X: Any, wavelengths: Any = None, **options: Any) -> Any:
        return execute(self.load(), X, wavelengths, **options)


class Shifted:
    """A transformer that is no scikit-learn estimator; writes into its input when told to."""

    def __init__(self, by: float, in_place: bool = False) -> None:
        self.by, self.in_place = by, in_place

    def transform(self, X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if self.in_place:
            X += self.by
            return X
        return X + self.by


class InPlaceModel:
    """A model that changes the spectra it is given."""

    def predict(self, X: np.ndarray[Any, Any]) -> Any:
        X *= 2.0
        return X.sum(axis=1)


class Constant:
    """A regression model that always says the same."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def predict(self, X: np.ndarray[Any, Any]) -> Any:
        return np.tile(np.array(self.values), (len(X), 1))


class Voter:
    """A classifier without probabilities that always says the same."""

    def __init__(self, label: Any, classes: Any) -> None:
        self.label, self.classes_ = label, np.asarray(classes)

    def predict(self, X: np.ndarray[Any, Any]) -> Any:
        return np.full(len(X), self.label, dtype=self.classes_.dtype)


class SoftVoter(Voter):
    """A classifier with the same probabilities for every sample."""

    def __init__(self, proba: Any, classes: Any) -> None:
        super().__init__(np.asarray(classes)[int(np.argmax(proba))], classes)
        self.proba = np.asarray(proba, dtype=float)

    def predict_proba(self, X: np.ndarray[Any, Any]) -> Any:
        return np.tile(self.proba, (len(X), 1))


class Aware:
    """A transformer that asks for wavelengths by its signature, optionally."""

    def transform(self, X: np.ndarray[Any, Any], wavelengths: Any = None) -> Any:
        return X if wavelengths is None else X * wavelengths


class Needy:
    """A transformer that cannot work without wavelengths."""

    def transform(self, X: np.ndarray[Any, Any], wavelengths: Any) -> Any:
        return X * wavelengths


class Flagged:
    """A transformer in the manner of nirs4all: any keyword, and a flag that says what it needs."""

    def __init__(self, flag: Any) -> None:
        self._requires_wavelengths = flag

    def transform(self, X: np.ndarray[Any, Any], **kwargs: Any) -> Any:
        assert not kwargs or self._requires_wavelengths
        return X * kwargs.get("wavelengths", 1.0)


class AnyKeyword:
    """A transformer that takes keywords but does not know wavelengths."""

    def transform(self, X: np.ndarray[Any, Any], **kwargs: Any) -> Any:
        assert not kwargs
        return X


class Returns:
    """A transformer that gives what a function makes of the spectra (which must be a module's)."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def transform(self, X: np.ndarray[Any, Any]) -> Any:
        return self.function(X)
