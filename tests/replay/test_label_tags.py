"""Whether a classifier gives several labels a sample is told by its fitted state, not by what it predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import is_classifier
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier, RidgeClassifierCV
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from n4a_fast.replay.plan.tags import labels_several

X = np.random.default_rng(0).random((30, 4))
ONE = (X[:, 0] > 0.5).astype(int)
SEVERAL = np.c_[ONE, X[:, 1] > 0.5].astype(int)
FORESTS = {"n_estimators": 2, "random_state": 0}
CLASSIFIERS = [
    DecisionTreeClassifier(),
    ExtraTreeClassifier(),
    RandomForestClassifier(**FORESTS),
    ExtraTreesClassifier(**FORESTS),
    KNeighborsClassifier(3),
    RadiusNeighborsClassifier(9.0),
    MLPClassifier((3,), solver="lbfgs", max_iter=15_000, max_fun=30_000, random_state=0),
    RidgeClassifier(),
    RidgeClassifierCV(),
    DummyClassifier(),
    OneVsRestClassifier(LogisticRegression()),
]
WITHIN = [
    make_pipeline(StandardScaler(), KNeighborsClassifier(3)),
    GridSearchCV(RidgeClassifier(), {"alpha": [0.1, 1.0]}, cv=2),
]


@pytest.mark.parametrize("model", CLASSIFIERS + WITHIN, ids=lambda model: str(type(model).__name__))
@pytest.mark.parametrize("targets", [ONE, SEVERAL], ids=["one", "several"])
def test_the_fitted_state_tells(model: Any, targets: Any) -> None:
    assert is_classifier(model)
    model.fit(X, targets)
    assert np.asarray(model.predict(X)).ndim == targets.ndim
    assert labels_several(model, 0) == (targets.ndim == 2)  # without a spectrum to ask for


class Foreign:
    """A classifier that declares nothing."""

    def __init__(self, labels: int) -> None:
        self.labels = labels

    def predict(self, spectra: Any) -> Any:
        return np.zeros((len(spectra), self.labels))


@pytest.mark.parametrize("labels", [1, 2])
def test_a_foreign_classifier_is_asked(labels: int) -> None:
    assert labels_several(Foreign(labels), 4) == (labels == 2)


def test_a_classifier_that_says_to_be_wider_than_any_spectrum_is_not_asked() -> None:
    assert not labels_several(Foreign(2), 10**12)  # a spectrum of 8 TB
