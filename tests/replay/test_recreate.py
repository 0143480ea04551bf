"""Steps without artifacts: re-created when that is safe, refused with the cure when not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chemotools.derivative import SavitzkyGolay
from chemotools.scatter import StandardNormalVariate
from replay_chains import ChainMaker, Constant, ridge, spectra, target
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, Normalizer, PolynomialFeatures

from n4a_fast.artifacts.trust.names import imported_by_path
from n4a_fast.errors import ReplayError
from n4a_fast.replay.plain.execute import plain_features

X = spectra()
SNV = "chemotools.scatter.StandardNormalVariate"


def features(maker: ChainMaker) -> Any:
    """What the model of a chain would be given."""
    return plain_features(maker.load(), X)[0]


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        (SNV, {}, StandardNormalVariate()),
        ("StandardNormalVariate", {"class": SNV, "params": {}}, StandardNormalVariate()),
        ("StandardNormalVariate", {"preprocessing": SNV}, StandardNormalVariate()),
        ("x", {"transform": {"class": SNV}}, StandardNormalVariate()),
        (
            "chemotools.derivative.SavitzkyGolay",
            {"window_length": 5, "polyorder": 2},
            SavitzkyGolay(window_length=5, polyorder=2),
        ),
        ("Normalizer", {"norm": "l1"}, Normalizer(norm="l1")),
        ("Binarizer", {"threshold": 0.7}, Binarizer(threshold=0.7)),
        ("sklearn.preprocessing._data.Normalizer", {}, Normalizer()),
        ("PolynomialFeatures", {"degree": 2}, PolynomialFeatures(degree=2)),
    ],
)
def test_an_operator_that_learns_nothing_is_created_from_class_and_parameters(
    name: str, params: Any, expected: Any
) -> None:
    maker = ChainMaker().step(name=name, params=params).model(Constant(1.0))
    np.testing.assert_array_equal(features(maker), expected.fit_transform(X))


def test_a_chain_of_created_operators_predicts_like_the_pipeline() -> None:
    pipeline = make_pipeline(StandardNormalVariate(), Normalizer()).fit(X)
    model = ridge(pipeline.transform(X), target(X))
    maker = ChainMaker().step(name=SNV).step(name="KFold").step(name="Normalizer").model(model)
    np.testing.assert_allclose(maker.predict(X), model.predict(pipeline.transform(X)), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("MinMaxScaler", {}),
        ("StandardScaler", {}),
        ("PowerTransformer", {}),
        ("sklearn.decomposition.PCA", {"n_components": 2}),
        ("sklearn.feature_selection.VarianceThreshold", {}),
        ("chemotools.scatter.MultiplicativeScatterCorrection", {}),
    ],
)
def test_an_operator_that_learns_from_training_data_is_refused(name: str, params: Any) -> None:
    maker = ChainMaker().step(name=name, params=params).model(Constant(1.0))
    with pytest.raises(ReplayError, match=r"step 1 .*learns from its training data; save the fitted operator"):
        maker.predict(X)


@pytest.mark.parametrize(
    ("name", "params", "named"),
    [
        ("SNV", {}, '"class": "package.module.SNV"'),
        ("StandardNormalVariate", {}, "does not say where its class lives"),
        ("no_such_package.SNV", {}, "no_such_package.SNV, which cannot be imported"),
        ("sklearn.preprocessing.Nothing", {}, "cannot be imported"),
        ("Normalizer", {"nrm": "l1"}, "cannot be made from its stored parameters"),
        ("Normalizer", [1], "params of type list"),
        ("sklearn.preprocessing.scale", {}, "not a class"),
        ("sklearn.linear_model.Ridge", {}, 'add "kind": "skip"'),
        ("", {}, "does not say where"),
        ("sklearn.feature_selection.SelectKBest", {}, "cannot be made ready again"),
    ],
)
def test_an_operator_that_cannot_be_made_is_refused_with_the_cure(name: str, params: Any, named: str) -> None:
    with pytest.raises(ReplayError, match=named):
        ChainMaker().step(name=name, params=params).model(Constant(1.0)).predict(X)


def test_a_step_that_is_not_stateless_needs_its_artifact() -> None:
    with pytest.raises(ReplayError, match="has no artifact and is not marked stateless"):
        ChainMaker().step(name=SNV, stateless=False).model(Constant(1.0)).load()


def test_parameters_may_hold_operators() -> None:
    seen: list[str] = []

    def resolve(name: str) -> Any:
        seen.append(name)
        return imported_by_path(name)

    inner = {"class": "sklearn.preprocessing.Normalizer", "params": {"norm": "max"}}
    maker = (
        ChainMaker().step(name="sklearn.preprocessing.FunctionTransformer", params={"func": inner}).model(Constant(1.0))
    )
    plan = maker.load(resolve=resolve)
    assert plan.steps[0].operators[0][0].func.norm == "max"
    assert seen == ["sklearn.preprocessing.FunctionTransformer", "sklearn.preprocessing.Normalizer"]


def test_a_created_operator_serves_every_source_and_channel() -> None:
    maker = (
        ChainMaker()
        .step(name="Normalizer")
        .step(Normalizer(), Normalizer(norm="l1"), name="Normalizer")
        .model(Constant(1.0))
    )
    ids = maker.chain["shared_artifacts"]["2"]
    maker.chain["shared_artifacts"]["_source_map"] = {"2": {"0": ids[:1], "1": ids[1:]}}
    found, given = plain_features(maker.load(), [X, X[:, :5]])
    assert given == 17
    np.testing.assert_allclose(
        found,
        np.hstack([Normalizer().transform(X), Normalizer(norm="l1").transform(Normalizer().transform(X[:, :5]))]),
        rtol=1e-12,
    )


def test_two_branches_cannot_share_a_step_without_artifacts() -> None:
    maker = ChainMaker().step(name="Normalizer").step(name="Binarizer").model(Constant(1.0))
    for step in maker.chain["steps"][:2]:
        step["step_idx"] = 1
    maker.chain["branch_path"] = [0]
    with pytest.raises(ReplayError, match="which branch it belongs to"):
        maker.load()
